"""What matched latents do on samples whose features are known: absorption and detection.

The idea of absorption is that of Chanin et al., "A is for Absorption" (arXiv 2409.14507), who
detect it with probes where the truth is unknown. `absorption_gap` needs the truth and is ours.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import check_finite, check_indices, check_rows, check_shape

_GROUP = ("share", "mean", "silent")  # what is measured on a group of samples
_COLUMNS = [
    "parent",
    "child",
    "latent",
    "gap",
    "silent_gap",
    *(f"{measure}_{group}" for group in ("alone", "both") for measure in _GROUP),
]


@torch.no_grad()
def absorption_gap(
    latent_acts: Float[Tensor, "n d_sae"],
    feature_acts: Float[Tensor, "n n_features"],
    parents: Int[Tensor, " n_features"],
    latent_of_feature: Int[Tensor, " n_features"],
    *,
    weights: Float[Tensor, " n"] | None = None,
    with_siblings: bool = False,
) -> pd.DataFrame:
    """By how much a parent's latent fades when a child fires too, for each parent and child.

    Over the samples where the parent fires and none of its children (*alone*) and those where the
    parent fires and of its children this one only (*both*), with a the latent's activation:

        gap        = 1 − mean(a | both) / mean(a | alone)
        silent_gap = P(a ≤ 0 | both) − P(a ≤ 0 | alone)

    A gap of 1 is full absorption and 0 none; hedging, where the latent holds a share of the child,
    makes it negative. The parent's magnitude is averaged over and should not depend on the child.

    One row a pair whose parent has a latent, with the columns `parent`, `child`, `latent`, `gap`,
    `silent_gap` and, for `alone` and `both`, `share_…` (of the samples' weight), `mean_…` and
    `silent_…`. What needs an empty group is NaN, and so is `gap` unless mean(a | alone) > 0.

    Source: the idea is of "A is for Absorption" (arXiv 2409.14507); this measure with known truth
    is ours.

    Args:
        parents: index of each feature's parent, −1 for none.
        latent_of_feature: index of each feature's latent, −1 for none, as in `Matching.latent`.
        weights: of the samples, such as the probabilities of a finite world's states; by default
            all the same.
        with_siblings: whether *both* also takes samples where other children fire. They add their
            own effect on the latent to this child's.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, indices out of range,
            parents that go round in a circle, or weights that are negative or all 0.
    """
    shares = _check_samples(latent_acts, feature_acts, weights)
    fires, n_features = feature_acts > 0, feature_acts.shape[1]
    _check_forest(parents, n_features)
    check_indices("latent_of_feature", latent_of_feature, n_features, latent_acts.shape[1])
    latents, rows = latent_of_feature.tolist(), []
    for parent in parents[parents >= 0].unique().tolist():
        if (latent := latents[parent]) < 0:
            continue
        children = (parents == parent).nonzero()[:, 0].tolist()
        acts = latent_acts[:, latent].double()
        alone = _measure(acts, shares * (fires[:, parent] & ~fires[:, children].any(1)))
        for child in children:
            siblings = [] if with_siblings else [other for other in children if other != child]
            only = fires[:, parent] & fires[:, child] & ~fires[:, siblings].any(1)
            both = _measure(acts, shares * only)
            rows.append([parent, child, latent, *_gaps(alone, both), *alone, *both])
    return pd.DataFrame(rows, columns=_COLUMNS)


def _measure(acts: Float[Tensor, " n"], shares: Float[Tensor, " n"]) -> tuple[float, float, float]:
    """The sum of the shares, and with these shares the mean activation and how often it is ≤ 0."""
    share = shares.sum()
    return share.item(), (shares @ acts / share).item(), (shares[acts <= 0].sum() / share).item()


def _gaps(
    alone: tuple[float, float, float], both: tuple[float, float, float]
) -> tuple[float, float]:
    gap = 1 - both[1] / alone[1] if alone[1] > 0 else math.nan
    return gap, both[2] - alone[2]


@torch.no_grad()
def detector_f1(
    latent_acts: Float[Tensor, "n d_sae"],
    feature_acts: Float[Tensor, "n n_features"],
    latent_of_feature: Int[Tensor, " n_features"],
    *,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " n_features"]:
    """F1 of each feature's latent as a detector of the feature, (n_features,); > 0 is to fire.

        F1 = 2 P(both fire) / (P(latent fires) + P(feature fires))

    It is 0 for a feature without a latent, and NaN for one that never fires. sae-lens'
    `compute_classification_metrics` instead takes for each *latent* the feature of the largest
    |cosine|, and averages over latents: there several latents may claim a feature, and a feature
    that no latent claims costs nothing.

    Args:
        latent_of_feature: index of each feature's latent, −1 for none, as in `Matching.latent`.
        weights: of the samples, such as the probabilities of a finite world's states; by default
            all the same.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, indices out of range,
            or weights that are negative or all 0.
    """
    shares = _check_samples(latent_acts, feature_acts, weights)
    check_indices(
        "latent_of_feature", latent_of_feature, feature_acts.shape[1], latent_acts.shape[1]
    )
    latents = latent_of_feature.to(latent_acts.device)
    fires = feature_acts > 0
    detected = (latent_acts > 0)[:, latents.clamp(min=0)] & (latents >= 0)
    p_fires, p_detected, p_both = (
        shares @ event.double() for event in (fires, detected, fires & detected)
    )
    f1 = 2 * p_both / (p_fires + p_detected)
    return f1.where(p_fires > 0, math.nan).to(latent_acts.dtype)


def _check_samples(
    latent_acts: Tensor, feature_acts: Tensor, weights: Tensor | None
) -> Float[Tensor, " n"]:
    """Each sample's share of the whole weight, in float64."""
    n = len(check_rows("latent_acts", latent_acts, "d_sae"))
    check_finite("feature_acts", check_shape("feature_acts", feature_acts, (n, "n_features")))
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64, device=latent_acts.device)
    check_finite("weights", check_shape("weights", weights, (n,)))
    if bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise ValueError(
            "weights must be at least 0 and not all 0, got values from "
            f"{weights.min().item():g} to {weights.max().item():g}"
        )
    return weights.double() / weights.double().sum()


def _check_forest(parents: Tensor, n_features: int) -> None:
    """Raise unless every feature's line of parents ends."""
    check_indices("parents", parents, n_features, n_features)
    ancestors = parents
    for _ in range(n_features):
        if bool((ancestors < 0).all()):
            return
        ancestors = torch.where(ancestors < 0, ancestors, parents[ancestors])
    circle = int(ancestors.max())
    raise ValueError(f"parents must not go in a circle, got one through feature {circle}")
