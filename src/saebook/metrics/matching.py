"""Which latent stands for which feature, and how many features are recovered.

The matching is that of sae-lens' `mean_correlation_coefficient`, with positive instead of absolute
cosines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_in_range,
    check_shape,
)
from saebook.metrics.decoders import feature_cosines


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
    unused.

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

    Raises what `match_features` raises.
    """
    check_in_range("threshold", threshold, -1, 1)
    return int((match_features(W_dec, directions).cosine > threshold).sum())


def signed_mcc(
    W_dec: Float[Tensor, "d_sae d_in"], directions: Float[Tensor, "n_features d_in"]
) -> float:
    """The mean over features of the matched cosine, in [0, 1]; one without a latent counts 0.

    sae-lens' `mean_correlation_coefficient` averages |cos| over matched pairs only. Raises what
    `match_features` raises.
    """
    return match_features(W_dec, directions).cosine.mean().item()


def reorder_latents(cosines: Float[Tensor, "d_sae n_features"]) -> Int[Tensor, " d_sae"]:
    """The order of latents, (d_sae,), that puts matched ones in the order of their features.

    `cosines[order]` then has the matched pairs on its diagonal if d_sae ≥ n_features; unmatched
    latents follow in their own order.

    Raises:
        ValueError: for another number of axes, or values that are not finite.
    """
    check_finite("cosines", check_shape("cosines", cosines, ("d_sae", "n_features")))
    latents, features = _assign(cosines)
    matched = latents[np.argsort(features)]
    rest = np.setdiff1d(np.arange(len(cosines)), matched)
    return torch.from_numpy(np.concatenate([matched, rest]))
