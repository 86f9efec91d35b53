"""Worlds drawn at random, to try a method on many that nobody chose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from sae_lens.synthetic import HierarchyNode
from torch import Tensor

from saebook._checks import GeneratorLike, check_generator
from saebook.worlds.copula import make_random_correlation
from saebook.worlds.correlated import CopulaWorld, make_correlated_world
from saebook.worlds.directions import make_orthonormal_directions, make_superposed_directions
from saebook.worlds.tree import TreeWorld, make_tree_world

T = TypeVar("T")

CORRELATIONS = ("none", "copula", "groups", "hierarchy")
SPREADS = (1.0, 3.0)  # the largest mean magnitude over the smallest
WIDTHS = (0.6, 0.8, 1.0, 1.0, 1.5, 2.0)  # latents a feature
MOST_OFTEN = 0.6  # no feature fires more often
GROUP = 4  # features of a group, or of a tree: a parent and its children


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawnWorld:
    """A world as it was drawn, and how wide an SAE it is given.

    Attributes:
        world: the world itself.
        correlation: how features fire together: "none", independently; "copula", by the recipe of
            "Sparse but Wrong"; "groups", in fours that fire together; "hierarchy", in fours of a
            parent and three children.
        spread: the largest mean magnitude over the smallest that can be drawn.
        d_sae: number of latents, 0.6 to 2 times the number of features.
    """

    world: CopulaWorld | TreeWorld
    correlation: str
    spread: float
    d_sae: int

    @property
    def features_per_dimension(self) -> float:
        """Above 1 directions are in superposition, below it they are orthonormal."""
        return self.world.n_features / self.world.d_in

    @property
    def l0_in_reach(self) -> float:
        """The mean number of active features among the `d_sae` that contribute most to the inputs.

        With as many latents as features this is the true L0.
        """
        magnitude = torch.as_tensor(self.world.magnitude_mean).double()
        energy = self.world.firing_probabilities * magnitude.square()
        kept = energy.argsort(descending=True)[: self.d_sae]
        return float(self.world.firing_probabilities[kept].sum())


def draw_world(generator: GeneratorLike) -> DrawnWorld:
    """Draw a world of 16 to 40 dimensions with half to twice as many features.

    The true L0 lies between 1.5 and 12, or two fifths of the features, and is no whole number. In
    half of the worlds noise is added to each dimension, up to a tenth of a magnitude. Directions
    are orthonormal where there is room, otherwise random and repelled. Magnitudes have one mean, or
    means spread by a factor of three; they vary by 15 %.
    """
    draw = _Draw(check_generator("generator", generator))
    d_in = draw.whole(16, 40)
    n = max(8, round(draw.between(0.5, 2.0) * d_in))
    l0 = math.exp(draw.between(math.log(1.5), math.log(min(12.0, 0.4 * n))))
    spread, correlation = draw.one_of(SPREADS), draw.one_of(CORRELATIONS)
    magnitude = torch.exp((torch.rand(n, generator=draw.generator) - 0.5) * math.log(spread))
    directions = _directions(n, d_in, draw.generator)
    world = (
        _trees(l0, directions, magnitude, draw)
        if correlation == "hierarchy"
        else _copula(l0, directions, magnitude, correlation, draw)
    )
    noise = draw.between(0.0, 0.1) if draw.between(0, 1) < 0.5 else 0.0
    return DrawnWorld(
        world=replace(world, noise_std=noise),
        correlation=correlation,
        spread=spread,
        d_sae=max(4, round(draw.one_of(WIDTHS) * n)),
    )


class _Draw:
    """Single numbers from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=self.generator).item()

    def whole(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.whole(0, len(values) - 1)]


def _directions(
    n_features: int, d_in: int, generator: torch.Generator
) -> Float[Tensor, "n_features d_in"]:
    if n_features <= d_in:
        return make_orthonormal_directions(n_features, d_in, generator=generator)
    return make_superposed_directions(n_features, d_in, generator=generator, n_repulsion_steps=200)


def _copula(
    l0: float, directions: Tensor, magnitude: Tensor, correlation: str, draw: _Draw
) -> CopulaWorld:
    """Features whose rates fall in a line, the last at least a fifth of the first, shuffled."""
    n = len(directions)
    order = torch.randperm(n, generator=draw.generator)
    matrix = None
    if correlation == "copula":
        matrix = make_random_correlation(n, seed=draw.whole(0, 10**6))
    if correlation == "groups":
        group = torch.arange(n) // GROUP
        matrix = (group[:, None] == group).double() * draw.between(0.4, 0.8)
        matrix.fill_diagonal_(1.0)
    return make_correlated_world(
        _rates(n, l0, draw.between(0.2, 1.0))[order],
        matrix,
        directions,
        magnitude_mean=magnitude,
        magnitude_std=0.15 * magnitude,
    )


def _rates(n: int, l0: float, last: float) -> Float[Tensor, " n"]:
    """Rates of sum `l0` that fall in a line; those above the most are cut, the rest raised."""
    rates = torch.linspace(1, last, n, dtype=torch.float64)
    rates *= l0 / rates.sum()
    while bool((rates > MOST_OFTEN).any()):
        rates.clamp_(max=MOST_OFTEN)
        free = rates < MOST_OFTEN
        rates[free] *= (l0 - MOST_OFTEN * int((~free).sum())) / rates[free].sum()
    return rates


def _trees(l0: float, directions: Tensor, magnitude: Tensor, draw: _Draw) -> TreeWorld:
    """Parents with three children each; features that are left over are roots without children."""
    n = len(directions)
    n_trees, rate = n // GROUP, draw.between(0.15, 0.4)
    root = l0 / (n_trees * (1 + (GROUP - 1) * rate) + n % GROUP)
    roots = [
        HierarchyNode(first, [HierarchyNode(first + j) for j in range(1, GROUP)])
        for first in range(0, GROUP * n_trees, GROUP)
    ] + [HierarchyNode(feature) for feature in range(GROUP * n_trees, n)]
    probabilities = torch.full((n,), rate, dtype=torch.float64)
    probabilities[[each.feature_index for each in roots]] = min(MOST_OFTEN, root)
    return make_tree_world(
        roots, probabilities, directions, magnitude_mean=magnitude, magnitude_std=0.15 * magnitude
    )
