"""What toy models are trained on: how features fire, what each is worth, what to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_one_of,
    check_positive_int,
    check_probabilities,
    check_same_shape,
    check_shape,
)

Pairs = Literal["independent", "correlated", "anticorrelated"]
Target = Literal["identity", "absolute"]
Acts = Float[Tensor, "n_models n_features batch"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ToyTask:
    """A stack of tasks, one for each model: sparse features, and what to compute of them.

    A feature is zero, or has a magnitude that is uniform in [0, 1], or in [−1, 1] where the target
    is the absolute value. All models of a stack see the same uniform draws: feature i of model j
    fires where its draw is below `density[j, i]`. The loss of model j is
    Σ_i importance[j, i] · E(target_i − output_i)².

    Attributes:
        density: probability that a feature fires, (n_models, n_features).
        importance: weight of each feature's error, (n_models, n_features), not negative.
        pairs: how features 0 and 1, 2 and 3, … fire: independently; "correlated", from one common
            draw, so that equal densities always fire together; "anticorrelated", never together,
            which needs densities that sum to at most 1 in each pair.
        target: "identity" or "absolute".

    Raises:
        ValueError, TypeError: for shapes that differ, densities outside [0, 1], importances below
            0, an unknown kind, or pairs that cannot be.

    Source: Elhage et al. (arXiv 2209.10652), sections "Demonstrating superposition",
    "Superposition as a phase change", "Computation in superposition".
    """

    density: Float[Tensor, "n_models n_features"]
    importance: Float[Tensor, "n_models n_features"]
    pairs: Pairs = "independent"
    target: Target = "identity"

    def __post_init__(self) -> None:
        check_probabilities("density", check_shape("density", self.density, ("n_models", "n")))
        check_same_shape("importance", self.importance, "density", self.density)
        if bool((check_finite("importance", self.importance) < 0).any()):
            low = self.importance.min().item()
            raise ValueError(f"importance must not be negative, got {low:g}")
        check_one_of("pairs", self.pairs, get_args(Pairs))
        check_one_of("target", self.target, get_args(Target))
        if self.pairs != "independent":
            self._check_pairs()

    def _check_pairs(self) -> None:
        n_features = self.density.shape[1]
        if n_features % 2:
            raise ValueError(f"density must have an even number of features, got {n_features}")
        sums = self.density[:, 0::2] + self.density[:, 1::2]
        if self.pairs == "anticorrelated" and bool((sums > 1).any()):
            raise ValueError(
                "density must sum to at most 1 in each anticorrelated pair, "
                f"got {sums.max().item():g}"
            )

    @property
    def n_models(self) -> int:
        """The number of tasks in the stack."""
        return self.density.shape[0]

    @property
    def n_features(self) -> int:
        """The number of features of each."""
        return self.density.shape[1]

    @property
    def target_variance(self) -> Float[Tensor, "n_models n_features"]:
        """p/3 − p²/4: the error of a feature that a model ignores, at its best bias p/2."""
        return self.density / 3 - self.density.square() / 4

    def sample(self, n: int, *, generator: GeneratorLike) -> Float[Tensor, "n_models n n_features"]:
        """Draw the features of n inputs, (n_models, n, n_features).

        Raises:
            ValueError, TypeError: for n below 1 or something that is no generator.
        """
        check_positive_int("n", n)
        return self.draw(n, check_generator("generator", generator)).mT.contiguous()

    def draw(self, n: int, generator: torch.Generator, out: Acts | None = None) -> Acts:
        """Draw n inputs with the batch as the last axis, (n_models, n_features, n), into `out`."""
        options: dict[str, Any] = {"generator": generator, "dtype": self.density.dtype}
        magnitude, place = torch.rand(2, self.n_features, n, **options)  # each (n_features, n)
        if self.pairs == "correlated":
            place[1::2] = place[0::2]
        elif self.pairs == "anticorrelated":
            place[1::2] = 1 - place[0::2]
        if self.target == "absolute":
            magnitude = 2 * magnitude - 1
        fires = place < self.density[..., None]
        return torch.where(fires, magnitude, torch.zeros_like(place), out=out)

    def target_of(self, acts: Tensor) -> Tensor:
        """What a model should give for these features, of any shape."""
        return acts.abs() if self.target == "absolute" else acts


def make_toy_task(
    density: Float[Tensor, " n_models"],
    importance: Float[Tensor, " n_features"],
    *,
    pairs: Pairs = "independent",
    target: Target = "identity",
) -> ToyTask:
    """A task in which all features of a model have one density, and all models the importances.

    Args:
        density: one probability per model, (n_models,).
        importance: one weight per feature, (n_features,).
        pairs: as in `ToyTask`.
        target: as in `ToyTask`.

    Raises:
        ValueError, TypeError: for a tensor of another shape, and what `ToyTask` raises.
    """
    check_shape("density", density, ("n_models",))
    check_shape("importance", importance, ("n_features",))
    return ToyTask(
        density=density[:, None].repeat(1, len(importance)),
        importance=importance.repeat(len(density), 1),
        pairs=pairs,
        target=target,
    )
