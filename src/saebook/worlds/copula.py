"""Binary features correlated by a Gaussian copula: feature i fires where g_i > t_i, g ~ N(0, C).

Sources: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560), toy model of 50 features;
Plackett (1954), "A reduction formula for normal multivariate integrals", for the joint
probabilities, in the substitution of Drezner & Wesolowsky (1990).
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_in_range,
    check_int_at_least,
    check_positive_int,
    check_probabilities,
    check_shape,
)

_QUADRATURE_ORDER = 64
_TOLERANCE = 1e-6  # rounding of a correlation matrix held in float32
_SMALLEST_PIVOT = 1e-10


def firing_thresholds(
    firing_probabilities: Float[Tensor, " n_features"],
) -> Float[Tensor, " n_features"]:
    """The standard normal quantiles t_i with P(g_i > t_i) = p_i, in float64; ±∞ at p = 0 and 1."""
    return -torch.special.ndtri(firing_probabilities.double())


def check_correlation(
    name: str, correlation: Float[Tensor, "*shape"], n_features: int
) -> Float[Tensor, "n_features n_features"]:
    """Return `correlation` if it is a correlation matrix of `n_features` features.

    Raises:
        ValueError: for another shape, NaN, asymmetry, a diagonal other than 1, or a negative
            eigenvalue; the message names the value at fault.
    """
    check_finite(name, check_shape(name, correlation, (n_features, n_features)))
    asymmetry = (correlation - correlation.T).abs().max().item()
    if asymmetry > _TOLERANCE:
        raise ValueError(f"{name} must be symmetric, got entries that differ by {asymmetry:g}")
    off = (correlation.diagonal() - 1).abs().argmax()
    if abs(value := correlation[off, off].item() - 1) > _TOLERANCE:
        raise ValueError(f"{name} must have ones on its diagonal, got {1 + value:g} at {int(off)}")
    smallest = torch.linalg.eigvalsh(correlation.double()).min().item()
    if smallest < -_TOLERANCE:
        raise ValueError(
            f"{name} must be positive semi-definite, got a smallest eigenvalue of {smallest:g}"
        )
    return correlation


def copula_factor(
    correlation: Float[Tensor, "n_features n_features"],
) -> Float[Tensor, "n_features n_features"]:
    """The lower-triangular F with F Fᵀ = C, in float64, also where C is singular.

    A singular C (such as features tied together) is lifted by at most 1e-6 before the Cholesky
    factorisation; rows of F have norm exactly 1, so that firing probabilities stay exact.
    """
    matrix = correlation.double()
    lift = max(0.0, _SMALLEST_PIVOT - torch.linalg.eigvalsh(matrix).min().item())
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor = torch.linalg.cholesky((matrix + matrix.T) / 2 + lift * identity)
    return factor / factor.norm(dim=1, keepdim=True)


def joint_firing_probabilities(
    firing_probabilities: Float[Tensor, " n_features"],
    correlation: Float[Tensor, "n_features n_features"] | None,
) -> Float[Tensor, "n_features n_features"]:
    """P(i and j both fire) for each pair, in float64; the diagonal holds the p_i themselves.

    From Plackett's formula, with ρ = C_ij and thresholds a, b,
    P_ij = p_i p_j + (1/2π) ∫₀^{asin ρ} exp(−(a² + b² − 2ab sin θ) / (2 cos² θ)) dθ,
    by Gauss–Legendre quadrature.

    Raises:
        ValueError: for probabilities outside [0, 1] or a matrix that is no correlation matrix.
    """
    p = check_probabilities("firing_probabilities", firing_probabilities).double()
    joint = torch.outer(p, p)
    if correlation is not None:
        rho = check_correlation("correlation", correlation, len(p)).double().clamp(-1, 1)
        joint = joint + _plackett_integral(firing_thresholds(p).clamp(-38, 38), rho)
    joint.diagonal().copy_(p)
    return joint


def _plackett_integral(
    thresholds: Float[Tensor, " n_features"], rho: Float[Tensor, "n_features n_features"]
) -> Float[Tensor, "n_features n_features"]:
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_ORDER)
    squares = thresholds.square()[:, None] + thresholds.square()[None, :]
    products = torch.outer(thresholds, thresholds)
    end = torch.asin(rho)
    total = torch.zeros_like(rho)
    for node, weight in zip(nodes, weights, strict=True):
        theta = end * (node + 1) / 2
        exponent = (squares - 2 * products * theta.sin()) / (2 * theta.cos().square())
        total += weight * torch.exp(-exponent)
    return total * end / (4 * math.pi)


def firing_correlation(
    firing_probabilities: Float[Tensor, " n_features"],
    correlation: Float[Tensor, "n_features n_features"] | None,
) -> Float[Tensor, "n_features n_features"]:
    """Pearson (phi) correlation of the binary firings implied by the copula, in float64.

    It is weaker than the copula's own correlation. A feature that always or never fires has no
    correlation: NaN off the diagonal.

    Raises:
        ValueError: for probabilities outside [0, 1] or a matrix that is no correlation matrix.
    """
    joint = joint_firing_probabilities(firing_probabilities, correlation)
    p = firing_probabilities.double()
    std = (p * (1 - p)).sqrt()
    std[std == 0] = math.nan
    phi = (joint - torch.outer(p, p)) / torch.outer(std, std)
    phi.diagonal().fill_(1.0)
    return phi


def make_random_correlation(
    n_features: int,
    *,
    seed: int,
    correlated_share: float = 0.7,
    positive_share: float = 0.5,
    strength_range: tuple[float, float] = (0.3, 0.9),
    min_eigenvalue: float = 1e-6,
) -> Float[Tensor, "n_features n_features"]:
    """A random correlation matrix, in float64, by the recipe of "Sparse but Wrong" (appendix).

    Of all pairs, `correlated_share` get a strength uniform in `strength_range`, `positive_share`
    of these with a positive sign; eigenvalues are then clipped at `min_eigenvalue` and the diagonal
    is rescaled to 1, which shrinks the strengths. The draws come from a private `random.Random`,
    in the order that the paper's public code draws them, so `seed=42` gives the paper's matrix;
    `sae_lens.synthetic.generate_random_correlation_matrix` has the same aim but another stream,
    shares that hold only on average, and no clipping of small positive eigenvalues.

    Raises:
        ValueError: for a share outside [0, 1] or strengths that are not 0 ≤ low ≤ high ≤ 1.
    """
    check_positive_int("n_features", n_features)
    check_int_at_least("seed", seed, 0)
    check_in_range("correlated_share", correlated_share, 0, 1)
    check_in_range("positive_share", positive_share, 0, 1)
    low = check_in_range("strength_range[0]", strength_range[0], 0, 1)
    high = check_in_range("strength_range[1]", strength_range[1], low, 1)
    check_in_range("min_eigenvalue", min_eigenvalue, 0, 1, open_minimum=True)
    rng = random.Random(seed)
    pairs = [(i, j) for i in range(n_features) for j in range(i + 1, n_features)]
    correlated = rng.sample(pairs, len(pairs) - int(len(pairs) * (1 - correlated_share)))
    n_positive = int(len(correlated) * positive_share)
    matrix = torch.eye(n_features, dtype=torch.float64)
    for rank, (i, j) in enumerate(correlated):
        sign = 1 if rank < n_positive else -1
        matrix[i, j] = matrix[j, i] = sign * rng.uniform(low, high)
    return _nearest_by_clipping(matrix, min_eigenvalue)


def _nearest_by_clipping(
    matrix: Float[Tensor, "n_features n_features"], min_eigenvalue: float
) -> Float[Tensor, "n_features n_features"]:
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    clipped = vectors * eigenvalues.clamp(min=min_eigenvalue) @ vectors.T
    scale = clipped.diagonal().rsqrt()
    result = clipped * torch.outer(scale, scale)
    result = (result + result.T) / 2
    result.diagonal().fill_(1.0)
    return result
