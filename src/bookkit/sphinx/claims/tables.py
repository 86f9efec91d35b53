"""A table of a page, from its cells."""

from __future__ import annotations

from collections.abc import Iterable

from docutils import nodes


def row(cells: Iterable[list[nodes.Node]], kinds: Iterable[str] = ()) -> nodes.row:
    """A row, from what each cell holds; `kinds` are its classes."""
    return nodes.row("", *[nodes.entry("", *cell) for cell in cells], classes=list(kinds))


def lines(texts: Iterable[str]) -> list[nodes.Node]:
    """What a cell holds: a paragraph a text."""
    return [nodes.paragraph("", text) for text in texts]


def table(head: Iterable[str], rows: Iterable[nodes.row], kinds: Iterable[str] = ()) -> nodes.table:
    """A table whose columns are as wide as they need; `kinds` are further classes of it."""
    heads = [lines([text]) for text in head]
    group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in heads], cols=len(heads))
    group += [nodes.thead("", row(heads)), nodes.tbody("", *rows)]
    return nodes.table("", group, classes=["colwidths-auto", *kinds])
