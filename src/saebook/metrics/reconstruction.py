"""What is reconstructed, at which L0, and how far activations shrink."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_indices,
    check_rows,
    check_same_shape,
    check_shape,
)


def check_pair(x: Tensor, x_hat: Tensor) -> None:
    """Check that both are tables of one shape, without NaN or infinity."""
    check_rows("x", x)
    check_finite("x_hat", check_same_shape("x_hat", x_hat, "x", x))


def squared_deviations(x: Float[Tensor, "n d_in"]) -> float:
    """Σ‖x − mean(x)‖² over the rows.

    Raises:
        ValueError: for x without any variance.
    """
    from_first = x - x[0]  # exact for close rows, whose mean is rounded by more than they vary
    total = (from_first - from_first.mean(0)).square().sum().item()
    if total == 0:
        raise ValueError(f"x must vary from row to row, got {len(x)} rows without any variance")
    return total


def mean_squared_error(x: Float[Tensor, "n d_in"], x_hat: Float[Tensor, "n d_in"]) -> float:
    """The mean over the n rows of the squared error *summed* over d_in, as sae-lens' loss has it.

    Raises:
        ValueError: for shapes that differ, or values that are not finite.
    """
    check_pair(x, x_hat)
    return (x - x_hat).square().sum(-1).mean().item()


def variance_explained(x: Float[Tensor, "n d_in"], x_hat: Float[Tensor, "n d_in"]) -> float:
    """1 − Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 0 for the mean predictor, negative for worse.

    "Sparse but Wrong" has ‖x‖² below; that is no share of the *variance* unless the mean is zero.

    Raises:
        ValueError: for shapes that differ, values that are not finite, or x without any variance.
    """
    check_pair(x, x_hat)
    return 1 - (x - x_hat).square().sum().item() / squared_deviations(x)


@torch.no_grad()
def shrinkage(
    contributions: Float[Tensor, "n d_sae"],
    feature_acts: Float[Tensor, "n n_features"],
    latent_of_feature: Int[Tensor, " n_features"],
) -> Float[Tensor, " n_features"]:
    """What share of a feature's activation its latent reports, where both fire: (n_features,).

        Σ c·a / Σ a², the slope of c over a through the origin

    1 is no shrinkage. It is NaN for a feature without a latent, or if the two never fire together.

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

    Raises:
        ValueError: for another number of axes, or values that are not finite.
    """
    check_rows("latent_acts", latent_acts, "d_sae")
    return latent_acts.count_nonzero().item() / len(latent_acts)
