"""The ledger refuses false claims and bad arguments, and carries what it was given."""

import ast
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from bookkit import claims
from bookkit.chapters import code_of

ROOT = Path(__file__).resolve().parents[2]


def test_a_true_claim_is_returned_with_its_arguments():
    claim = claims.check(
        "low-k", "Error is lower", True, value=1.5, published=2, source="chanin2025sparse"
    )
    assert (claim.id, claim.statement, claim.value, claim.published) == (
        "low-k",
        "Error is lower",
        1.5,
        2,
    )
    assert claim.source == "chanin2025sparse"
    assert claim.anchor == "claim-low-k"


def test_a_claim_cannot_be_changed():
    with pytest.raises(AttributeError):
        claims.check("fixed", "Fixed", True).value = 1


def test_a_false_claim_outside_of_a_notebook_warns_and_stops_nothing():
    with pytest.warns(claims.ClaimWarning, match=r"'low-k' does not hold: .*\(found: 3.14\)"):
        claim = claims.check("low-k", "Error is lower", False, value=3.14159)
    assert not claim.holds


@pytest.mark.parametrize(
    "holds", [True, np.True_, np.array(True), torch.tensor(True), np.float64(1) < 2]
)
def test_single_booleans_of_python_numpy_and_torch_are_accepted(holds):
    assert claims.check("kind", "Any Boolean", holds).id == "kind"


@pytest.mark.filterwarnings("ignore::bookkit.claims.ClaimWarning")
@pytest.mark.parametrize("holds", [False, np.False_, torch.tensor(False), [True, np.False_]])
def test_false_of_every_kind_is_false(holds):
    claim = claims.check("kind", "Any Boolean", holds)
    assert not claim.holds
    assert claim.text() == "✗ Does not hold here. Any Boolean"
    assert 'class="claim claim-false"' in claim.html()


@pytest.mark.parametrize(
    "holds", [1, 0.0, None, "yes", [1.0], np.array([True]), torch.tensor([True, False])]
)
def test_anything_else_is_not_a_verdict(holds):
    with pytest.raises(TypeError, match=r"holds must be a number with its bounds .*got"):
        claims.check("kind", "Any Boolean", holds)


def test_a_claim_rests_on_something():
    with pytest.raises(ValueError, match="at least one part, got an empty list"):
        claims.check("kind", "Nothing", [])


@pytest.mark.parametrize("id", ["", "Low-K", "low k", "-low", "low--k", "low-"])
def test_an_id_must_be_a_slug(id):
    with pytest.raises(ValueError, match=r"id must be lower-case words"):
        claims.check(id, "Statement", True)


@pytest.mark.parametrize("statement", ["", "  "])
def test_a_statement_must_say_something(statement):
    with pytest.raises(ValueError, match=r"statement must be a string"):
        claims.check("id", statement, True)


def test_a_source_must_say_something():
    with pytest.raises(ValueError, match="source must be .*got ''"):
        claims.check("id", "Statement", True, source="")


@pytest.mark.parametrize("value", [True, object(), torch.ones(2, 2), [[1.0]], {"a": 1}])
@pytest.mark.parametrize("name", ["value", "published"])
def test_values_are_numbers_strings_or_lists_of_them(name, value):
    with pytest.raises(TypeError, match=rf"(?s){name} must be a number"):
        claims.check("id", "Statement", True, **{name: value})


def test_scalars_and_vectors_become_python_values():
    assert claims.check("scalar", "S", True, value=torch.tensor(2.5)).value == 2.5
    assert claims.check("numpy", "S", True, value=np.float32(0.5)).value == 0.5
    assert claims.check("vector", "S", True, value=torch.tensor([1, 2])).value == (1, 2)
    assert claims.check("list", "S", True, value=[1, np.float64(2.5), "x"]).value == (1, 2.5, "x")


def test_a_claim_may_be_checked_again_in_other_words():
    claims.check("same", "One", True, value=1)
    assert claims.check("same", "One, said better", True, value=2).value == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.85714, "0.857"),
        (-0.5, "−0.5"),
        (0.0, "0"),
        (48, "48"),
        (14648, "14,648"),
        (14648.4, "14,648"),
        (0.00002, "2.0e−05"),
        (float("inf"), "inf"),
        ("none", "none"),
        ((1, -2.5), "1, −2.5"),
    ],
)
def test_values_are_formatted_for_reading(value, shown):
    assert claims.format_value(value) == shown


def test_html_escapes_its_text_and_carries_the_anchor():
    line = claims.check(
        "escape", "a < b & c", True, value="<i>", published=1, source="a <key>"
    ).html()
    assert 'id="claim-escape"' in line
    assert "a &lt; b &amp; c" in line
    assert "&lt;i&gt;" in line
    assert "a &lt;key&gt;" in line


def test_nothing_is_shown_outside_a_notebook(capsys):
    claims.check("quiet", "Quiet", True)
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_text_html_and_json(monkeypatch):
    shown = []
    display = types.SimpleNamespace(display=lambda bundle, raw: shown.append((bundle, raw)))
    shell = types.SimpleNamespace(kernel=object())
    fake = types.SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    claims.check("shown", "Shown", True, value=[1, 2.25], published=2.73, source="Section 3")
    ((bundle, raw),) = shown
    assert raw
    assert bundle[claims.MIME] == {
        "id": "shown",
        "statement": "Shown",
        "value": "1, 2.25",
        "numbers": ["1, 2.25"],
        "published": "2.73",
        "source": "Section 3",
        "anchor": "claim-shown",
        "holds": True,
        "rest": True,
        "verdict": "✓ Claim.",
        "findings": [],
    }
    assert bundle["text/plain"] == "✓ Claim. Shown: 1, 2.25 (published 2.73)"
    assert "claim-shown" in bundle["text/html"]


def test_a_value_that_was_given_is_not_taken_apart():
    claim = claims.check("given", "Given", [claims.at_least(2, 1)], value="a; b")
    assert claim.payload()["numbers"] == ["a; b"]
    two = claims.check("two", "Two", [claims.at_least(2, 1), claims.at_most(0, 1, "y")])
    assert two.payload()["numbers"] == ["2 ≥ 1", "y: 0 ≤ 1"]


def test_the_ledger_needs_no_heavy_import():
    code = (
        "import sys, bookkit.claims as c; c.check('a', 'A', True); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The claims of the chapters

CHAPTERS = sorted(
    page
    for page in (ROOT / "book").glob("*.md")
    if "claims.check(" in page.read_text(encoding="utf-8")
)
WITH_BOUNDS = {"at_least", "at_most", "between"}
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def hidden_bounds(code):
    """The comparisons in the verdicts of claims whose numbers and bounds nobody would see."""

    def visit(node):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in WITH_BOUNDS:
            return
        if isinstance(node, ast.Compare) and any(isinstance(op, ORDER) for op in node.ops):
            yield ast.unparse(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    for call in ast.walk(code):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "claims.check":
            verdicts = [*call.args[2:3], *(k.value for k in call.keywords if k.arg == "holds")]
            yield from (found for verdict in verdicts for found in visit(verdict))


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_the_claims_of_a_chapter_give_their_numbers_with_bounds(page):
    assert list(hidden_bounds(code_of(page.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("verdict", "hidden"),
    [
        ("error < 0.1", ["error < 0.1"]),
        ("bool((errors < 0.1).all())", ["errors < 0.1"]),
        ("[claims.at_least(x, 1), 0 < y <= 2]", ["0 < y <= 2"]),
        ("claims.at_least(recovered >= 16, 0.8)", []),
        ("names == ['a', 'b']", []),
    ],
)
def test_a_hidden_bound_is_found(verdict, hidden):
    page = f"# T\n\n```{{code-cell}}\nclaims.check('a', 'A', {verdict})\n```\n"
    assert list(hidden_bounds(code_of(page))) == hidden


def test_the_chapters_with_claims_are_found():
    assert {page.stem for page in CHAPTERS} >= {"intro", "true_l0", "hedging"}
