"""Metrics that sae-lens lacks: of tensors, never of models or worlds.

Sources: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560) for s_n, c_dec and the
comparison with the true dictionary; the matching is that of sae-lens'
`mean_correlation_coefficient`, with positive instead of absolute cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_in_range,
    check_indices,
    check_int_at_least,
    check_rows,
    check_same_shape,
    check_shape,
)
from saebook._decoders import check_decoder, unit_rows
from saebook.absorption import absorption_gap, detector_f1
from saebook.hedging import HedgingDegree, feature_components, hedging_degree
from saebook.true_dictionary import (
    batch_topk_reconstruction,
    true_dictionary_error,
    true_dictionary_error_closed_form,
)

__all__ = [
    "HedgingDegree",
    "Matching",
    "absorption_gap",
    "batch_topk_reconstruction",
    "decoder_pairwise_cosine",
    "detector_f1",
    "feature_components",
    "feature_cosines",
    "hedging_degree",
    "l0",
    "match_features",
    "mean_squared_error",
    "n_recovered",
    "nth_decoder_projection",
    "reorder_latents",
    "shrinkage",
    "signed_mcc",
    "true_dictionary_error",
    "true_dictionary_error_closed_form",
    "variance_explained",
]


def nth_decoder_projection(
    W_dec: Float[Tensor, "*saes d_sae d_in"],
    b_dec: Float[Tensor, "*saes d_in"],
    x: Float[Tensor, "n_samples d_in"],
    n: int | Sequence[int],
) -> Float[Tensor, "*saes_and_n"]:
    """s_n: the (n · n_samples)-th largest entry, counted from 0, of z = (x − b_dec) W_decᵀ.

    Decoder rows are used as they are, not normalised. Returns a tensor of shape (*saes) for one n,
    (*saes, len(n)) for several; one pass serves them all, one SAE at a time in memory. Source:
    "Sparse but Wrong", n-th decoder projection. Taught in "Finding the true L0".

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, or n outside
            0 … d_sae − 1.
    """
    d_sae, d_in = check_decoder("W_dec", W_dec).shape[-2:]
    check_shape("b_dec", b_dec, (*W_dec.shape[:-2], d_in))
    check_finite("b_dec", b_dec)
    check_rows("x", x, d_in)
    several = list(n) if isinstance(n, Sequence) else [n]
    for each in several:
        check_in_range("n", check_int_at_least("n", each, 0), 0, d_sae - 1)
    ranks = [each * len(x) for each in several]
    with torch.no_grad():
        rows = [
            _largest(((x - b) @ W.T).flatten(), ranks)
            for W, b in zip(W_dec.reshape(-1, d_sae, d_in), b_dec.reshape(-1, d_in), strict=True)
        ]
    s = torch.stack(rows).reshape(*W_dec.shape[:-2], len(several))
    return s if isinstance(n, Sequence) else s[..., 0]


def _largest(values: Float[Tensor, " size"], ranks: Sequence[int]) -> Float[Tensor, " ranks"]:
    """The entries of these ranks, 0 being the largest."""
    if values.device.type != "cpu":
        return values.sort(descending=True).values[list(ranks)]
    indices = [values.numel() - 1 - rank for rank in ranks]
    return torch.from_numpy(np.partition(values.numpy(), indices)[indices])  # faster than a sort


def decoder_pairwise_cosine(W_dec: Float[Tensor, "*saes d_sae d_in"]) -> Float[Tensor, "*saes"]:
    """c_dec: the mean over pairs i < j of |cos(W_dec,i, W_dec,j)|, shape (*saes).

    Source: "Sparse but Wrong", section on detecting the true L0. Taught in "Finding the true L0".

    Raises:
        ValueError: for fewer than two latents, a zero row, or values that are not finite.
    """
    unit = unit_rows("W_dec", W_dec)
    d_sae = unit.shape[-2]
    check_int_at_least("d_sae of W_dec", d_sae, 2)
    i, j = torch.triu_indices(d_sae, d_sae, offset=1, device=unit.device)
    return (unit @ unit.mT).abs()[..., i, j].mean(-1)


def feature_cosines(
    W_dec: Float[Tensor, "*saes d_sae d_in"], directions: Float[Tensor, "n_features d_in"]
) -> Float[Tensor, "*saes d_sae n_features"]:
    """Signed cosine of each latent's decoder row with each feature: (*saes, d_sae, n_features).

    Taught in "Finding the true L0".

    Raises:
        ValueError: for shapes that do not fit, zero rows, or values that are not finite.
    """
    unit = unit_rows("W_dec", W_dec)
    check_shape("directions", directions, ("n_features", unit.shape[-1]))
    return unit @ unit_rows("directions", directions).mT


@dataclass(frozen=True, eq=False, kw_only=True)
class Matching:
    """Which latent stands for each feature, and how well.

    Attributes:
        latent: index of each feature's latent, (n_features,); −1 for a feature left without one.
        cosine: its cosine with the feature, (n_features,), positive; 0 for one left without.
    """

    latent: Int[Tensor, " n_features"]
    cosine: Float[Tensor, " n_features"]


def match_features(
    W_dec: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "n_features d_in"]
) -> Matching:
    """Match latents and features one to one so that the sum of positive cosines is greatest.

    A negative cosine counts as none. sae-lens matches on |cos|, where an anti-aligned latent passes
    for the feature; in a sum of signed cosines it would push other features off their latents. A
    feature left without a latent of positive cosine gets latent −1 and cosine 0; latents may stay
    unused. Taught in "Finding the true L0".

    Raises:
        ValueError: for shapes that do not fit, zero rows, or values that are not finite.
    """
    check_shape("W_dec", W_dec, ("d_sae", "d_in"))
    cosines = feature_cosines(W_dec, directions).detach().cpu()
    latents, features = (torch.from_numpy(i) for i in _assign(cosines))
    positive = cosines[latents, features] > 0
    latents, features = latents[positive], features[positive]
    latent = torch.full((cosines.shape[1],), -1)
    cosine = cosines.new_zeros(cosines.shape[1])
    latent[features] = latents
    cosine[features] = cosines[latents, features]
    return Matching(latent=latent, cosine=cosine)


def _assign(cosines: Float[Tensor, "d_sae n_features"]) -> tuple[np.ndarray, np.ndarray]:
    """The matched latents, ascending, and their features."""
    return linear_sum_assignment(cosines.detach().cpu().clamp(min=0).numpy(), maximize=True)


def n_recovered(
    W_dec: Float[Tensor, "d_sae d_in"],
    directions: Float[Tensor, "n_features d_in"],
    threshold: float = 0.9,
) -> int:
    """The number of features whose matched latent has a cosine above `threshold`.

    Taught in "Finding the true L0"; raises what `match_features` raises.
    """
    check_in_range("threshold", threshold, -1, 1)
    return int((match_features(W_dec, directions).cosine > threshold).sum())


def signed_mcc(
    W_dec: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "n_features d_in"]
) -> float:
    """The mean over features of the matched cosine, in [0, 1]; one without a latent counts 0.

    sae-lens' `mean_correlation_coefficient` averages |cos| over matched pairs only. Taught in
    "Finding the true L0"; raises what `match_features` raises.
    """
    return match_features(W_dec, directions).cosine.mean().item()


def reorder_latents(cosines: Float[Tensor, "d_sae n_features"]) -> Int[Tensor, " d_sae"]:
    """The order of latents, (d_sae,), that puts matched ones in the order of their features.

    `cosines[order]` then has the matched pairs on its diagonal if d_sae ≥ n_features; unmatched
    latents follow in their own order. Taught in "Finding the true L0".

    Raises:
        ValueError: for another number of axes, or values that are not finite.
    """
    check_finite("cosines", check_shape("cosines", cosines, ("d_sae", "n_features")))
    latents, features = _assign(cosines)
    matched = latents[np.argsort(features)]
    rest = np.setdiff1d(np.arange(len(cosines)), matched)
    return torch.from_numpy(np.concatenate([matched, rest]))


def _check_pair(x: Tensor, x_hat: Tensor) -> None:
    check_rows("x", x)
    check_finite("x_hat", check_same_shape("x_hat", x_hat, "x", x))


def mean_squared_error(x: Float[Tensor, "n d_in"], x_hat: Float[Tensor, "n d_in"]) -> float:
    """The mean over the n rows of the squared error *summed* over d_in, as sae-lens' loss has it.

    Taught in "Finding the true L0".

    Raises:
        ValueError: for shapes that differ, or values that are not finite.
    """
    _check_pair(x, x_hat)
    return (x - x_hat).square().sum(-1).mean().item()


def variance_explained(x: Float[Tensor, "n d_in"], x_hat: Float[Tensor, "n d_in"]) -> float:
    """1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 0 for the mean predictor, negative for worse.

    "Sparse but Wrong" has ‖x‖² below; that is no share of the *variance* unless the mean is zero.
    Taught in "Finding the true L0".

    Raises:
        ValueError: for shapes that differ, values that are not finite, or x without any variance.
    """
    _check_pair(x, x_hat)
    from_first = (
        x - x[0]
    )  # exact for close rows, whose mean would be rounded by more than they vary
    total = (from_first - from_first.mean(0)).square().sum().item()
    if total == 0:
        raise ValueError(f"x must vary from row to row, got {len(x)} rows without any variance")
    return 1 - (x - x_hat).square().sum().item() / total


@torch.no_grad()
def shrinkage(
    contributions: Float[Tensor, "n d_sae"],
    feature_acts: Float[Tensor, "n n_features"],
    latent_of_feature: Int[Tensor, " n_features"],
) -> Float[Tensor, " n_features"]:
    """What share of a feature's activation its latent reports, where both fire: (n_features,).

        Σ c·a / Σ a², the slope of c over a through the origin

    1 is no shrinkage. It is NaN for a feature without a latent, or if the two never fire together.
    Taught in "SAE variants".

    Args:
        contributions: c, latent activations times the norms of their decoder rows.
        latent_of_feature: index of each feature's latent, −1 for none, as in `Matching.latent`.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, or indices out of range.
    """
    n = len(check_rows("contributions", contributions, "d_sae"))
    check_finite("feature_acts", check_shape("feature_acts", feature_acts, (n, "n_features")))
    check_indices(
        "latent_of_feature", latent_of_feature, feature_acts.shape[1], contributions.shape[1]
    )
    matched = contributions[:, latent_of_feature.clamp(min=0)] * (latent_of_feature >= 0)
    both = (matched > 0) & (feature_acts > 0)
    products = (matched * feature_acts * both).sum(0)
    return products / (feature_acts.square() * both).sum(0)  # 0/0 is NaN


def l0(latent_acts: Float[Tensor, "n d_sae"]) -> float:
    """The mean number of nonzero latents (or features) per row.

    Taught in the chapter "Notation".

    Raises:
        ValueError: for another number of axes, or values that are not finite.
    """
    check_rows("latent_acts", latent_acts, "d_sae")
    return latent_acts.count_nonzero().item() / len(latent_acts)
