"""Count baselines by one standard: error, share of variance, bits, parameters, time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_instance
from saebook.baselines.base import Baseline
from saebook.metrics.reconstruction import mean_squared_error, variance_explained


def account(method: Baseline, x: Float[Tensor, "n d_in"], l0: int) -> dict[str, str | int | float]:
    """What a fitted baseline does with l0 atoms an input, and what it costs.

    Keys: `method`, the name of its class; `l0_allowed`, the argument; `l0`, the mean number of
    nonzero codes; `mse`, as in `metrics.mean_squared_error`; `variance_explained`, a share of the
    variance round the mean of `x`; `bits`, the mean description length of an input by the codes it
    uses, at eight bits a value; `n_parameters`; `fit_seconds`; `encode_seconds`, for all of `x`.

    Args:
        method: a fitted baseline.
        x: inputs that it was not fitted on.
        l0: number of atoms allowed for each input.

    Raises:
        ValueError, TypeError: for what `encode` refuses, or `x` without variance.
    """
    check_instance("method", method, Baseline)
    start = time.perf_counter()
    codes = method.encode(x, l0)
    encode_seconds = time.perf_counter() - start
    counts = codes.count_nonzero(dim=1)
    x_hat = method.centre + codes @ method.dictionary
    return {
        "method": type(method).__name__,
        "l0_allowed": l0,
        "l0": counts.double().mean().item(),
        "mse": mean_squared_error(x, x_hat),
        "variance_explained": variance_explained(x, x_hat),
        "bits": method.bits(counts),
        "n_parameters": method.n_parameters,
        "fit_seconds": method.fit_seconds,
        "encode_seconds": encode_seconds,
    }


def evaluate_baselines(
    methods: Mapping[str, Baseline],
    x_test: Float[Tensor, "n d_in"],
    l0s: Sequence[int] | Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """One row of `account` for each method and l0, with the method's name in `methods`.

    Args:
        methods: fitted baselines by name.
        x_test: inputs that none was fitted on.
        l0s: numbers of atoms allowed, for all methods, or for each by name.

    Raises:
        ValueError, TypeError: for what `account` refuses, or other names in `l0s` than in
            `methods`.
    """
    each = l0s if isinstance(l0s, Mapping) else dict.fromkeys(methods, l0s)
    if set(each) != set(methods):
        raise ValueError(f"l0s must have the names {sorted(methods)}, got {sorted(each)}")
    return pd.DataFrame(
        [
            {**account(method, x_test, l0), "method": name}
            for name, method in methods.items()
            for l0 in each[name]
        ]
    )
