"""Worlds: data with a known truth, feature directions times how the features fire."""

from saebook.worlds.base import (
    World,
)
from saebook.worlds.copula import (
    make_random_correlation,
)
from saebook.worlds.correlated import (
    CopulaWorld,
    make_correlated_world,
    make_fifty_feature_world,
    make_five_feature_world,
    make_independent_world,
)
from saebook.worlds.directions import (
    make_orthonormal_directions,
    make_superposed_directions,
)
from saebook.worlds.drawn import (
    DrawnWorld,
    draw_world,
)
from saebook.worlds.finite import (
    FiniteWorld,
    make_finite_world,
    make_parent_child_world,
)
from saebook.worlds.tree import (
    TreeWorld,
    make_family_world,
    make_forest_world,
    make_tree_world,
)

__all__ = [
    "CopulaWorld",
    "DrawnWorld",
    "FiniteWorld",
    "TreeWorld",
    "World",
    "draw_world",
    "make_correlated_world",
    "make_family_world",
    "make_fifty_feature_world",
    "make_finite_world",
    "make_five_feature_world",
    "make_forest_world",
    "make_independent_world",
    "make_orthonormal_directions",
    "make_parent_child_world",
    "make_random_correlation",
    "make_superposed_directions",
    "make_tree_world",
]
