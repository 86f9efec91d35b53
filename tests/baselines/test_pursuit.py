"""Orthogonal matching pursuit, held against scikit-learn's and against what it promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp
from torch.nn.functional import normalize

from saebook.baselines import orthogonal_matching_pursuit
from saebook.baselines import pursuit as _pursuit
from saebook.baselines.pursuit import keep_largest

SEEDS = st.integers(0, 10_000)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def unit(*shape, seed=0):
    return normalize(randn(*shape, seed=seed), dim=-1)


@given(n_atoms=st.integers(2, 40), l0=st.integers(1, 8), seed=SEEDS)
def test_codes_are_those_of_scikit_learn(n_atoms, l0, seed):
    l0 = min(l0, n_atoms, 9)
    dictionary, x = unit(n_atoms, 10, seed=seed), randn(6, 10, seed=seed + 1)
    codes = orthogonal_matching_pursuit(x, dictionary, l0)
    oracle = orthogonal_mp(dictionary.T.numpy(), x.T.numpy(), n_nonzero_coefs=l0)
    torch.testing.assert_close(
        codes, torch.from_numpy(oracle.reshape(n_atoms, 6).T.copy()), rtol=0, atol=1e-6
    )


def test_a_small_case_worked_by_hand():
    # Projections 1.4, 3 and 4.4/√2 ≈ 3.11: the slanted atom comes first, either mends the rest.
    r = math.sqrt(0.5)
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 1.0], [r, r]])
    x = torch.tensor([[1.4, 3.0]])
    one = orthogonal_matching_pursuit(x, dictionary, 1)
    torch.testing.assert_close(one, torch.tensor([[0.0, 0.0, 4.4 * r]]))
    two = orthogonal_matching_pursuit(x, dictionary, 2)
    fits = two @ dictionary
    torch.testing.assert_close(fits, x)
    assert two.count_nonzero() == 2
    assert two[0, 2] != 0


def test_orthonormal_atoms_give_the_largest_projections():
    directions = torch.linalg.qr(randn(8, 8)).Q
    x = randn(20, 8, seed=1)
    projections = x @ directions.T
    expected = keep_largest(projections, projections.abs(), 3)
    torch.testing.assert_close(orthogonal_matching_pursuit(x, directions, 3), expected)


@given(seed=SEEDS)
def test_errors_fall_with_every_atom_and_codes_are_least_squares(seed):
    dictionary, x = unit(15, 6, seed=seed), randn(5, 6, seed=seed + 1)
    before = x.norm(dim=1)
    for l0 in range(1, 7):
        codes = orthogonal_matching_pursuit(x, dictionary, l0)
        residual = x - codes @ dictionary
        assert (codes.count_nonzero(1) <= l0).all()
        assert (residual.norm(dim=1) <= before + 1e-9).all()
        # What is left is orthogonal to all chosen atoms.
        assert ((residual @ dictionary.T) * (codes != 0)).abs().max() < 1e-9
        before = residual.norm(dim=1)


def test_zero_inputs_get_no_atom():
    x = torch.cat([torch.zeros(1, 5), randn(1, 5).float()])
    codes = orthogonal_matching_pursuit(x, unit(7, 5).float(), 3)
    assert codes.count_nonzero(1).tolist() == [0, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_of_atoms_are_chosen_once_and_nothing_is_nan(dtype):
    atoms = unit(3, 8)
    dictionary = torch.cat([atoms, atoms, -atoms]).to(dtype)
    x = (randn(10, 3, seed=1) @ atoms).to(dtype)
    codes = orthogonal_matching_pursuit(x, dictionary, 9)
    assert codes.isfinite().all()
    assert (codes.count_nonzero(1) == 3).all()
    torch.testing.assert_close(codes @ dictionary, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_atoms_than_dimensions_reconstruct_exactly_and_stay_finite(dtype):
    dictionary, x = unit(30, 6).to(dtype), randn(50, 6, seed=1).to(dtype)
    codes = orthogonal_matching_pursuit(x, dictionary, 20)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes @ dictionary, x, rtol=1e-4, atol=1e-4)
    assert (codes.count_nonzero(1) <= 8).all()  # 6, but for rounding


def test_chunks_of_rows_do_not_change_the_codes(monkeypatch):
    dictionary, x = unit(12, 6), randn(17, 6, seed=1)
    whole = orthogonal_matching_pursuit(x, dictionary, 3)
    monkeypatch.setattr(_pursuit, "CHUNK_BYTES", 1500)
    torch.testing.assert_close(orthogonal_matching_pursuit(x, dictionary, 3), whole)


def test_without_atoms_all_codes_are_zero():
    assert not orthogonal_matching_pursuit(randn(4, 5), unit(6, 5), 0).any()


def test_keeping_the_largest_goes_by_the_scores():
    codes = torch.tensor([[1.0, -3.0, 2.0], [4.0, 0.5, -1.0]])
    kept = keep_largest(codes, codes.abs(), 2)
    assert kept.tolist() == [[0, -3, 2], [4, 0, -1]]
    assert keep_largest(codes, codes, 1).tolist() == [[0, 0, 2], [4, 0, 0]]
    assert torch.equal(keep_largest(codes, codes, 3), codes)
    assert not keep_largest(codes, codes, 0).any()


X, D = randn(4, 5), unit(6, 5)
BAD = {
    r"x must have shape \(n, 5\), got \(4, 4\)": (X[:, 1:], D, 2),
    "x must be finite, got nan": (torch.full((4, 5), np.nan), D, 2),
    "dictionary must have rows of norm 1, got norm 2": (X, 2 * D, 2),
    r"l0 must be in \[0, 6\], got 7": (X, D, 7),
    "l0 must be at least 0, got -1": (X, D, -1),
    "l0 must be an int, got 2.5": (X, D, 2.5),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        orthogonal_matching_pursuit(*BAD[message])
