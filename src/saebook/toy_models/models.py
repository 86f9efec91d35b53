"""The toy models themselves: a stack of weights, drawn at random, and what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_positive_int,
    check_same_shape,
    check_shape,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ToyModels:
    """A stack of toy models: h = a W_in, output ReLU(h Wᵀ + b).

    Attributes:
        W: direction of each feature, one a row, (n_models, n_features, d_hidden).
        b: bias of each output, (n_models, n_features).
        W_in: directions by which features enter if they are not those of W, shaped as W.
        relu_hidden: whether the hidden layer is ReLU(a W_in), which makes its entries neurons.

    Raises:
        ValueError, TypeError: for shapes that do not fit, or values that are not finite.

    Source: Elhage et al. (arXiv 2209.10652), "Demonstrating superposition" and "Computation in
    superposition".
    """

    W: Float[Tensor, "n_models n_features d_hidden"]
    b: Float[Tensor, "n_models n_features"]
    W_in: Float[Tensor, "n_models n_features d_hidden"] | None = None
    relu_hidden: bool = False

    def __post_init__(self) -> None:
        check_finite("W", check_shape("W", self.W, ("n_models", "n_features", "d_hidden")))
        check_finite("b", check_shape("b", self.b, tuple(self.W.shape[:2])))
        if self.W_in is not None:
            check_finite("W_in", check_same_shape("W_in", self.W_in, "W", self.W))

    @property
    def n_models(self) -> int:
        """The number of models in the stack."""
        return self.W.shape[0]

    def __getitem__(self, index: Any) -> ToyModels:
        """The models of an index along the first axis that keeps that axis: a list, mask, slice."""
        W_in = None if self.W_in is None else self.W_in[index]
        return ToyModels(W=self.W[index], b=self.b[index], W_in=W_in, relu_hidden=self.relu_hidden)

    def hidden(
        self, feature_acts: Float[Tensor, "*n_models batch n_features"]
    ) -> Float[Tensor, "n_models batch d_hidden"]:
        """The hidden states of features `(n_models, batch, n_features)`, or `(batch, n_features)`.

        Raises:
            ValueError: for another number of features or models.
        """
        n_models, n_features, _ = self.W.shape
        lead = (n_models,) if getattr(feature_acts, "ndim", 0) == 3 else ()
        check_shape("feature_acts", feature_acts, (*lead, "batch", n_features))
        h = feature_acts @ (self.W if self.W_in is None else self.W_in)
        return h.relu() if self.relu_hidden else h

    def __call__(
        self, feature_acts: Float[Tensor, "*n_models batch n_features"]
    ) -> Float[Tensor, "n_models batch n_features"]:
        """The outputs; raises what `hidden` raises."""
        return (self.hidden(feature_acts) @ self.W.mT + self.b[:, None]).relu()


def make_toy_models(
    *,
    n_models: int,
    n_features: int,
    d_hidden: int,
    generator: GeneratorLike,
    tied: bool = True,
    relu_hidden: bool = False,
    dtype: torch.dtype = torch.float32,
) -> ToyModels:
    """Draw initial weights: normal, with variance 2/(n_features + d_hidden); biases zero.

    Args:
        n_models: number of models in the stack, each with its own weights.
        n_features: number of features.
        d_hidden: dimensions of the hidden state.
        generator: draws W and then, unless tied, W_in.
        tied: whether features enter by the directions by which they leave.
        relu_hidden: whether the hidden layer has a ReLU.
        dtype: of all weights.

    Raises:
        ValueError, TypeError: for sizes below 1 or something that is no generator.
    """
    sizes = {"n_models": n_models, "n_features": n_features, "d_hidden": d_hidden}
    shape = [check_positive_int(name, size) for name, size in sizes.items()]
    generator = check_generator("generator", generator)
    std = (2 / (n_features + d_hidden)) ** 0.5
    W, W_in = (
        std * torch.randn(shape, generator=generator, dtype=dtype) if drawn else None
        for drawn in (True, not tied)
    )
    assert W is not None
    return ToyModels(W=W, b=W.new_zeros(n_models, n_features), W_in=W_in, relu_hidden=relu_hidden)
