"""What decoder rows say: s_n, c_dec, and their cosines with features.

Source of s_n and c_dec: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_in_range,
    check_int_at_least,
    check_rows,
    check_shape,
    check_tensor,
)


def check_decoder(name: str, W_dec: Tensor) -> Tensor:
    """Return `W_dec` if it is finite and of shape (…, d_sae, d_in), nothing of size 0."""
    check_tensor(name, W_dec)
    if W_dec.ndim < 2 or 0 in W_dec.shape:
        raise ValueError(f"{name} must have shape (…, d_sae, d_in), got {tuple(W_dec.shape)}")
    return check_finite(name, W_dec)


def unit_rows(name: str, rows: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`rows` scaled to norm 1 along the last axis; a zero row is an error."""
    norms = check_decoder(name, rows).norm(dim=-1, keepdim=True)
    if bool((norms == 0).any()):
        index = tuple((norms == 0).nonzero()[0, :-1].tolist())
        raise ValueError(f"{name} must have no zero rows, got one at {index}: it has no direction")
    return rows / norms


def nth_decoder_projection(
    W_dec: Float[Tensor, "*saes d_sae d_in"],
    b_dec: Float[Tensor, "*saes d_in"],
    x: Float[Tensor, "n_samples d_in"],
    n: int | Sequence[int],
) -> Float[Tensor, "*saes_and_n"]:
    """s_n: the (n · n_samples)-th largest entry, counted from 0, of z = (x − b_dec) W_decᵀ.

    Decoder rows are used as they are, not normalised. Returns a tensor of shape (*saes) for one n,
    (*saes, len(n)) for several; one pass serves them all, one SAE at a time in memory. Source:
    "Sparse but Wrong", n-th decoder projection.

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

    Source: "Sparse but Wrong", section on detecting the true L0.

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

    Raises:
        ValueError: for shapes that do not fit, zero rows, or values that are not finite.
    """
    unit = unit_rows("W_dec", W_dec)
    check_shape("directions", directions, ("n_features", unit.shape[-1]))
    return unit @ unit_rows("directions", directions).mT
