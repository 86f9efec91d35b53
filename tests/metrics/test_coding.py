"""Code lengths worked out by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saebook.metrics import CodeLength, code_length


def described(seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    """Sixty inputs in four dimensions, by six latents that are active half of the time."""
    generator = torch.Generator().manual_seed(seed)
    latent_acts = torch.randn(60, 6, generator=generator, dtype=torch.float64).relu()
    W_dec = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    x_hat = latent_acts @ W_dec
    x = x_hat + 0.1 * torch.randn(60, 4, generator=generator, dtype=torch.float64)
    return {"x": x, "x_hat": x_hat, "latent_acts": latent_acts, "W_dec": W_dec} | changes


def test_the_three_parts_of_a_small_case_worked_by_hand():
    # Variances of x: 4 and 0, mean 2; at a precision of 1/2 the unit is 1. One latent of two, with
    # a row of norm 2, is active in half of the inputs, which takes one bit, and then contributes 2
    # or 6: variance 4. The other never is. What is left is (-2, 0) and (2, 0): variance 4.
    x = torch.tensor([[-2.0, 5.0], [2.0, 5.0], [-2.0, 5.0], [2.0, 5.0]])
    left = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [-2.0, 0.0]])
    acts = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    W_dec = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    found = code_length(x, x - left, acts, W_dec, precision=0.5)
    assert isinstance(found, CodeLength)
    assert found.which == pytest.approx(1)
    assert found.values == pytest.approx(0.5 * 0.5 * math.log2(1 + 4))
    assert found.rest == pytest.approx(0.5 * math.log2(1 + 4))
    assert found.total == pytest.approx(found.which + found.values + found.rest)


def test_the_rest_is_that_of_a_normal_code_of_the_inputs_where_nothing_is_reconstructed():
    own = described()
    nothing = torch.zeros_like(own["latent_acts"])
    found = code_length(own["x"], torch.ones_like(own["x"]), nothing, own["W_dec"])
    covariance = own["x"].T.cov(correction=0)
    unit = 0.02 * covariance.diagonal().mean()
    determinant = torch.linalg.det(torch.eye(4) + covariance / unit)
    assert (found.which, found.values) == (0, 0)
    assert found.rest == pytest.approx(math.log2(determinant) / 2)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_scale_rotation_and_the_norms_of_decoder_rows_do_not_change_it(seed, scale):
    own = described(seed)
    rotation, _ = torch.linalg.qr(described(seed + 1)["x"][:4])
    norms = torch.arange(1, 7, dtype=torch.float64)
    other = {
        "x": scale * own["x"] @ rotation,
        "x_hat": scale * own["x_hat"] @ rotation,
        "latent_acts": scale * own["latent_acts"] * norms,
        "W_dec": own["W_dec"] @ rotation / norms[:, None],
    }
    found, expected = code_length(**other), code_length(**own)
    for part in ("which", "values", "rest"):
        assert getattr(found, part) == pytest.approx(getattr(expected, part), rel=1e-6)


def test_a_better_reconstruction_with_the_same_activations_costs_less():
    own = described()
    worse = own | {"x_hat": own["x_hat"].roll(1, 0)}
    assert code_length(**own).total < code_length(**worse).total
    assert code_length(**own).which == code_length(**worse).which


def test_more_precision_costs_more():
    lengths = [code_length(**described(), precision=each).total for each in (0.1, 0.02, 0.001)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


BAD = {
    r"x_hat must have the shape of x": {"x_hat": torch.zeros(60, 3)},
    r"latent_acts must have shape \(60, d_sae\)": {"latent_acts": torch.zeros(59, 6)},
    r"W_dec must have shape \(6, 4\)": {"W_dec": torch.zeros(5, 4)},
    r"x must vary from row to row": {"x": torch.ones(60, 4)},
    r"precision must be in \(0, 1\), got 0": {"precision": 0.0},
    r"precision must be in \(0, 1\), got 1": {"precision": 1.0},
    r"x must have at least one row": {
        "x": torch.ones(0, 4),
        "x_hat": torch.ones(0, 4),
        "latent_acts": torch.ones(0, 6),
    },
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_its_name_and_what_was_expected(message):
    with pytest.raises(ValueError, match=message):
        code_length(**described(**BAD[message]))
