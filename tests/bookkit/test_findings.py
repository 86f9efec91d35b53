"""A number keeps its bounds with its whole interval, and says by how much."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bookkit import claims
from bookkit.claims import at_least, at_most, between

RUNS = [0.9, 1.0, 1.1, 1.2]


@pytest.mark.parametrize(
    ("finding", "holds", "room"),
    [
        (at_least(0.5, 0.25), True, 0.25),
        (at_least(0.25, 0.5), False, -0.25),
        (at_most(0.25, 0.5), True, 0.25),
        (at_most(0.5, 0.25), False, -0.25),
        (between(2, 1, 5), True, 1),
        (between(4.5, 1, 5), True, 0.5),
        (between(6, 1, 5), False, -1),
        (at_least(1, 1), True, 0),
        (at_least(math.inf, 1), True, math.inf),
    ],
)
def test_a_number_keeps_its_bound_or_does_not(finding, holds, room):
    assert finding.holds is holds
    assert finding.room == room


@pytest.mark.parametrize("bound", [at_least, at_most])
@pytest.mark.parametrize("found", [math.nan, [1.0, math.nan], [1.0, math.inf]])
def test_what_is_not_a_number_keeps_no_bound(bound, found):
    assert not bound(found, 0).holds


def test_runs_stand_for_their_mean_with_students_interval():
    finding = at_least(RUNS, 0.5)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(RUNS), scale=stats.sem(RUNS))
    assert (finding.value, finding.n) == (pytest.approx(1.05), 4)
    assert (finding.low, finding.high) == (pytest.approx(low), pytest.approx(high))
    assert finding.room == pytest.approx(low - 0.5)


def test_the_whole_interval_must_keep_the_bound():
    assert at_least(RUNS, 0.8).holds
    assert not at_least(RUNS, 1.0).holds  # the mean of 1.05 does, but not the interval
    assert not at_most(RUNS, 1.1).holds


def test_booleans_stand_for_their_share_with_wilsons_interval():
    finding = at_least([True] * 9 + [False], 0.5)
    exact = stats.binomtest(9, 10).proportion_ci(0.95, method="wilson")
    assert finding.value == 0.9
    assert (finding.low, finding.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_the_interval_of_a_share_holds_the_share_and_stays_a_share(runs):
    finding = between(runs, 0, 1)
    assert 0 <= finding.low <= finding.value + 1e-12
    assert finding.value - 1e-12 <= finding.high <= 1
    assert finding.holds


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, torch.tensor, pd.Series, lambda r: [torch.tensor(x) for x in r]]
)
def test_runs_come_in_every_container(kind):
    assert at_least(kind(RUNS), 0).value == pytest.approx(1.05)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, pd.Series])
def test_booleans_come_in_every_container(kind):
    assert at_least(kind([True, False]), 0).value == 0.5


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(2), torch.tensor(0.5)])
def test_a_number_may_be_numpys_or_pytorchs(number):
    assert at_least(number, 0).value == float(number)


@pytest.mark.parametrize("found", ["1", None, True, np.ones((2, 2)), [[1.0], [2.0]], ["a", "b"]])
def test_other_things_are_no_numbers(found):
    with pytest.raises(TypeError, match="found must be a number, or one for each of several runs"):
        at_least(found, 0)


@pytest.mark.parametrize("found", [[], [1.0], np.array([1.0])])
def test_one_run_has_no_interval(found):
    with pytest.raises(ValueError, match=r"found must be a number or hold at least two runs, got"):
        at_least(found, 0)


@pytest.mark.parametrize("bound", ["1", None, True, [1.0, 2.0]])
def test_a_bound_is_a_number(bound):
    with pytest.raises(TypeError, match="least must be a number"):
        at_least(1.0, bound)


def test_a_bound_is_not_nan_and_bounds_come_in_order():
    with pytest.raises(ValueError, match="most must be a number, got nan"):
        at_most(1.0, math.nan)
    with pytest.raises(ValueError, match="least must be at most most = 1, got 2"):
        between(1.5, 2, 1)


def test_a_name_is_a_string(unchecked):
    with pytest.raises(TypeError, match="name must be a string, got 3"):
        at_least(1.0, 0, name=3)


@pytest.mark.filterwarnings("ignore::bookkit.claims.ClaimWarning")
def test_a_claim_holds_if_all_its_numbers_do():
    numbers = [at_least(0.043, 0.02, "OMP"), at_most(0.1, 0.2)]
    claim = claims.check("both", "Both", [*numbers, True])
    assert claim.holds
    assert claim.found == "OMP: 0.043 ≥ 0.02; 0.1 ≤ 0.2"
    assert not claims.check("both", "Both", [*numbers, False]).holds
    assert not claims.check("both", "Both", [*numbers, at_least(0, 1)]).holds


@pytest.mark.parametrize(
    ("finding", "shown"),
    [
        (at_least(-0.5, -1), "−0.5 ≥ −1"),
        (between(0.25, 0, 1), "0.25 in 0 to 1"),
        (at_most([1, 1.0], 2), "1 (1 to 1) ≤ 2"),
        (at_least([True, True], 0.1), "1 (0.342 to 1) ≥ 0.1"),
    ],
)
def test_a_finding_is_formatted_with_its_interval_and_bounds(finding, shown):
    assert claims.format_finding(finding) == shown


def test_a_value_for_reading_stands_in_the_place_of_numbers_and_bounds():
    claim = claims.check("value", "Value", at_least(0.5, 0.1), value="half")
    assert claim.found == "half"
    assert claim.payload()["findings"][0]["value"] == 0.5


def test_a_finding_is_valid_json():
    finding = at_least(math.inf, 0)
    assert json.loads(json.dumps(finding.payload(), allow_nan=False))["value"] == "inf"
