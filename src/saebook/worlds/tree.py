"""Hierarchical toy worlds: a feature fires only where its parent in a tree does.

Sources: Chanin, Dulka & Garriga-Alonso, "Feature Hedging" (arXiv 2505.11756), whose toy models are
trees; the trees are written as `sae_lens.synthetic.HierarchyNode`s.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from sae_lens.synthetic import FeatureDictionary, HierarchyNode
from torch import Tensor

from saebook._checks import GeneratorLike, check_generator, check_in_range, check_positive_int
from saebook.worlds.base import (
    World,
    check_constant_magnitudes,
    check_magnitudes,
    check_n_states,
    make_feature_dictionary,
    merge_states,
    positive_share,
)
from saebook.worlds.directions import make_orthonormal_directions
from saebook.worlds.forest import Forest, read_forest


@dataclass(frozen=True, eq=False, kw_only=True)
class TreeWorld(World):
    """A world whose features are the nodes of trees, each firing only where its parent fires.

    Given that its parent fires, node i fires with `probabilities[i]`, independently of siblings;
    or, below a node with `mutually_exclusive_children`, one draw decides which child fires: child i
    with `probabilities[i]`, none with the rest. So each stated rate holds exactly. For exclusive
    children sae-lens' `hierarchy_modifier` instead draws them independently and lets a uniformly
    random one of those that fired survive, which lowers the rates; in the code of "Feature Hedging"
    always one of them fires.

    Node i < n_features is read out as feature i. Higher nodes fire and gate their own children, but
    add nothing to the input. A node with `feature_index=None` fires whenever its parent does.
    Magnitudes are as in `CopulaWorld`.

    Attributes:
        feature_dict: sae-lens' dictionary, whose `feature_vectors (n_features, d_in)` have norm 1.
        roots: the trees (copied), which hold each feature_index from 0 to n_nodes − 1 once.
        probabilities: each node's probability of firing given that its parent does, (n_nodes,).
        magnitude_mean: mean of the magnitudes before clipping at 0, (n_features,) or a number.
        magnitude_std: their standard deviation, likewise.
        firing_probabilities: the exact marginal P(feature i fires), (n_features,), in float64.
        parents: each feature's nearest ancestor that is read out, −1 if none, (n_features,).
        depths: the number of a feature's ancestors that are read out, (n_features,).

    Raises:
        TypeError: for roots that are not a sequence of HierarchyNodes.
        ValueError: for an index that is missing or repeated, more directions than nodes, exclusive
            children whose probabilities sum to more than 1 or that are organisational, a node with
            `scale_children_by_parent`, a wrong shape, or a value out of its range.
    """

    feature_dict: FeatureDictionary
    roots: Sequence[HierarchyNode]
    probabilities: Float[Tensor, " n_nodes"]
    magnitude_mean: Float[Tensor, " n_features"] | float = 1.0
    magnitude_std: Float[Tensor, " n_features"] | float = 0.0
    firing_probabilities: Float[Tensor, " n_features"] = field(init=False, repr=False)
    parents: Int[Tensor, " n_features"] = field(init=False, repr=False)
    depths: Int[Tensor, " n_features"] = field(init=False, repr=False)
    _forest: Forest = field(init=False, repr=False)
    _positions: Int[Tensor, " n_features"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        like, n_features = self.directions, self.n_features
        forest = read_forest(self.roots, self.probabilities, like.device)
        if n_features > len(self.probabilities):
            raise ValueError(
                f"directions must have at most {len(self.probabilities)} rows, one for each node, "
                f"got {n_features}"
            )
        mean, std = check_magnitudes(self.magnitude_mean, self.magnitude_std, like)
        positions = torch.tensor(forest.positions(n_features), device=like.device)
        marginals = torch.tensor(forest.marginals(), dtype=torch.float64, device=like.device)
        parents, depths = forest.read_out_parents(n_features)
        self._set(
            roots=copy.deepcopy(tuple(self.roots)),
            probabilities=self.probabilities.to(like.device),
            magnitude_mean=mean,
            magnitude_std=std,
            firing_probabilities=marginals[positions],
            parents=torch.tensor(parents, device=like.device),
            depths=torch.tensor(depths, device=like.device),
            _forest=forest,
            _positions=positions,
        )

    @property
    def true_l0(self) -> float:
        """The exact expected number of nonzero features per input, Σ p_i Φ(mean_i / std_i)."""
        survives = positive_share(self.magnitude_mean, self.magnitude_std)
        return float((self.firing_probabilities * survives).sum())

    def support(self) -> tuple[Float[Tensor, "n_states n_features"], Float[Tensor, " n_states"]]:
        """All activations that occur, (n_states, n_features), and their probabilities, in float64.

        Rows are distinct and sorted, each has a probability above 0, and these sum to 1.

        Raises:
            ValueError: if magnitudes vary, or if there are more than 65,536 states.
        """
        check_constant_magnitudes(self.magnitude_std)
        check_n_states("the support", self._forest.n_states(self.n_features))
        law, like = self._forest.states(self.n_features), self.firing_probabilities
        fires = torch.tensor([[bits >> i & 1 for i in range(self.n_features)] for bits in law])
        mean = torch.as_tensor(self.magnitude_mean).to(like)
        return merge_states(fires.to(like) * mean.relu(), like.new_tensor(list(law.values())))

    def sample_feature_acts(
        self, n: int, generator: GeneratorLike
    ) -> Float[Tensor, "{n} {self.n_features}"]:
        """Draw `n` rows of feature activations, (n, n_features), from `generator`."""
        check_positive_int("n", n)
        generator = check_generator("generator", generator)
        like = self.directions
        fires = self._forest.sample(n, generator)[:, self._positions]  # (n, n_features)
        noise = torch.randn(
            (n, self.n_features), generator=generator, device=like.device, dtype=like.dtype
        )
        return noise.mul_(self.magnitude_std).add_(self.magnitude_mean).relu_().mul_(fires)


def make_tree_world(
    roots: Sequence[HierarchyNode],
    probabilities: Float[Tensor, " n_nodes"],
    directions: Float[Tensor, "n_features d_in"],
    *,
    magnitude_mean: Float[Tensor, " n_features"] | float = 1.0,
    magnitude_std: Float[Tensor, " n_features"] | float = 0.0,
) -> TreeWorld:
    """The `TreeWorld` of these trees and directions (rows of norm 1); raises what it raises."""
    return TreeWorld(
        feature_dict=make_feature_dictionary(directions),
        roots=roots,
        probabilities=probabilities,
        magnitude_mean=magnitude_mean,
        magnitude_std=magnitude_std,
    )


def make_family_world(
    *,
    generator: GeneratorLike,
    parent: float = 0.25,
    children: Sequence[float] = (0.15, 0.15, 0.15),
    d_in: int = 50,
    dtype: torch.dtype = torch.float32,
    magnitude_std: float = 0.0,
) -> TreeWorld:
    """The world of a parent (feature 0) and its children, each with its rate given the parent.

    The defaults are the toy model with which "Feature Hedging" balances a Matryoshka SAE, without
    its fourth child, which is not read out and so has no effect. `generator` draws the orthonormal
    directions.

    Raises:
        ValueError: for probabilities outside [0, 1], or more features than d_in.
    """
    p = [check_in_range("parent", parent, 0, 1)]
    p += [check_in_range(f"children[{i}]", child, 0, 1) for i, child in enumerate(children)]
    leaves = [HierarchyNode(index) for index in range(1, len(p))]
    return make_tree_world(
        [HierarchyNode(0, leaves)],
        torch.tensor(p, dtype=torch.float64),
        make_orthonormal_directions(len(p), d_in, generator=generator, dtype=dtype),
        magnitude_std=magnitude_std,
    )


def make_forest_world(
    *,
    generator: GeneratorLike,
    n_roots: int = 4,
    branching: Sequence[int] = (4, 3),
    bounds: Sequence[tuple[float, float]] = ((0.2, 0.5), (0.2, 0.4), (0.1, 0.3)),
    d_in: int = 100,
    dtype: torch.dtype = torch.float32,
    magnitude_std: float = 0.15,
) -> TreeWorld:
    """A world of several trees with several levels: by default 68 features, of true L0 4.09.

    Each node of level l has `branching[l]` children, and the conditional probabilities of siblings
    of level l are spaced evenly over `bounds[l]`, ends included (the middle for an only child).
    Features are numbered level by level: 4 roots, then 16 children, then 48 grandchildren.
    Magnitudes are 1 ± `magnitude_std`. `generator` draws the orthonormal directions.

    Raises:
        ValueError: for sizes below 1, bounds that are not 0 ≤ low ≤ high ≤ 1 or not one pair for
            each level, or more features than d_in.
    """
    sizes = [check_positive_int("n_roots", n_roots)]
    sizes += [check_positive_int(f"branching[{i}]", size) for i, size in enumerate(branching)]
    if len(bounds) != len(sizes):
        raise ValueError(f"bounds must be {len(sizes)} pairs, one a level, got {len(bounds)}")
    top = HierarchyNode()
    level, p = [top], list[float]()
    for depth, size in enumerate(sizes):
        rates = _spaced(depth, bounds[depth], size)
        for node in level:
            node.children = [HierarchyNode(len(p) + rank) for rank in range(size)]
            p += rates
        level = [child for node in level for child in node.children]
    return make_tree_world(
        top.children,
        torch.tensor(p, dtype=torch.float64),
        make_orthonormal_directions(len(p), d_in, generator=generator, dtype=dtype),
        magnitude_std=magnitude_std,
    )


def _spaced(depth: int, bounds: tuple[float, float], size: int) -> list[float]:
    low = check_in_range(f"bounds[{depth}][0]", bounds[0], 0, 1)
    high = check_in_range(f"bounds[{depth}][1]", bounds[1], low, 1)
    if size == 1:
        return [(low + high) / 2]
    return [low + (high - low) * rank / (size - 1) for rank in range(size)]
