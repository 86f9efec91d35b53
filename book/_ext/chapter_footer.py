"""A footer on every page whose code was run: run time, code version, seeds, library versions.

The run time is the one in the table of run times, the code's digest the one that the cache of
executed chapters uses, and seeds and imports are read from the page's code. A page is read again
when its code or the digest changes, and its footer with it.
"""

from __future__ import annotations

import ast
import platform
import sys
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from docutils import nodes
from library_index import code_of
from myst_nb.sphinx_ import NbMetadataCollector
from seeds import compact, seeds_of

import saebook

ALWAYS = ("torch", "sae-lens", "numpy")  # what decides the numbers of every page


class ChapterFooter(nodes.General, nodes.Element):
    """The footer: a paragraph with one `inline` for each fact."""


def _append_footer(app, doctree):
    docname = app.env.docname
    run = NbMetadataCollector.get_doc_data(app.env).get(docname, {}).get("exec_data")
    if run and run.get("runtime") is not None:
        source = Path(app.env.doc2path(docname)).read_text(encoding="utf-8")
        doctree += footer(code_of(source), run["runtime"], app.config.execution_inputs_digest)


def footer(tree: ast.Module, seconds: float, digest: str) -> ChapterFooter:
    """The footer of a page with this code, which ran for this time."""
    code = f"saebook {saebook.__version__}, code digest {digest[:8]}"
    facts = {
        "run-time": [nodes.Text(f"Run time {seconds:.{0 if seconds >= 10 else 1}f} s")],
        "code": [nodes.Text(code)],
        "seeds": _seeds(tree),
        "versions": [
            nodes.Text(", ".join([*_versions(tree), f"Python {platform.python_version()}"]))
        ],
    }
    paragraph = nodes.paragraph()
    for name, parts in facts.items():
        paragraph += [nodes.Text(" · ")] if len(paragraph) else []
        paragraph += nodes.inline("", "", *parts, classes=[f"footer-{name}"])
    return ChapterFooter("", paragraph)


def _seeds(tree: ast.Module) -> list[nodes.Node]:
    numbers, texts = seeds_of(tree)
    if not numbers and not texts:
        return [nodes.Text("No seeds")]
    label = "Seed " if len(numbers) + len(texts) == 1 else "Seeds "
    parts: list[nodes.Node] = [nodes.Text(label + compact(numbers))]
    for i, text in enumerate(texts):
        parts += [nodes.Text(", ")] if numbers or i else []
        parts += [nodes.literal("", text)]
    return parts


def _versions(tree: ast.Module) -> list[str]:
    """The packages that decide the numbers, then the others that the code imports."""
    imported = {name.partition(".")[0] for name in _imports(tree)} - set(sys.stdlib_module_names)
    own = {_distributions()[name][0] for name in imported if name in _distributions()}
    names = [*ALWAYS, *sorted(own - {*ALWAYS, "saebook"})]
    return [f"{name} {version(name).partition('+')[0]}" for name in names]


def _imports(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""]
    return found


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _visit(self, node):
    self.body.append(self.starttag(node, "footer", CLASS="chapter-footer"))


def _depart(self, node):
    self.body.append("</footer>\n")


def setup(app):
    app.add_node(ChapterFooter, html=(_visit, _depart))
    app.connect("doctree-read", _append_footer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
