"""How many bits a code costs: which atoms, and with what values."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import check_int_at_least, check_non_negative


def description_length(
    n_atoms: int, l0: int | Int[Tensor, " n"], bits_per_value: float = 8.0
) -> float:
    """log₂ C(n_atoms, l0) + l0·b, the bits that name l0 of n_atoms atoms and give their values.

    With a number of atoms for each input, it is the mean over inputs of each one's bits, which by
    Jensen's inequality is at most the bits at their mean. The number itself is not coded.

    Args:
        n_atoms: size of the dictionary.
        l0: number of atoms used, or one number for each input, (n,).
        bits_per_value: b, the precision of a value.

    Raises:
        ValueError, TypeError: for an l0 that is no whole number of 0 … n_atoms, or negative bits.
    """
    used = check_counts(check_int_at_least("n_atoms", n_atoms, 0), l0)
    bits = check_non_negative("bits_per_value", bits_per_value)
    log_choices = _log_factorial(used.new_tensor(n_atoms))
    log_choices = log_choices - _log_factorial(used) - _log_factorial(n_atoms - used)
    return (log_choices / math.log(2) + used * bits).mean().item()


def _log_factorial(n: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return torch.lgamma(n + 1)


def check_counts(most: int | None, l0: int | Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`l0` as float64 counts, (n,), if whole numbers from 0 to `most`, if any."""
    if not isinstance(l0, Tensor):
        l0 = torch.tensor([check_int_at_least("l0", l0, 0)])
    if l0.is_floating_point() or l0.dtype == torch.bool or l0.ndim != 1 or len(l0) == 0:
        raise TypeError(
            "l0 must be an int or one int for each input, "
            f"got a tensor of shape {tuple(l0.shape)} and dtype {l0.dtype}"
        )
    smallest, largest = int(l0.min()), int(l0.max())
    if smallest < 0 or (most is not None and largest > most):
        off = smallest if smallest < 0 else largest
        raise ValueError(f"l0 must be in [0, {'∞' if most is None else most}], got {off}")
    return l0.double()
