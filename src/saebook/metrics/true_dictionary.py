"""What the true dictionary itself reconstructs when it may use only k features per input.

Source: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560), section on the trade-off of
sparsity and reconstruction, where trained SAEs of too low an L0 beat the true dictionary.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    check_in_range,
    check_non_negative,
    check_positive,
    check_rows,
    check_shape,
    check_unit_rows,
)

BIAS_ROUNDS = 20  # each lowers the error of an orthonormal dictionary, the last ones hardly


def keep_batch_topk(acts: Float[Tensor, "n width"], k: float) -> Float[Tensor, "n width"]:
    """`acts` with all but the ⌊k·n⌋ largest entries of the whole batch set to zero.

    k may be fractional; the number kept is sae-lens' `int(k * n)`. Equal entries are kept in the
    order of the rows.
    """
    n_kept = int(k * len(acts))
    if n_kept >= acts.numel():
        return acts
    flat = acts.detach().flatten().cpu().numpy()
    cut = np.partition(flat, len(flat) - n_kept - 1)[len(flat) - n_kept - 1]
    kept = torch.from_numpy(flat > cut)
    ties = torch.from_numpy(np.flatnonzero(flat == cut))
    kept[ties[: n_kept - int(kept.sum())]] = True
    return acts * kept.reshape(acts.shape).to(acts.device)


def batch_topk_reconstruction(
    x: Float[Tensor, "n d_in"],
    directions: Float[Tensor, "n_features d_in"],
    k: float,
    *,
    fit_bias: bool = False,
) -> Float[Tensor, "n d_in"]:
    """x̂ (n, d_in) of a BatchTopK SAE whose encoder and decoder are the true directions.

    Of relu((x − b_dec) directionsᵀ), the ⌊k·n⌋ largest entries in the whole batch are kept.

    Args:
        x: (n, d_in) data.
        directions: (n_features, d_in) the truth, of norm 1.
        k: active latents a row.
        fit_bias: whether b_dec fits these data, as an SAE's does; else it is 0. From 0, it becomes
            the mean of what is left, and what is kept is chosen again, twenty times in turn.

    Raises:
        ValueError: for shapes that do not fit, directions not of norm 1, or k outside
            0 … n_features.
    """
    check_rows("x", x)
    check_unit_rows("directions", check_shape("directions", directions, ("n_features", x.shape[1])))
    check_in_range("k", k, 0, len(directions))
    b_dec = x.new_zeros(x.shape[1])
    for _ in range(BIAS_ROUNDS if fit_bias else 0):
        b_dec = (x - _kept(x - b_dec, directions, k)).mean(0)
    return _kept(x - b_dec, directions, k) + b_dec


def _kept(
    x: Float[Tensor, "n d_in"], directions: Float[Tensor, "n_features d_in"], k: float
) -> Float[Tensor, "n d_in"]:
    return keep_batch_topk(torch.relu(x @ directions.T), k) @ directions


def true_dictionary_error(
    x: Float[Tensor, "n d_in"],
    directions: Float[Tensor, "n_features d_in"],
    k: float,
    *,
    fit_bias: bool = False,
) -> float:
    """Mean over rows of ‖x − x̂‖² for `batch_topk_reconstruction`, which says what it raises."""
    residual = x - batch_topk_reconstruction(x, directions, k, fit_bias=fit_bias)
    return residual.square().sum(-1).mean().item()


def true_dictionary_error_closed_form(
    total_firing: float, magnitude_mean: float, magnitude_std: float, k: float
) -> float:
    """The expected `true_dictionary_error` of an orthonormal dictionary on a large batch.

    With magnitudes m ~ relu(N(mean, std²)) of every firing feature and S = Σ p_i = `total_firing`,
    the threshold t solves S·P(m > t) = k and the error is S·E[m²; m ≤ t]. How firings are
    correlated does not matter.

    Raises:
        ValueError: unless S > 0, mean > 0, std ≥ 0 and k ≥ 0, all finite.
    """
    total = check_positive("total_firing", total_firing)
    mean = check_positive("magnitude_mean", magnitude_mean)
    std = check_non_negative("magnitude_std", magnitude_std)
    check_non_negative("k", k)
    if std == 0:
        return max(0.0, total - k) * mean**2
    low = -mean / std
    kept = min(k / total, _cdf(-low))
    high = math.inf if kept == 0 else -_quantile(kept)
    return total * _second_moment(mean, std, low, max(low, high))


def _cdf(z: float) -> float:
    return float(torch.special.ndtr(torch.tensor(z, dtype=torch.float64)))


def _quantile(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _second_moment(mean: float, std: float, low: float, high: float) -> float:
    """∫ (mean + std·z)² φ(z) dz from `low` to `high`."""
    high_term = 0.0 if math.isinf(high) else high * _density(high)
    first = _density(low) - _density(high)
    second = _cdf(high) - _cdf(low) + low * _density(low) - high_term
    return mean**2 * (_cdf(high) - _cdf(low)) + 2 * mean * std * first + std**2 * second
