"""The checks of a reader's answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bookkit import exercises
from saebook import metrics


def number(answer, tolerance=0.01):
    return exercises.Number(digest=exercises.digest_of(answer, tolerance), tolerance=tolerance)


ONE_THIRD = number(1 / 3, 0.001)
CHOICE = exercises.Choice(options=("a", "b"), digest=exercises.digest_of("b"))
DRAWS = torch.Generator().manual_seed(0)
INPUTS = [(torch.randn(4, 3, generator=DRAWS),) for _ in range(3)]
COSINE = exercises.Function(reference=metrics.decoder_pairwise_cosine, inputs=INPUTS)


@pytest.mark.parametrize("check", [ONE_THIRD, CHOICE, COSINE])
def test_no_answer_asks_for_one_and_is_neither_right_nor_wrong(check):
    verdict = check(None)
    assert verdict.passed is None
    assert repr(verdict) == ("○ No answer yet. Replace None by your answer and run the cell again.")
    with pytest.raises(exercises.ExerciseError, match="No answer yet"):
        check(None, strict=True)


@given(
    answer=st.floats(-1000, 1000),
    tolerance=st.sampled_from([0.5, 0.01, 0.001]),
    off=st.floats(-3, 3),
)
def test_a_number_is_right_within_the_tolerance_and_wrong_beyond_it(answer, tolerance, off):
    passed = number(answer, tolerance)(answer + off * tolerance).passed
    if abs(off) < 0.94:  # the right answer is rounded to a tenth of the tolerance
        assert passed
    elif abs(off) > 1.06:
        assert not passed


@pytest.mark.parametrize("edge", [0.49, 0.51])
def test_on_the_grid_the_tolerance_is_exact(edge):
    check = number(0.5, 0.01)
    assert check(edge).passed
    assert not check(edge + math.copysign(1e-6, edge - 0.5)).passed


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor, lambda a: np.array(a)])
def test_scalars_of_any_kind_are_numbers(kind):
    assert ONE_THIRD(kind(1 / 3)).passed


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (-1 / 3, "sign"),
        (2 / 3, "twice"),
        (1 / 6, "half"),
        (3, "reciprocal"),
        (100 / 3, "hundred times"),
        (1 / 9, "square of"),
        (3**-0.5, "root of"),
        (0.335, "close, but not within 0.001"),
        (0.9, "0.9 is not within 0.001"),
        (0, "0 is not within"),
        (1e300, "is not within"),
        (1e-310, "is not within"),
        (math.nan, "finite number, got nan"),
        (math.inf, "finite number, got inf"),
        ("1/3", "Expected a number, got '1/3'"),
        (True, "Expected a number, got True"),
        (torch.ones(2), "Expected a number, got [1.0, 1.0]"),
        (1j, "Expected a number, got 1j"),
    ],
)
def test_a_wrong_number_gets_a_hint_and_never_raises(wrong, hint):
    verdict = ONE_THIRD(wrong)
    assert verdict.passed is False
    assert hint in verdict.hint
    assert repr(verdict).startswith("✗ Not yet.")


def test_one_minus_the_answer_is_told():
    assert "one minus" in number(0.28)(0.72).hint


def test_the_solution_of_the_book_must_be_right():
    assert ONE_THIRD(1 / 3, strict=True).passed
    with pytest.raises(exercises.ExerciseError, match=r"the solution 0.3 does not pass: ✗"):
        ONE_THIRD(0.3, strict=True)


def test_a_digest_does_not_show_the_answer_and_depends_on_answer_and_tolerance():
    digests = {exercises.digest_of(a, t) for a in (0.5, 0.25) for t in (0.1, 0.01)}
    assert len(digests) == 4
    assert all(len(digest) == 12 for digest in digests)


@pytest.mark.parametrize("tolerance", [0, -1, None, "0.1"])
def test_a_tolerance_is_a_positive_number(tolerance):
    with pytest.raises((TypeError, ValueError), match="tolerance"):
        exercises.Number(digest="", tolerance=tolerance)
    with pytest.raises((TypeError, ValueError), match="tolerance"):
        exercises.digest_of(0.5, tolerance)


def test_one_choice_is_right():
    assert CHOICE("b", strict=True).passed
    assert CHOICE("a").passed is False


@pytest.mark.parametrize("wrong", ["c", "", 1, ["b"], torch.ones(20)])
def test_what_is_no_option_gets_the_list_of_them(wrong):
    assert CHOICE(wrong).hint.startswith("Expected one of 'a', 'b', got ")


def by_loops(W_dec):
    unit = [row / row.norm() for row in W_dec]
    pairs = [(i, j) for i in range(len(unit)) for j in range(i)]
    return sum(float(abs(unit[i] @ unit[j])) for i, j in pairs) / len(pairs)


def test_a_function_that_agrees_is_right():
    assert COSINE(by_loops, strict=True).hint == "It agrees with the library's on all 3 inputs."


def test_a_function_that_differs_is_shown_the_first_such_input_and_both_values():
    verdict = COSINE(lambda W_dec: 2 * by_loops(W_dec))
    W = INPUTS[0][0]
    right = by_loops(W)
    assert verdict.passed is False
    assert verdict.hint == (
        f"On input 1, ({W.numpy().round(3).tolist()}), "
        f"it returns {2 * right:.4g}, expected {right:.4g}."
    )


def test_later_inputs_count_too():
    first = by_loops(INPUTS[0][0])
    assert COSINE(lambda _: first).hint.startswith("On input 2, (")


def test_the_entry_that_differs_is_named():
    check = exercises.Function(reference=lambda n: torch.arange(n), inputs=[(3,)])
    assert check(lambda n: [0, 1, 5]).hint == "On input 1, (3), it returns 5 at [2], expected 2."
    assert check(lambda n: [0, 1, 2]).passed


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (3, "Expected a function, got 3"),
        (lambda W: 1 / 0, "On input 1 it raises ZeroDivisionError"),
        (lambda: 1.0, "On input 1 it raises TypeError"),
        (lambda W: W, "the result has shape (4, 3), expected ()"),
        (lambda W: "high", "it returns 'high', expected "),
        (lambda W: math.nan, "it returns nan, expected "),
    ],
)
def test_a_faulty_function_gets_a_hint_and_never_raises(wrong, hint):
    verdict = COSINE(wrong)
    assert verdict.passed is False
    assert hint in verdict.hint


def test_a_stub_that_returns_none_is_no_answer_yet():
    verdict = COSINE(lambda W_dec: None)
    assert verdict.passed is None
    assert verdict.hint == "Write the function's body and run the cell again."


def test_a_function_that_changes_its_input_spoils_nothing():
    def in_place(W_dec):
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        return metrics.decoder_pairwise_cosine(W_dec)

    kept = [W.clone() for (W,) in INPUTS]
    assert COSINE(in_place).passed
    assert all(torch.equal(W, old) for (W,), old in zip(INPUTS, kept, strict=True))


def test_html_says_the_verdict_in_words_and_escapes_the_hint():
    shown = CHOICE("<b>")._repr_html_()
    assert shown.startswith("<p><strong>✗ Not yet.</strong> Expected one of ")
    assert "&lt;b&gt;" in shown
