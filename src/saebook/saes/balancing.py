"""Weights for the inner losses of a Matryoshka SAE, at which hedging and absorption cancel.

A prefix that must reconstruct alone hedges; a latent that shares the work with later ones absorbs.
The weight β of the inner loss decides between the two. Sources: Chanin et al., "Feature Hedging"
(arXiv 2505.11756), for the idea and for compounded weights; the closed forms are derived in the
chapter *Balancing Matryoshka SAEs*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, root

from saebook._checks import check_positive, check_positive_int


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A weight at which a parent's latent neither hedges nor absorbs.

    Attributes:
        beta: the weight β of the inner loss.
        angle: by how much the latent's decoder row leans towards its children, in radians.
    """

    beta: float
    angle: float


def balancing_weight(child_rate: float, l1_coefficient: float, n_children: int = 1) -> Balance:
    """The weight of the inner loss at which a parent of equal, exclusive children is balanced.

    A Matryoshka SAE with the prefix [1] and ReLU, for a parent with n children of which at most one
    fires, all of magnitude one and orthogonal. With s = sin θ, c = cos θ and the L1 coefficient λ,

        q √n  = s c + s² (1/√n − s c + λ s/2) / (s² + λ c/2)
        1 + β = n q (1 − λ / 2ρ) (s² + λ c/2) / s²
        ρ²    = (s² + λ c/2)² + (1/√n − s c + λ s/2)² + 1 − 1/n

    For a small λ, β ≈ √(λ (1 − n q) / 2q). The parent's own rate does not matter.

    Args:
        child_rate: q, each child's probability given the parent.
        l1_coefficient: λ.
        n_children: n.

    Raises:
        ValueError: for a rate outside 0 … 1/n.
    """
    penalty, n = check_positive("l1_coefficient", l1_coefficient), n_children
    check_positive_int("n_children", n)
    if not 0 < child_rate < 1 / n:
        raise ValueError(
            f"child_rate must lie between 0 and 1/n_children = {1 / n:g}, got {child_rate!r}"
        )

    def parts(angle: float) -> tuple[float, float]:
        s, c = math.sin(angle), math.cos(angle)
        return s * s + penalty / 2 * c, 1 / math.sqrt(n) - s * c + penalty / 2 * s

    def excess(angle: float) -> float:
        along, across = parts(angle)
        s, c = math.sin(angle), math.cos(angle)
        return s * c + s * s * across / along - child_rate * math.sqrt(n)

    top = math.atan(1 / math.sqrt(n))  # where one child always fires, and q √n = 1/√n
    angle = float(brentq(excess, 1e-12, top, xtol=1e-14, rtol=1e-13))
    along, across = parts(angle)
    rho = math.sqrt(along**2 + across**2 + 1 - 1 / n)
    beta = n * child_rate * (1 - penalty / (2 * rho)) * along / math.sin(angle) ** 2 - 1
    return Balance(beta=beta, angle=angle)


def per_prefix_weights(
    child_rates: Sequence[float], l1_coefficient: float, *, exclusive: bool = True
) -> list[float]:
    """The weights of the inner losses of the prefixes [1, 2, …, n] that balance unequal children.

    As in `balancing_weight`, but each child has its own rate q_j and each prefix its own weight;
    latent j + 1 is child j's. B is the sum of all weights, that of the whole SAE being 1. E_j sums
    those of the losses that child j's latent takes part in, and B_j = B − E_j. Let (c, u) be the
    parent's decoder row, of norm 1, in the coordinates of the parent and the children, and
    y = (c − λ/2) (c, u). With ρ_j = ‖e_p + e_j − y‖ and κ_j = 1 − λ / 2ρ_j, for every j

        2 B_j u_j        = λ E_j (1 − (u_j + λ/2) / ρ_j)
        B (q_j − c u_j)  = E_j q_j κ_j − y_j Σ_i E_i q_i κ_i

    For a small λ, B_j ≈ √(λ (1 − Σ q) / 2 q_j). The equations are solved numerically.

    Children that fire independently of each other have, for a small λ, the weights of

        B_j ε_j + Σ_{i≠j} q_i B_ij ε_i = λ/2,  ε_j = x_j (B_j + Σ_{i≠j} x_i B_ij),

    with x_j = q_j / (1 − q_j) and B_ij = min(B_i, B_j). For a λ that is not small each B_j is that
    of exclusive children, times the ratio of the two forms for a small λ. That is right to leading
    order, and leaves gaps of the order λ.

    Args:
        child_rates: of the latents after the parent's, the most frequent child first.
        exclusive: whether at most one child fires at a time, or all independently.

    Returns:
        One weight for each prefix but the last, whose weight is 1.

    Raises:
        ValueError: for rates that do not fall, or are not positive with a sum below 1, or for which
            no positive weights are found.
    """
    penalty = check_positive("l1_coefficient", l1_coefficient)
    rates = np.array([check_positive("child_rates", rate) for rate in child_rates])
    n = len(rates)
    if n == 0 or not bool((np.diff(rates) < 0).all()) or rates.sum() >= 1:
        raise ValueError(
            "child_rates must fall, hold one or more and sum to less than 1, got "
            f"{list(child_rates)}"
        )

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        lean, weights = np.exp(logs[:n]), np.exp(logs[n:])
        total, without = 1 + weights.sum(), np.cumsum(weights)  # B and B_j
        shared = total - without  # E_j
        cos = math.sqrt(max(0.0, 1 - float((lean**2).sum())))
        own, others = (cos - penalty / 2) * cos, (cos - penalty / 2) * lean
        rho = np.sqrt((1 - own) ** 2 + (1 - others) ** 2 + (others**2).sum() - others**2)
        written = shared * rates * (1 - penalty / (2 * rho))
        response = 2 * lean * without - penalty * shared * (1 - (lean + penalty / 2) / rho)
        row = total * (rates - cos * lean) - written + written.sum() * others
        return np.concatenate([response / penalty, row / rates])

    without = np.sqrt(penalty * (1 - rates.sum()) / (2 * rates))
    lean = without * rates / (1 - rates.sum()) / (1 + without)
    start = np.log(np.concatenate([lean, np.diff(without, prepend=0.0)]))
    found = root(residuals, start, tol=1e-13)
    weights = np.exp(found.x[n:])
    if found.success and not exclusive:
        ratio = _independent_scale(rates) / np.sqrt((1 - rates.sum()) / rates)
        weights = np.diff(np.cumsum(weights) * ratio, prepend=0.0)
    if not found.success or not bool((weights > 0).all()):
        raise ValueError(f"no positive weights found for child_rates {list(child_rates)}")
    return [float(weight) for weight in weights]


def _independent_scale(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """B_j over √(λ/2) for a small λ and independent children; nan where none is found."""
    odds = rates / (1 - rates)

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        left_out = np.exp(logs)
        both = np.minimum.outer(left_out, left_out)
        np.fill_diagonal(both, 0)
        lean = odds * (left_out + both @ odds)
        return left_out * lean + both @ (rates * lean) - 1

    found = root(residuals, -np.log(odds) / 2, tol=1e-12)
    return np.exp(found.x) if found.success else np.full_like(rates, np.nan)


def compound_weights(beta: float, n_inner: int) -> list[float]:
    """One β for the step between two prefixes, compounded inwards: (…, β³, β², β).

    Source: "Feature Hedging" (arXiv 2505.11756), balanced Matryoshka SAEs of several prefixes.

    Args:
        beta: the weight of each prefix over that of the next longer one.
        n_inner: the number of prefixes but the last.
    """
    check_positive("beta", beta)
    check_positive_int("n_inner", n_inner)
    return [beta**power for power in range(n_inner, 0, -1)]
