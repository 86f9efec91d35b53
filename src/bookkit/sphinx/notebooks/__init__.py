"""Publish each executed page as a notebook that runs without the repository.

`notebooks/` of the site holds `<page>.ipynb` for every page with code, the wheel of the library,
and `requirements.txt` with the pinned versions. A notebook has the page's prose with all roles
resolved, the page's code, no outputs, and a first cell that installs what it needs. The page links
to it. Where `repository: url` in `_config.yml` names a repository on GitHub, the page also has
launch buttons: Colab and Binder open the notebook from that repository's branch `notebooks`, which
`.github/workflows/check.yml` fills.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bookkit.sphinx.notebooks.files import build_wheel, pins
from bookkit.sphinx.notebooks.text import Code, Page, cells

FOLDER = "notebooks"
BRANCH = "notebooks"
REQUIREMENTS = "requirements.txt"
FIGURE = re.compile(r"\{glue:figure\} *([\w.-]+)")

INSTALL = """\
# Installs the versions that the book pins, unless its library is here already.
import importlib.metadata
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the book, so that sums have its order
version, wheel, site = {version!r}, {wheel!r}, {site!r}
if version not in [d.version for d in importlib.metadata.distributions(name={library!r})]:
    beside = pathlib.Path(wheel).is_file() and pathlib.Path("requirements.txt").is_file()
    if not beside and not site:
        raise FileNotFoundError(f"put {{wheel}} and requirements.txt beside this notebook")
    print("Installing; this takes some minutes.")
    files = [("" if beside else site) + name for name in ("requirements.txt", wheel)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", *files], check=True)"""


def repository(config) -> tuple[str, str] | None:
    """Owner and name of the repository on GitHub that the launch buttons open, if one is set.

    Raises:
        ValueError: the setting is not the address of a repository on GitHub.
    """
    address = (config.html_theme_options.get("repository_url") or "").rstrip("/")
    if not address:
        return None
    parts = urlsplit(address)
    names = parts.path.strip("/").removesuffix(".git").split("/")
    if parts.netloc != "github.com" or len(names) != 2:
        raise ValueError(
            f"repository: url must be https://github.com/<owner>/<name> or empty, got {address!r}"
        )
    return names[0], names[1]


def source_of_files(config) -> str:
    """The address, with a slash at its end, that has the wheel; empty where none is known."""
    if config.html_baseurl:
        return f"{config.html_baseurl.rstrip('/')}/{FOLDER}/"
    if found := repository(config):
        return f"https://raw.githubusercontent.com/{'/'.join(found)}/{BRANCH}/"
    return ""


def launch_links(config, name: str) -> list[tuple[str, str]]:
    """Names and addresses of the services that run a page's notebook; none without a repository."""
    found = repository(config)
    if found is None:
        return []
    place = "/".join(found)
    return [
        ("Colab", f"https://colab.research.google.com/github/{place}/blob/{BRANCH}/{name}.ipynb"),
        ("Binder", f"https://mybinder.org/v2/gh/{place}/{BRANCH}?urlpath=lab/tree/{name}.ipynb"),
    ]


def install_cell(library: str, site: str) -> str:
    """The code of a notebook's first cell, which installs the library, as it is installed here."""
    number = version(library)
    wheel = f"{library}-{number}-py3-none-any.whl"
    return INSTALL.format(library=library, version=number, wheel=wheel, site=site)


def with_figures_shown(code: str, figures: set[str]) -> str:
    """The code without the `display=False` of glued figures, which the page shows elsewhere."""
    lines = [line.encode() for line in code.splitlines(keepends=True)]
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    source = b"".join(lines)
    for call in reversed([node for node in ast.walk(ast.parse(code)) if _glues(node, figures)]):
        before = [*call.args, *(k.value for k in call.keywords)]
        for keyword in call.keywords:
            if keyword.arg == "display":
                last = before[before.index(keyword.value) - 1]
                begin = starts[last.end_lineno - 1] + last.end_col_offset
                end = starts[keyword.value.end_lineno - 1] + keyword.value.end_col_offset
                source = source[:begin] + source[end:]
    return source.decode()


def _glues(node: ast.AST, names: set[str]) -> bool:
    return (
        isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "glue"
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value in names
    )


def notebook(
    doctree,
    page: Page,
    *,
    figures: set[str],
    unseen: dict[int, str],
    library: str,
    site: str,
    book: str,
):
    """A page as a notebook without outputs, or None where the page has no code.

    Args:
        doctree: the page with all references resolved.
        page: what the doctree does not hold itself.
        figures: the keys of glued figures, which a notebook shows under their cells.
        unseen: code that runs but is not on the page, by its place in the page's source.
        library: the distribution that the notebooks need.
        site: the address of the folder with the wheel; empty where there is none.
        book: the book's title.
    """
    parts = list(_with_unseen(cells(doctree, page), unseen))
    if not any(isinstance(part, Code) for part in parts):
        return None
    head, _, rest = parts[0].source.partition("\n\n")
    begin = [new_markdown_cell(f"{head}\n\n{_introduction(doctree, page, book)}")]
    begin.append(new_code_cell(install_cell(library, site), metadata={"tags": ["install"]}))
    if rest:
        begin.append(new_markdown_cell(rest))
    own = [_cell(part, figures) for part in parts[1:]]
    if page.cited:
        entries = "\n".join(f"- {entry}" for entry in sorted(page.cited))
        own.append(new_markdown_cell(f"## References\n\n{entries}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    result = new_notebook(cells=begin + own, metadata={"kernelspec": kernel})
    result.metadata["language_info"] = {"name": "python"}
    for place, cell in enumerate(result.cells):
        cell["id"] = f"cell-{place:03d}"
    nbformat.validate(result)
    return result


def _with_unseen(parts, unseen: dict[int, str]):
    waiting = sorted(unseen.items())
    for part in parts:
        while isinstance(part, Code) and waiting and waiting[0][0] < part.index:
            yield Code(waiting.pop(0)[1], is_folded=True)
        yield part
    yield from (Code(source, is_folded=True) for _, source in waiting)


def _introduction(doctree, page: Page, book: str) -> str:
    """What a notebook is, where its page is, and what the book ran it with."""
    page_of = f"[a page]({page.address})" if page.address else "a page"
    return (
        f"This notebook is {page_of} of *{book}*, with all of its code. The next cell installs "
        "what the code needs, in the versions that the book pins. Numbers in the text are the "
        "book's; on a processor of the same kind the code gives the same. A figure with a slider "
        "shows its start here."
    )


def _cell(part, figures: set[str]):
    if not isinstance(part, Code):
        return new_markdown_cell(part.source)
    cell = new_code_cell(with_figures_shown(part.source, figures))
    if part.tags:
        cell.metadata["tags"] = list(part.tags)
    if part.is_folded:
        cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def _path(app, docname: str) -> Path:
    return Path(app.outdir, FOLDER, f"{docname.removeprefix('book/')}.ipynb")


def _publish(app, doctree, docname) -> None:
    if app.builder.format != "html" or docname in app.config.pages_without_notebook:
        return
    baseurl = app.config.html_baseurl.rstrip("/")
    address = f"{baseurl}/{app.builder.get_target_uri(docname)}" if baseurl else ""
    result = notebook(
        doctree,
        Page(app.env, docname, address),
        figures=_figures(app, docname),
        unseen=_unseen(app, docname),
        library=app.config.notebook_library,
        site=source_of_files(app.config),
        book=app.config.html_title,
    )
    path = _path(app, docname)
    path.unlink(missing_ok=True)
    if result is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(result, path)


def _figures(app, docname: str) -> set[str]:
    """The keys of the figures that a page places by `glue:figure`."""
    source = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
    return set(FIGURE.findall(source))


def _unseen(app, docname: str) -> dict[int, str]:
    """The code of the cells that a page removes, by their place among its cells."""
    path = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"  # MyST-NB's
    if not path.is_file():
        return {}
    read = enumerate(nbformat.read(path, as_version=4).cells)
    return {
        place: cell.source
        for place, cell in read
        if cell.cell_type == "code" and "remove-cell" in cell.metadata.get("tags", ())
    }


def _link(app, pagename, templatename, context, doctree) -> None:
    path = _path(app, pagename)
    if doctree is not None and path.is_file():
        context["notebook"] = path.relative_to(app.outdir).as_posix()
        context["notebook_launchers"] = launch_links(app.config, path.stem)


def _publish_what_they_need(app, exception) -> None:
    folder = Path(app.outdir, FOLDER)
    if exception is None and folder.is_dir():
        root = Path(app.srcdir)
        given = (root / REQUIREMENTS).read_text(encoding="utf-8")
        (folder / REQUIREMENTS).write_text(
            pins(given, app.config.notebook_library), encoding="utf-8"
        )
        binders = "python-{}.{}\n".format(*sys.version_info)
        (folder / "runtime.txt").write_text(binders, encoding="utf-8")
        build_wheel(root, folder)


def setup(app):
    app.add_config_value("pages_without_notebook", [], "html")
    app.add_config_value("notebook_library", "", "html")
    app.connect("doctree-resolved", _publish)
    app.connect("html-page-context", _link)
    app.connect("build-finished", _publish_what_they_need)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
