"""Finite toy worlds: a list of states with their probabilities, for exact expected losses.

Source: Chanin, Dulka & Garriga-Alonso, "Feature Hedging" (arXiv 2505.11756), whose toy models of a
parent and a child feature have three or four distinct inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from sae_lens.synthetic import FeatureDictionary
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_generator,
    check_in_range,
    check_positive_int,
    check_probabilities,
    check_rows,
    check_shape,
)
from saebook.worlds.base import (
    World,
    check_n_states,
    make_feature_dictionary,
    merge_states,
    rounding_tolerance,
)
from saebook.worlds.directions import make_orthonormal_directions


@dataclass(frozen=True, eq=False, kw_only=True)
class FiniteWorld(World):
    """A world whose states are listed: row s of `feature_acts` occurs with `probabilities[s]`.

    Both are kept in float64, the probabilities divided by their sum, which must be 1 within 1e-9 or
    the rounding of their type.

    Attributes:
        feature_dict: sae-lens' dictionary, whose `feature_vectors (n_features, d_in)` have norm 1.
        feature_acts: the states, shape (n_states, n_features), none negative.
        probabilities: their probabilities, shape (n_states,).
        firing_probabilities: the exact P(feature i is above 0), shape (n_features,), in float64.

    Raises:
        ValueError: for a wrong shape, negative or infinite activations, or probabilities that are
            outside [0, 1] or do not sum to 1; the message names the argument and its value.
    """

    feature_dict: FeatureDictionary
    feature_acts: Float[Tensor, "n_states n_features"]
    probabilities: Float[Tensor, " n_states"]
    firing_probabilities: Float[Tensor, " n_features"] = field(init=False, repr=False)
    _cumulative: Float[Tensor, " n_states"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        device = self.directions.device
        acts = check_rows("feature_acts", self.feature_acts, self.n_features)
        _check_non_negative("feature_acts", acts)
        p = _check_distribution("probabilities", self.probabilities, len(acts))
        acts, p = acts.to(device, torch.float64), p.to(device)
        cumulative = p.cumsum(0)
        self._set(
            feature_acts=acts,
            probabilities=p,
            firing_probabilities=p @ (acts > 0).double(),
            _cumulative=cumulative / cumulative[-1],
        )

    @property
    def true_l0(self) -> float:
        """The exact expected number of nonzero features per input."""
        return float(self.firing_probabilities.sum())

    def support(self) -> tuple[Float[Tensor, "n_states n_features"], Float[Tensor, " n_states"]]:
        """The distinct states of positive probability, (n_states, n_features), and theirs, float64.

        Rows are sorted; listed states that agree are one state with the sum of their probabilities.
        """
        return merge_states(self.feature_acts, self.probabilities)

    def sample_feature_acts(
        self, n: int, generator: GeneratorLike
    ) -> Float[Tensor, "{n} {self.n_features}"]:
        """Draw `n` rows of feature activations, (n, n_features), by inverting the distribution."""
        check_positive_int("n", n)
        generator = check_generator("generator", generator)
        like, dtype = self.directions, torch.float64
        uniform = torch.rand(n, generator=generator, device=like.device, dtype=dtype)
        state = torch.searchsorted(self._cumulative, uniform, right=True)
        return self.feature_acts[state].to(like)

    def with_magnitude_levels(
        self, levels: Float[Tensor, " n_levels"], probabilities: Float[Tensor, " n_levels"]
    ) -> FiniteWorld:
        """The finite world in which each firing feature is multiplied by a random level.

        Level l has `probabilities[l]`, independently for each feature: a state in which f features
        fire becomes n_levels ** f states.

        Raises:
            ValueError: for wrong shapes, negative levels, probabilities that do not sum to 1, or if
                there were more than 65,536 states.
        """
        levels = check_rows("levels", check_shape("levels", levels, ("n_levels",))[:, None], 1)
        _check_non_negative("levels", levels)
        p = _check_distribution("probabilities", probabilities, len(levels))
        levels, p = levels[:, 0].to(self.feature_acts), p.to(self.feature_acts)
        acts, acts_p = self.support()
        per_state = [len(levels) ** n_firing for n_firing in (acts > 0).sum(1).tolist()]
        check_n_states("the world with magnitude levels", sum(per_state))
        for feature in range(self.n_features):
            acts, acts_p = _split_on_levels(acts, acts_p, feature, levels, p)
        return replace(self, feature_acts=acts, probabilities=acts_p)


def _split_on_levels(
    acts: Float[Tensor, "n_states n_features"],
    acts_p: Float[Tensor, " n_states"],
    feature: int,
    levels: Float[Tensor, " n_levels"],
    levels_p: Float[Tensor, " n_levels"],
) -> tuple[Float[Tensor, "n_split n_features"], Float[Tensor, " n_split"]]:
    fires = acts[:, feature] > 0
    copies = torch.where(fires, len(levels), 1)
    state = torch.arange(len(acts), device=acts.device).repeat_interleave(copies)
    level = torch.arange(len(state), device=acts.device) - (copies.cumsum(0) - copies)[state]
    acts, acts_p, fires = acts[state], acts_p[state], fires[state]
    acts[:, feature] *= torch.where(fires, levels[level], 1.0)
    return acts, acts_p * torch.where(fires, levels_p[level], 1.0)


def _check_non_negative(name: str, value: Tensor) -> None:
    negative = value < 0
    if bool(negative.any()):
        index = tuple(negative.nonzero()[0].tolist())
        raise ValueError(f"{name} must be at least 0, got {value[index].item():g} at index {index}")


def _check_distribution(name: str, value: Tensor, size: int) -> Float[Tensor, " size"]:
    p = check_probabilities(name, check_shape(name, value, (size,))).double()
    total = p.sum()
    if abs(total.item() - 1) > rounding_tolerance(value):
        raise ValueError(f"{name} must sum to 1, got a sum of {total.item():.10g}")
    return p / total


def make_finite_world(
    feature_acts: Float[Tensor, "n_states n_features"],
    probabilities: Float[Tensor, " n_states"],
    directions: Float[Tensor, "n_features d_in"],
) -> FiniteWorld:
    """The `FiniteWorld` of these states and directions (rows of norm 1); raises what it raises.

    `make_finite_world(*world.support(), world.directions)` lists any other finite world.
    """
    return FiniteWorld(
        feature_dict=make_feature_dictionary(directions),
        feature_acts=feature_acts,
        probabilities=probabilities,
    )


def make_parent_child_world(
    *,
    generator: GeneratorLike,
    parent: float = 0.25,
    child_given_parent: float = 0.2,
    child_otherwise: float = 0.0,
    d_in: int = 50,
    dtype: torch.dtype = torch.float32,
) -> FiniteWorld:
    """The world of "Feature Hedging" with a parent (feature 0) and a child (1), of magnitude 1.

    The child fires with probability `child_given_parent` if the parent does, `child_otherwise` if
    not. The paper's pairs have 0.2 and 0.2 (independent), 0.2 and 0 (hierarchical, the default),
    0.2 and 0.1 (positively correlated), 0.1 and 0.2 (negatively). `generator` draws the orthonormal
    directions.

    Raises:
        ValueError: for probabilities outside [0, 1], or d_in below 2.
    """
    check_in_range("parent", parent, 0, 1)
    with_parent = check_in_range("child_given_parent", child_given_parent, 0, 1)
    without = check_in_range("child_otherwise", child_otherwise, 0, 1)
    states = [[0, 0], [0, 1], [1, 0], [1, 1]]
    p = [
        (1 - parent) * (1 - without),
        (1 - parent) * without,
        parent * (1 - with_parent),
        parent * with_parent,
    ]
    return make_finite_world(
        torch.tensor(states, dtype=torch.float64),
        torch.tensor(p, dtype=torch.float64),
        make_orthonormal_directions(2, d_in, generator=generator, dtype=dtype),
    )
