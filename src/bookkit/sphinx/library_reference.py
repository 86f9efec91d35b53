"""The `library-reference` directive: the docstrings of modules, with links to chapters and tests.

    ```{library-reference} worlds metrics
    ```

Sphinx's autodoc renders signatures and docstrings. This extension lists what is public, adds to
each entry the chapters that use it and the tests that reach it, both read from the sources by
`library_index`, and reads a reference page again when these have changed. (When the library itself
changes, every page is read again: see `execution_cache`.)
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode, nested_parse_with_titles
from sphinx_external_toc.parsing import parse_toc_yaml

from bookkit.sphinx.library_index import Entry, Library, Links, links

LOGGER = logging.getLogger(__name__)
MARKUP = re.compile(r"(`+.+?`+)|([|*\\]|(?<=\w)_(?!\w))", re.DOTALL)


class LibraryReference(SphinxDirective):
    """A section for each module named: its docstring, functions and classes."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        store = _store(self.env)
        modules = self.arguments[0].split()
        store["pages"][self.env.docname] = modules
        lines = [line for module in modules for line in self._section(module)]
        return _parsed(self, lines)

    def _section(self, module: str) -> list[str]:
        entries = [entry for entry in _links(self.env) if entry.module == module]
        if not entries:
            raise self.error(f"library-reference must name public modules, got {module!r}")
        lines = [f"## `{module}`", "", "````{eval-rst}", f".. automodule:: {module}", ""]
        for entry in entries:
            if entry.is_class:
                lines += [f".. autoclass:: {entry.path}", "   :members:", ""]
            else:
                lines += [f".. autofunction:: {entry.path}", ""]
        return [*lines, "````", ""]


class LibraryOverview(SphinxDirective):
    """A list of the public modules: a link, and what the first line of the docstring says."""

    def run(self):
        store = _store(self.env)
        store["overviews"].add(self.env.docname)
        items = [f"* :py:mod:`{name}`: {line}" for name, line in store["modules"].items()]
        return _parsed(self, ["````{eval-rst}", *items, "````"])


def _parsed(directive, lines: list[str]) -> list[nodes.Node]:
    """Lines of MyST as nodes of the page that the directive stands on."""
    container = nodes.Element()
    source = directive.get_source_info()[0]
    nested_parse_with_titles(directive.state, StringList(lines, source), container)
    return container.children


def _store(env) -> dict:
    """The environment's record: the modules on each reference page, and the links printed there."""
    if not hasattr(env, "book_library"):
        env.book_library = {"pages": {}, "overviews": set(), "links": {}, "modules": {}}
    return env.book_library


def _links(env) -> dict[Entry, Links]:
    return _store(env)["links"]


def _book_pages(root: Path) -> list[str]:
    """The pages of the table of contents, in order, but for the reference itself."""
    files = {name: root / f"{name}.md" for name in parse_toc_yaml(root / "_toc.yml")}
    return [
        name
        for name, file in files.items()
        if file.is_file() and "{library-reference}" not in file.read_text(encoding="utf-8")
    ]


def _outdated(app, env, added, changed, removed):
    """Read the sources; the reference pages are outdated if what they print has changed."""
    store = _store(env)
    root = Path(app.srcdir)
    found = {"links": links(root, _book_pages(root))}
    docstrings = Library(root / "src").docstrings()
    public = dict.fromkeys(entry.module for entry in found["links"])
    found["modules"] = {name: plain(docstrings[name].partition("\n")[0]) for name in public}
    outdated = [] if found.items() <= store.items() else [*store["pages"], *store["overviews"]]
    store |= found
    return outdated


def _forget(app, env, docname):
    _store(env)["pages"].pop(docname, None)
    _store(env)["overviews"].discard(docname)


def plain(line: str) -> str:
    """A line of a docstring whose `*`, `|` and final `_` outside of backticks mean themselves."""
    return MARKUP.sub(lambda match: match[1] or f"\\{match[2]}", line)


def _escape(app, what, name, obj, options, lines):
    """Before napoleon reads it: docstrings are plain text with `code`."""
    lines[:] = plain("\n".join(lines)).split("\n")


def _add_links(app, what, name, obj, options, lines):
    """After napoleon: the last fields of an entry say where it is used and tested."""
    for entry, where in _links(app.env).items():
        if entry.path == name:
            lines += ["", *_fields(where, _repository(app.config)), ""]


def _fields(where: Links, repository: str) -> list[str]:
    pages = ", ".join(f":doc:`/{page}`" for page in where.used)
    fields = [f":Used in: {pages}"] if pages else []
    tests = [_tests(file, len(names), repository) for file, names in where.tests.items()]
    return [*fields, ":Tested in: " + ", ".join(tests)] if tests else fields


def _tests(file: str, count: int, repository: str) -> str:
    name = f"`{file} <{repository}/{file}>`__" if repository else f"``{file}``"
    return f"{name} ({count} {'test' if count == 1 else 'tests'})"


def _repository(config) -> str:
    """The address of the repository's files, or nothing where `_config.yml` names none."""
    options = config.html_theme_options
    url, branch = options.get("repository_url", ""), options.get("repository_branch", "main")
    return f"{url.rstrip('/')}/blob/{branch}" if url else ""


def _resolve(app, env, node, contnode):
    """Find names that docstrings and signatures give without their module; others are plain text.

    Roles in chapters are left to Sphinx, which warns of a name that does not exist.
    """
    if node.get("refdomain") != "py" or node.get("refdoc") not in {
        *_store(env)["pages"],
        *_store(env)["overviews"],
    }:
        return None
    objects = env.get_domain("py").objects
    target = node["reftarget"]
    tops = dict.fromkeys(entry.module.partition(".")[0] for entry in _links(env))
    paths = [target, *(f"{top}.{target}" for top in tops)]
    for path in (*paths, *_paths(env, target.rpartition(".")[2])):
        if path in objects:
            entry = objects[path]
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, path
            )
    return contnode


def _paths(env, name: str) -> list[str]:
    """The one entry of this name, if it is only one."""
    found = [entry.path for entry in _links(env) if entry.name == name]
    return found if len(found) == 1 else []


def _check_complete(app, env):
    """Warn of a public module on no reference page, or on two."""
    shown = [module for modules in _store(env)["pages"].values() for module in modules]
    public = {entry.module for entry in _links(env)}
    for module in sorted(public | set(shown)):
        if shown and shown.count(module) != 1:
            LOGGER.warning(
                "module %r must stand on one reference page, got %d", module, shown.count(module)
            )


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.add_directive("library-reference", LibraryReference)
    app.add_directive("library-overview", LibraryOverview)
    app.connect("env-get-outdated", _outdated)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _check_complete)
    app.connect("autodoc-process-docstring", _escape, priority=400)
    app.connect("autodoc-process-docstring", _add_links, priority=600)
    app.connect("missing-reference", _resolve)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
