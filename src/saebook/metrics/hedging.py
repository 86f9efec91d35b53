"""How latents mix features: the hedging degree, and decoder rows in feature coordinates.

Source of the hedging degree: Chanin, Dulka & Garriga-Alonso, "Feature Hedging" (arXiv 2505.11756)
and its evaluation code, chanind/feature-hedging-paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import GeneratorLike, check_generator, check_int_at_least, check_shape
from saebook.metrics.decoders import check_decoder, unit_rows


@dataclass(frozen=True, eq=False, kw_only=True)
class HedgingDegree:
    """How much of the old latents' change new latents explain, and the null it is held against.

    Attributes:
        degree: h, at least 0; 1 if changes of norm 1 lie wholly in the span of the new latents.
        projection: p, the mean norm of the old latents' change inside that span.
        null: the same for each random subspace, (n_subspaces,).
        delta_norm: the mean norm of the whole change, the most that `projection` can be.
        n_new: the number of new latents.
    """

    degree: float
    projection: float
    null: Float[Tensor, " n_subspaces"]
    delta_norm: float
    n_new: int

    @property
    def null_mean(self) -> float:
        """p_rand, the mean over the random subspaces."""
        return self.null.mean().item()

    @property
    def null_std(self) -> float:
        """The standard deviation over the random subspaces, with n_subspaces − 1 below."""
        return self.null.std().item()


@torch.no_grad()
def hedging_degree(
    W_control: Float[Tensor, "d_sae d_in"],
    W_extended: Float[Tensor, "d_sae_extended d_in"],
    *,
    generator: GeneratorLike,
    n_subspaces: int = 50,
) -> HedgingDegree:
    """How much of the old latents' change lies in the span of n_new added latents.

    One trained SAE is trained on twice, once as it is (control) and once with n_new latents more
    (extended). A latent that hedges gives up its share of a feature when a new latent takes it.
    With decoder rows w scaled to norm 1, and the old latents first and in the same order in both:

        δ_i    = w_extended,i − w_control,i                               i = 1 … d_sae
        p      = mean_i ‖P δ_i‖ / mean_i ‖w_control,i‖ = mean_i ‖P δ_i‖
        p_rand = the mean of the same with P_r for P                      r = 1 … n_subspaces
        h      = max(0, (p − p_rand) / (1 − p_rand))

    P projects on the span of the n_new new rows, up to its numerical rank, and P_r on that of n_new
    Gaussian vectors. Rows that moved at random have p ≈ p_rand ≈ √(n_new / d_in) · mean ‖δ_i‖.

    h depends on n_new: compare only degrees of the same n_new. It is small for changes that are
    small, however much of them the new latents explain.

    Source: "Feature Hedging" (arXiv 2505.11756), hedging degree, as its evaluation code has it.

    Args:
        generator: draws the random subspaces.

    Raises:
        ValueError: for shapes that do not fit, n_new outside 1 … d_in − 1, zero rows, values that
            are not finite, fewer than 2 subspaces, or p_rand ≥ 1, where h has no meaning.
        TypeError: for a generator that is none.
    """
    check_shape("W_control", W_control, ("d_sae", "d_in"))
    check_shape("W_extended", W_extended, ("d_sae + n_new", W_control.shape[1]))
    n_new = _check_n_new(len(W_extended) - len(W_control), W_control.shape[1])
    check_int_at_least("n_subspaces", n_subspaces, 2)
    generator = check_generator("generator", generator)
    old, new = unit_rows("W_extended", W_extended).split([len(W_control), n_new])
    delta = old - unit_rows("W_control", W_control)
    randoms = (
        torch.randn(new.shape, generator=generator, dtype=new.dtype, device=generator.device)
        for _ in range(n_subspaces)
    )
    null = torch.stack([_projection(delta, rows.to(new.device)) for rows in randoms])
    p = _projection(delta, new).item()
    return HedgingDegree(
        degree=_degree(p, null.mean().item()),
        projection=p,
        null=null,
        delta_norm=delta.norm(dim=-1).mean().item(),
        n_new=n_new,
    )


def _check_n_new(n_new: int, d_in: int) -> int:
    if n_new < 1:
        raise ValueError(f"W_extended must have more rows than W_control, got {n_new} more")
    if n_new >= d_in:
        raise ValueError(
            f"W_extended must have fewer than d_in = {d_in} new rows, got {n_new}: "
            "random subspaces of that size are the whole space and leave no null"
        )
    return n_new


def _projection(
    delta: Float[Tensor, "d_sae d_in"], rows: Float[Tensor, "n_new d_in"]
) -> Float[Tensor, ""]:
    """The mean norm of `delta` projected on the span of `rows`."""
    _, singular, basis = torch.linalg.svd(rows, full_matrices=False)
    tolerance = singular[0] * max(rows.shape) * torch.finfo(rows.dtype).eps
    return (delta @ basis[singular > tolerance].T).norm(dim=-1).mean()


def _degree(p: float, p_rand: float) -> float:
    if p_rand >= 1:
        raise ValueError(
            f"p_rand must be below 1 for a degree, got {p_rand:g}: "
            "the first latents of W_extended are not those of W_control, little changed"
        )
    return max(0.0, (p - p_rand) / (1 - p_rand))


def feature_components(
    W: Float[Tensor, "*saes d_sae d_in"],
    directions: Float[Tensor, "n_features d_in"],
    *,
    normalise: bool = False,
) -> Float[Tensor, "*saes d_sae n_features"]:
    """Each latent's row in feature coordinates: c minimising ‖c directions − w‖, one row a latent.

    For orthonormal directions this is the dot product. In superposition, where directions overlap,
    `feature_cosines` are no coordinates: a latent that is exactly one feature also has a cosine
    with its neighbours, but components of 0 on them. The part of w outside the span of the
    directions is left out. For encoders pass `W_enc.mT`.

    Args:
        normalise: scale each latent's components to norm 1.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, directions that are
            linearly dependent, or with `normalise` a latent without any component.
    """
    d_in = check_decoder("W", W).shape[-1]
    check_decoder("directions", check_shape("directions", directions, ("n_features", d_in)))
    rank = int(torch.linalg.matrix_rank(directions))
    if rank < len(directions):
        raise ValueError(
            "directions must be linearly independent for components to be unique, "
            f"got {len(directions)} of rank {rank}"
        )
    components = W @ torch.linalg.pinv(directions)
    return unit_rows("the components of W", components) if normalise else components
