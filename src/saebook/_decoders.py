"""Checks of stacked weights, rows of which are directions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_finite, check_tensor


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
