"""Feature directions: rows of norm 1, orthonormal or in superposition.

sae-lens' `FeatureDictionary` draws and repels its own; here the randomness is passed in, and the
orthonormal rows are exact instead of the end of a gradient descent.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from sae_lens.synthetic import orthogonalize_embeddings
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_generator,
    check_non_negative_int,
    check_positive,
    check_positive_int,
)


def make_orthonormal_directions(
    n_features: int, d_in: int, *, generator: GeneratorLike, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "{n_features} {d_in}"]:
    """Uniformly random orthonormal rows, (n_features, d_in), drawn from `generator`.

    Raises:
        ValueError: if n_features > d_in, where no orthonormal rows exist.
    """
    check_positive_int("n_features", n_features)
    check_positive_int("d_in", d_in)
    generator = check_generator("generator", generator)
    if n_features > d_in:
        raise ValueError(f"n_features must be at most d_in = {d_in}, got {n_features}")
    shape = (d_in, n_features)
    gaussian = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T.to(dtype).contiguous()


def make_superposed_directions(
    n_features: int,
    d_in: int,
    *,
    generator: GeneratorLike,
    n_repulsion_steps: int = 0,
    learning_rate: float = 0.01,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "{n_features} {d_in}"]:
    """Random rows of norm 1, (n_features, d_in), repelled by sae-lens' gradient steps if wanted.

    Without steps the rows are uniform on the sphere; more steps bring the cosines nearer to zero.
    "Sparse but Wrong" leaves its small world in superposition by stopping after 4 steps.

    Raises:
        ValueError: for sizes below 1, a negative number of steps, or a rate that is not positive.
    """
    check_positive_int("n_features", n_features)
    check_positive_int("d_in", d_in)
    generator = check_generator("generator", generator)
    check_non_negative_int("n_repulsion_steps", n_repulsion_steps)
    check_positive("learning_rate", learning_rate)
    shape = (n_features, d_in)
    gaussian = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    with torch.enable_grad():
        rows = orthogonalize_embeddings(gaussian, num_steps=n_repulsion_steps, lr=learning_rate)
    return rows.to(dtype)
