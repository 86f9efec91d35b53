"""Pages of `automodule` directives, linked both ways with the chapters' code.

sphinx-codeautolink links names in code to their entries, and lists below each entry the sections
whose code names it. This extension asks for that list, reads docstrings as plain text with `code`,
finds names that stand there without their module, and keeps the lists in step with the chapters.
"""

from __future__ import annotations

import re

import sphinx_codeautolink.extension
from docutils import nodes
from sphinx.util.nodes import make_refnode

NAMED = {"module", "class", "function", "method"}  # an attribute goes by its class' name
MARKUP = re.compile(r"(`+.+?`+|(?<![\w*])\*\w+\*(?!\w))|([|*\\]|(?<=\w)_(?!\w))", re.DOTALL)


class _Sections(sphinx_codeautolink.extension.CodeBlockAnalyser):
    """Reads a page's code. Boxes have titles too, and sphinx-proof's a section without a title."""

    def visit_title(self, node):
        if isinstance(node.parent, nodes.section):
            super().visit_title(node)

    def visit_section(self, node):
        if isinstance(node[0], nodes.title):
            super().visit_section(node)

    def depart_section(self, node):
        if isinstance(node[0], nodes.title):
            super().depart_section(node)


def plain(line: str) -> str:
    """A line of a docstring: `*`, `|` and final `_` mean themselves, but in `code` and *words*."""
    return MARKUP.sub(lambda match: match[1] or f"\\{match[2]}", line)


def _escape(app, what, name, obj, options, lines):
    """Before napoleon reads it: docstrings are plain text with `code`."""
    lines[:] = plain("\n".join(lines)).split("\n")


def _ask_for_uses(app, what, name, obj, options, lines):
    """After napoleon. Code that names a class means the place where it is defined."""
    if what in ("function", "class"):
        path = f"{obj.__module__}.{obj.__qualname__}" if what == "class" else name
        lines += ["", f".. autolink-examples:: {path}", "   :collapse:", ""]


def _pages(env) -> set[str]:
    """The pages with entries."""
    return {entry.docname for entry in env.get_domain("py").objects.values()}


def _write_again(app, env):
    """A chapter that was read anew may name other entries."""
    return sorted(_pages(env))


def _resolve(app, env, node, contnode):
    """Find names that docstrings and signatures give without their module; others are plain text.

    Roles in chapters are left to Sphinx, which warns of a name that does not exist.
    """
    docname = node.get("refdoc")
    if node.get("refdomain") != "py" or docname not in _pages(env):
        return None
    objects, target = env.get_domain("py").objects, node["reftarget"]
    tops = {path.partition(".")[0] for path in objects}
    last = target.rpartition(".")[2]
    named = (path for path, o in objects.items() if o.objtype in NAMED and not o.aliased)
    alike = [path for path in named if path.endswith(f".{last}")]
    for path in (target, *(f"{top}.{target}" for top in tops), *(alike if len(alike) == 1 else ())):
        if path in objects:
            entry = objects[path]
            return make_refnode(app.builder, docname, entry.docname, entry.node_id, contnode, path)
    return contnode


def setup(app):
    for extension in ("sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"):
        app.setup_extension(extension)
    app.setup_extension("sphinx_codeautolink")
    sphinx_codeautolink.extension.CodeBlockAnalyser = _Sections
    app.connect("autodoc-process-docstring", _escape, priority=400)
    app.connect("autodoc-process-docstring", _ask_for_uses, priority=600)
    app.connect("env-updated", _write_again)
    app.connect("missing-reference", _resolve)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
