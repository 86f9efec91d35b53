"""Argument checks: each error names the argument, its value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

GeneratorLike = torch.Generator | int


def check_positive_int(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 1."""
    return check_int_at_least(name, value, 1)


def check_non_negative_int(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 0."""
    return check_int_at_least(name, value, 0)


def check_int_at_least(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int if it is a whole number of at least `minimum`; bools are refused."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def check_in_range(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> float:
    """Return `value` as a float if it is a real number between the bounds; NaN never is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    number = float(value)
    above = number > minimum if open_minimum else number >= minimum
    below = number < maximum if open_maximum else number <= maximum
    if not (above and below):
        left, right = "(" if open_minimum else "[", ")" if open_maximum else "]"
        raise ValueError(f"{name} must be in {left}{minimum:g}, {maximum:g}{right}, got {value!r}")
    return number


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number greater than 0."""
    return check_in_range(name, value, 0.0, math.inf, open_minimum=True, open_maximum=True)


def check_non_negative(name: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number of at least 0."""
    return check_in_range(name, value, 0.0, math.inf, open_maximum=True)


def check_tensor(name: str, value: Any) -> Tensor:
    """Return `value` if it is a tensor of floating-point numbers."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {value.dtype}")
    return value


def check_shape(name: str, value: Any, expected: Sequence[int | str | None]) -> Tensor:
    """Return the tensor `value` if its shape is `expected`; a string or None stands for any size.

    Args:
        expected: such as `(n_features, "d_in")`; strings only serve the message.
    """
    check_tensor(name, value)
    fits = value.ndim == len(expected) and all(
        want == have for want, have in zip(expected, value.shape, strict=True) if type(want) is int
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(value.shape)}")
    return value


def check_same_shape(name: str, value: Any, other_name: str, other: Any) -> Tensor:
    """Return the tensor `value` if it has the same shape as the tensor `other`."""
    check_tensor(name, value)
    check_tensor(other_name, other)
    if value.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name}, {tuple(other.shape)}, "
            f"got {tuple(value.shape)}"
        )
    return value


def check_finite(name: str, value: Any) -> Tensor:
    """Return the tensor `value` if it holds neither NaN nor infinity."""
    check_tensor(name, value)
    if bool(value.sum().isfinite()):  # one pass; a sum may be infinite though no entry is
        return value
    finite = torch.isfinite(value)
    if not bool(finite.all()):
        index = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(f"{name} must be finite, got {value[index].item()} at index {index}")
    return value


def check_rows(name: str, value: Any, width: int | str = "d_in") -> Tensor:
    """Return the tensor `value` if it is a table of at least one row, without NaN or infinity."""
    check_finite(name, check_shape(name, value, ("n", width)))
    if len(value) == 0:
        raise ValueError(f"{name} must have at least one row, got shape {tuple(value.shape)}")
    return value


def check_probabilities(name: str, value: Any) -> Tensor:
    """Return the tensor `value` if each entry is in [0, 1]; NaN never is."""
    check_tensor(name, value)
    inside = (value >= 0) & (value <= 1)
    if not bool(inside.all()):
        index = tuple((~inside).nonzero()[0].tolist())
        raise ValueError(f"{name} must be in [0, 1], got {value[index].item():g} at index {index}")
    return value


def check_unit_rows(name: str, value: Any, *, tolerance: float = 1e-4) -> Tensor:
    """Return the tensor `value` if each of its rows (last axis) has norm 1 within `tolerance`."""
    norms = check_finite(name, value).norm(dim=-1)
    off = (norms - 1).abs() > tolerance
    if bool(off.any()):
        index = tuple(off.nonzero()[0].tolist())
        raise ValueError(
            f"{name} must have rows of norm 1, got norm {norms[index].item():g} at row {index}"
        )
    return value


def check_generator(name: str, value: Any) -> torch.Generator:
    """Return `value` if it is a torch.Generator; a whole number gives a new one with that seed."""
    if isinstance(value, torch.Generator):
        return value
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} must be a torch.Generator or a whole number to seed one (randomness is passed "
            f"in, never global), got {value!r}"
        )
    return torch.Generator().manual_seed(int(value))


def check_one_of(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """Return `value` if it is among `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {sorted(allowed, key=str)}, got {value!r}")
    return value


def check_instance(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """Return `value` if it is an instance of `kind`."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(each.__name__ for each in kinds)
        raise TypeError(f"{name} must be {wanted}, got {value!r} of type {type(value).__name__}")
    return value


def check_function(name: str, value: Any, signature: str) -> Any:
    """Return `value` if it can be called and is no PyTorch module."""
    if not callable(value) or isinstance(value, torch.nn.Module):
        raise TypeError(f"{name} must be a function {signature}, got {type(value).__name__}")
    return value


def check_sequence(name: str, value: Any, of: str) -> Any:
    """Return `value` if it is a list, a range or another sequence, or a NumPy array."""
    if not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"{name} must be a sequence of {of}, got {type(value).__name__}")
    return value


def check_indices(name: str, value: Any, n_features: int, n_choices: int) -> Tensor:
    """Return `value` if it gives each feature an index below `n_choices`, or −1 for none."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must hold indices of dtype int64 or int32, got {value.dtype}")
    if value.shape != (n_features,):
        raise ValueError(f"{name} must have shape ({n_features}), got {tuple(value.shape)}")
    outside = (value < -1) | (value >= n_choices)
    if bool(outside.any()):
        index = int(outside.nonzero()[0])
        raise ValueError(
            f"{name} must be in [-1, {n_choices - 1}], got {int(value[index])} at index {index}"
        )
    return value
