"""Loops that a processor runs over whole arrays, compiled by Numba at their first use.

A training step is a few matrix products, which a library computes, and what lies between them. Each
loop here does in one pass over memory what takes PyTorch several, and none waits for Python's lock.
`engine.plain` has the same steps in PyTorch's own words, and the tests hold one against the other.
Arrays are those of NumPy. Compiled code is kept beside the source, or in the user's cache, for the
next process.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import scipy.linalg.cython_blas  # noqa: F401 - the products that Numba calls, for `one_thread`

WORD = 8  # flags, a byte each, that are looked at together
# Sums may be reordered and fused, as matrix products do, so that they use whole registers.
FAST = {"reassoc", "contract", "nsz"}


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The loop, compiled for the types of its arguments when it is called; it frees the GIL."""
    options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
    return numba.njit(inspect.unwrap(loop), fastmath=FAST, **options)  # bare of run-time checks
