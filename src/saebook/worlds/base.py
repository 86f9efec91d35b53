"""What every toy world has: feature directions, a law of firing, samples, at times a support.

Directions are held in a `sae_lens.synthetic.FeatureDictionary`. The worlds are listed in `worlds`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from sae_lens.synthetic import FeatureDictionary
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_in_range,
    check_instance,
    check_shape,
    check_unit_rows,
)

MAX_STATES = 65_536

_AnyWorld = TypeVar("_AnyWorld", bound="World")


@dataclass(frozen=True, eq=False, kw_only=True)
class World(ABC):
    """Feature directions and a law by which features fire, from which inputs are sampled.

    An input is x = feature_acts @ directions (plus the dictionary's bias, if it has one), and noise
    if wanted.

    Attributes:
        feature_dict: sae-lens' dictionary, whose `feature_vectors (n_features, d_in)` have norm 1.
        firing_probabilities: each feature's probability of firing, shape (n_features,).
        noise_std: standard deviation of normal noise in each dimension of an input.

    Raises:
        TypeError: for a dictionary of another type.
        ValueError: for directions not of norm 1, or a negative noise.

    Example: the same world with noise. ::

        noisy = dataclasses.replace(world, noise_std=0.05)
    """

    feature_dict: FeatureDictionary
    firing_probabilities: Float[Tensor, " n_features"]
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        check_in_range("noise_std", self.noise_std, 0)
        check_instance("feature_dict", self.feature_dict, FeatureDictionary)
        check_unit_rows("directions", self.directions)

    @property
    def directions(self) -> Float[Tensor, "n_features d_in"]:
        """The feature directions, rows of norm 1, shape (n_features, d_in)."""
        return self.feature_dict.feature_vectors.detach()

    @property
    def n_features(self) -> int:
        """The number of features."""
        return self.feature_dict.num_features

    @property
    def d_in(self) -> int:
        """The dimension of the inputs."""
        return self.feature_dict.hidden_dim

    @property
    @abstractmethod
    def true_l0(self) -> float:
        """The exact expected number of nonzero features per input."""

    @abstractmethod
    def support(self) -> tuple[Float[Tensor, "n_states n_features"], Float[Tensor, " n_states"]]:
        """All activations that occur, (n_states, n_features), and their probabilities, in float64.

        Rows are distinct, each has a probability above 0, and these sum to 1.

        Raises:
            ValueError: for a world that is not finite, or that has more than 65,536 states.
        """

    @abstractmethod
    def sample_feature_acts(
        self, n: int, generator: GeneratorLike
    ) -> Float[Tensor, "{n} {self.n_features}"]:
        """Draw `n` rows of feature activations, (n, n_features), from `generator`."""

    def sample_with_feature_acts(
        self, n: int, generator: GeneratorLike
    ) -> tuple[Float[Tensor, "{n} {self.d_in}"], Float[Tensor, "{n} {self.n_features}"]]:
        """Draw `n` inputs with the activations behind them: (n, d_in) and (n, n_features)."""
        generator = check_generator("generator", generator)
        feature_acts = self.sample_feature_acts(n, generator)
        with torch.no_grad():
            x = self.feature_dict(feature_acts)
        if self.noise_std:
            like = {"dtype": x.dtype, "device": x.device}
            x += self.noise_std * torch.randn(x.shape, generator=generator, **like)
        return x, feature_acts

    def sample(self, n: int, generator: GeneratorLike) -> Float[Tensor, "{n} {self.d_in}"]:
        """Draw `n` inputs x, (n, d_in), from `generator`."""
        return self.sample_with_feature_acts(n, generator)[0]

    def to(
        self: _AnyWorld,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> _AnyWorld:
        """The same world on another device or in another floating-point type."""
        feature_dict = copy.deepcopy(self.feature_dict).to(device=device, dtype=dtype)
        return replace(self, feature_dict=feature_dict)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


def make_feature_dictionary(directions: Float[Tensor, "n_features d_in"]) -> FeatureDictionary:
    """The sae-lens dictionary of these directions, in their type and on their device."""
    check_shape("directions", directions, ("n_features", "d_in"))
    n_features, d_in = directions.shape
    feature_dict = FeatureDictionary(n_features, d_in, initializer=None, seed=0)
    feature_dict.to(directions).requires_grad_(False)
    feature_dict.feature_vectors.copy_(directions)
    return feature_dict


def check_magnitudes(
    mean: Tensor | float, std: Tensor | float, like: Float[Tensor, "n_features d_in"]
) -> tuple[Float[Tensor, " n_features"], Float[Tensor, " n_features"]]:
    """Mean and standard deviation of the magnitudes per feature, in the type of `like`.

    Raises:
        ValueError: for a wrong shape, a value that is not finite, or a negative deviation.
    """
    mean = _per_feature("magnitude_mean", mean, len(like)).to(like)
    std = _per_feature("magnitude_std", std, len(like)).to(like)
    check_in_range("magnitude_std (its smallest entry)", std.min().item(), 0)
    return mean, std


def _per_feature(name: str, value: Tensor | float, n_features: int) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.full((n_features,), check_in_range(name, value), dtype=torch.float64)
    return check_finite(name, check_shape(name, value, (n_features,)))


def positive_share(mean: Tensor | float, std: Tensor | float) -> Float[Tensor, " n_features"]:
    """The probability that a normal magnitude is above 0, Φ(mean / std), in float64."""
    mean, std = (torch.as_tensor(moment).double() for moment in (mean, std))
    return torch.where(std > 0, torch.special.ndtr(mean / std), (mean > 0).double())


def check_constant_magnitudes(std: Tensor | float) -> None:
    """Raise a ValueError unless every magnitude is constant, without which no world is finite."""
    largest = torch.as_tensor(std).max().item()
    if largest > 0:
        raise ValueError(
            "support() needs a finite world: magnitude_std must be 0 for every feature, got "
            f"{largest:g} (continuous magnitudes); FiniteWorld.with_magnitude_levels has levels"
        )


def check_n_states(name: str, n_states: int) -> None:
    """Raise a ValueError for more states than are worth listing, 65,536."""
    if n_states > MAX_STATES:
        raise ValueError(f"{name} must have at most {MAX_STATES:,} states, got {n_states:,}")


def rounding_tolerance(probabilities: Float[Tensor, "*shape"]) -> float:
    """How far a sum of probabilities of this type may be from 1: 1e-9, or what its type rounds."""
    return max(1e-9, 8 * torch.finfo(probabilities.dtype).eps)


def merge_states(
    feature_acts: Float[Tensor, "n_listed n_features"], probabilities: Float[Tensor, " n_listed"]
) -> tuple[Float[Tensor, "n_states n_features"], Float[Tensor, " n_states"]]:
    """The distinct rows of positive probability, sorted, and the summed probabilities."""
    occurs = probabilities > 0
    rows, state = torch.unique(feature_acts[occurs], dim=0, return_inverse=True)
    return rows, probabilities.new_zeros(len(rows)).index_add(0, state, probabilities[occurs])
