"""The code of chapters, which are notebooks in MyST Markdown, read by jupytext."""

from __future__ import annotations

import ast
import re

import jupytext


def cells(page: str) -> list[str]:
    """The source of each code cell of a page."""
    notebook = jupytext.reads(page, fmt="md:myst")
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def code_of(page: str) -> ast.Module:
    """The code cells of a page as one module, without the magics of IPython."""
    return ast.parse("\n".join(re.sub(r"(?m)^\s*[%!].*$", "", cell) for cell in cells(page)))
