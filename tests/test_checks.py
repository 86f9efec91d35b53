import math

import pytest
import torch

from saebook import _checks


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (_checks.check_positive_int, 1),
        (_checks.check_non_negative_int, 0),
        (_checks.check_positive, 0.1),
        (_checks.check_non_negative, 0),
    ],
)
def test_a_number_in_range_comes_back(check, good):
    assert check("k", good) == good


@pytest.mark.parametrize(
    ("check", "bad", "message"),
    [
        (_checks.check_positive_int, 0, "k must be at least 1, got 0"),
        (_checks.check_non_negative_int, -1, "k must be at least 0, got -1"),
        (_checks.check_positive, 0.0, r"k must be in \(0, inf\), got 0.0"),
        (_checks.check_positive, math.inf, r"k must be in \(0, inf\), got inf"),
        (_checks.check_non_negative, -2, r"k must be in \[0, inf\), got -2"),
        (_checks.check_non_negative, math.nan, r"k must be in \[0, inf\), got nan"),
    ],
)
def test_a_number_out_of_range_is_named(check, bad, message):
    with pytest.raises(ValueError, match=message):
        check("k", bad)


@pytest.mark.parametrize("bad", [True, "1", None, 1.0])
def test_only_a_whole_number_is_an_int(bad):
    with pytest.raises(TypeError, match=f"k must be an int, got {bad!r} of type"):
        _checks.check_positive_int("k", bad)


@pytest.mark.parametrize("bad", [True, "1", None, 1j])
def test_only_a_real_number_is_a_number(bad):
    with pytest.raises(TypeError, match="k must be a number, got"):
        _checks.check_in_range("k", bad)


def test_bounds_are_inclusive_unless_open():
    assert _checks.check_in_range("k", 1, 1, 2) == 1.0
    assert _checks.check_in_range("k", 2, 1, 2) == 2.0
    with pytest.raises(ValueError, match=r"k must be in \(1, 2\], got 1"):
        _checks.check_in_range("k", 1, 1, 2, open_minimum=True)
    with pytest.raises(ValueError, match=r"k must be in \[1, 2\), got 2"):
        _checks.check_in_range("k", 2, 1, 2, open_maximum=True)


def test_a_shape_may_leave_sizes_open():
    x = torch.zeros(2, 3)
    assert _checks.check_shape("x", x, (2, "d_in")) is x
    assert _checks.check_shape("x", x, (None, 3)) is x
    with pytest.raises(ValueError, match=r"x must have shape \(any, 4\), got \(2, 3\)"):
        _checks.check_shape("x", x, (None, 4))
    with pytest.raises(ValueError, match=r"x must have shape \(2, d_in, n\), got \(2, 3\)"):
        _checks.check_shape("x", x, (2, "d_in", "n"))


def test_the_first_entry_at_fault_is_named():
    value = torch.tensor([[0.0, 1.0], [math.inf, 1.5]])
    with pytest.raises(ValueError, match=r"x must be finite, got inf at index \(1, 0\)"):
        _checks.check_finite("x", value)
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\], got inf at index \(1, 0\)"):
        _checks.check_probabilities("x", value)


def test_one_of_and_instance_name_what_was_expected():
    assert _checks.check_one_of("kind", "topk", {"topk", "relu"}) == "topk"
    with pytest.raises(ValueError, match=r"kind must be one of \['relu', 'topk'\], got 'gelu'"):
        _checks.check_one_of("kind", "gelu", {"topk", "relu"})
    with pytest.raises(TypeError, match=r"kind must be str or int, got 1\.5 of type float"):
        _checks.check_instance("kind", 1.5, (str, int))
