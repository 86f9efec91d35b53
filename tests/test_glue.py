"""A value that a page shows without a format is text or a Python integer.

What is glued is stored as it prints, and a NumPy integer prints as "np.int64(3)", a tensor as
"tensor(3)". A format such as `:.2f` refuses these; without one they would stand in the page.
"""

import ast
import re
from pathlib import Path

import pytest

from test_prose import cells

BOOK = Path(__file__).parents[1] / "book"
SHOWN = re.compile(r"\{glue:text\}`(?:[^`]*::)?([^`:]+)`")
PLAIN = re.compile(r"(?:int|len|str)\(|f?['\"]|\d+$|\w+\.numel\(\)$")


def glued(page):
    """Name and value of each call of glue on a page, as they are written."""
    code = "\n".join(line for cell in cells(page) for line in cell.code)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "glue":
            yield ast.unparse(node.args[0]), ast.unparse(node.args[1])


def names(name, keys):
    """Which keys the first argument of glue can stand for: itself, or all that fit its parts."""
    if name.startswith("'"):
        return keys & {name[1:-1]}
    parts = re.sub(r"\{.*?\}", ".*", name[2:-1]) if name.startswith("f'") else ".*"
    return {key for key in keys if re.fullmatch(parts, key)}


def faults(pages):
    """The values that are shown somewhere without a format and may be of another kind."""
    bare = {key for page in pages for key in SHOWN.findall(page)}
    calls = sorted(call for page in pages for call in glued(page))
    found = []
    for name, value in calls:  # quotes sort first, and leave the rest to f-strings and variables
        shown = names(name, bare)
        bare -= shown
        if shown and not PLAIN.match(value):
            found.append(f"{', '.join(sorted(shown))} is glued as {value}; expected text or int(…)")
    return found


def page(value, role="{glue:text}`n`"):
    return f'```{{code-cell}} python\nglue("n", {value}, display=False)\n```\n\n{role}'


def test_no_chapter_shows_a_value_by_what_numpy_prints():
    assert faults([file.read_text(encoding="utf-8") for file in sorted(BOOK.glob("*.md"))]) == []


@pytest.mark.parametrize("value", ["np.int64(3)", "x.sum()", "sum(x)", "x[0]", "counted", "1.5"])
def test_a_number_that_may_be_numpys_needs_int_or_a_format(value):
    for role in ("{glue:text}`n`", "{glue:text}`one.md::n`"):
        assert faults([page(value, role)])[0].startswith(f"n is glued as {value}; expected text")
    assert faults([page(f"int({value})")]) == []
    assert faults([page(value, "{glue:text}`n:.2f`")]) == []


@pytest.mark.parametrize("value", ["len(x) - len(y)", "f'{x:,}'", "str(x) if x else 'none'", "16"])
def test_text_and_integers_need_none(value):
    assert faults([page(value)]) == []
