"""The law by which the nodes of a forest fire: marginals, samples, and all states with their law.

Trees are written as `sae_lens.synthetic.HierarchyNode`s; `tree_worlds` gives them directions.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from sae_lens.synthetic import HierarchyNode
from torch import Tensor

from saebook._checks import (
    check_instance,
    check_non_negative_int,
    check_probabilities,
    check_shape,
)
from saebook.worlds.base import rounding_tolerance


class Node(NamedTuple):
    """A node, which fires if its parent does and its uniform number is in [low, high)."""

    feature: int  # its index; -1 for an organisational node
    parent: int  # its position in the list of nodes; -1 for a root
    low: float
    high: float
    uniform: int  # exclusive siblings share theirs
    exclusive: bool  # whether at most one of its children fires

    @property
    def width(self) -> float:
        """Its probability of firing given that its parent fires."""
        return self.high - self.low


class Forest:
    """The nodes of a checked forest, each after its parent, and the tensors that sampling needs."""

    def __init__(self, nodes: Sequence[Node], device: torch.device) -> None:
        self.nodes = tuple(nodes)
        self.children: list[list[int]] = [[] for _ in range(len(nodes) + 1)]  # last: of no node
        depths: list[int] = []
        for position, node in enumerate(nodes):
            self.children[node.parent].append(position)
            depths.append(depths[node.parent] + 1 if node.parent >= 0 else 0)
        self._bounds = torch.tensor(
            [[node.low for node in nodes], [node.high for node in nodes]],
            dtype=torch.float64,
            device=device,
        )
        self._uniforms = torch.tensor([node.uniform for node in nodes], device=device)
        parents = torch.tensor([node.parent for node in nodes], device=device)
        starts = [depths.index(depth) for depth in range(max(depths) + 1)]
        self._levels = [
            (slice(start, stop), parents[start:stop])
            for start, stop in pairwise([*starts[1:], len(nodes)])
        ]

    def positions(self, n_features: int) -> list[int]:
        """The position of each of the features 0 to n_features − 1 in the list of nodes."""
        position = {node.feature: position for position, node in enumerate(self.nodes)}
        return [position[feature] for feature in range(n_features)]

    def marginals(self) -> list[float]:
        """Each node's probability of firing."""
        result: list[float] = []
        for node in self.nodes:
            result.append(node.width * (result[node.parent] if node.parent >= 0 else 1.0))
        return result

    def read_out_parents(self, n_features: int) -> tuple[list[int], list[int]]:
        """Each feature's nearest ancestor that is read out, or −1, and how many of them it has."""
        nearest, counts = list[int](), list[int]()
        for node in self.nodes:
            index = self.nodes[node.parent].feature if node.parent >= 0 else -1
            above = (nearest[node.parent], counts[node.parent]) if node.parent >= 0 else (-1, 0)
            read_out = 0 <= index < n_features
            nearest.append(index if read_out else above[0])
            counts.append(above[1] + read_out)
        positions = self.positions(n_features)
        return [nearest[j] for j in positions], [counts[j] for j in positions]

    def sample(self, n: int, generator: torch.Generator) -> Bool[Tensor, "{n} n_nodes"]:
        """Draw `n` times which nodes fire, (n, n_nodes), from `generator`."""
        n_uniforms = self.nodes[-1].uniform + 1
        uniforms = torch.rand(
            (n, n_uniforms), generator=generator, device=self._bounds.device, dtype=torch.float64
        )[:, self._uniforms]  # (n, n_nodes)
        low, high = self._bounds
        fires = (uniforms >= low) & (uniforms < high)
        for level, parents in self._levels:
            fires[:, level] &= fires[:, parents]
        return fires

    def n_states(self, n_features: int) -> int:
        """The number of sets of features among 0 to n_features − 1 that can fire together."""
        given: dict[int, tuple[int, bool]] = {}  # non-empty sets if a node fires; is the empty one?
        for position in reversed(range(-1, len(self.nodes))):
            below = [(self.nodes[child].width, *given[child]) for child in self.children[position]]
            if position >= 0 and self.nodes[position].exclusive:
                empty = self._rest(position) > 0 or any(e for width, _, e in below if width > 0)
                filled = sum(count for width, count, _ in below if width > 0)
            else:
                options = [(c if w > 0 else 0, e or w < 1) for w, c, e in below]
                empty = all(e for _, e in options)
                filled = math.prod(count + e for count, e in options) - empty
            read_out = position >= 0 and 0 <= self.nodes[position].feature < n_features
            given[position] = (filled + empty, False) if read_out else (filled, empty)
        return sum(given[-1])

    def states(self, n_features: int) -> dict[int, float]:
        """The probability of each set of features that can fire together, feature i being bit i."""
        given: dict[int, dict[int, float]] = {}  # the law of the sets if a node fires
        marginals = [*self.marginals(), 1.0]
        for position in reversed(range(-1, len(self.nodes))):
            if marginals[position] == 0:  # what lies below is not counted by n_states either
                given[position] = {0: 1.0}
                continue
            exclusive = position >= 0 and self.nodes[position].exclusive
            law = {0: self._rest(position) if exclusive else 1.0}
            for child in self.children[position]:
                width, below = self.nodes[child].width, given.pop(child)
                if exclusive:
                    for bits, p in below.items():
                        law[bits] = law.get(bits, 0.0) + width * p
                else:
                    option = {bits: width * p for bits, p in below.items()}
                    option[0] = option.get(0, 0.0) + 1 - width
                    law = {a | b: p * q for a, p in law.items() for b, q in option.items() if q > 0}
            index = self.nodes[position].feature if position >= 0 else -1
            own = 1 << index if 0 <= index < n_features else 0
            given[position] = {bits | own: p for bits, p in law.items() if p > 0}
        return given[-1]

    def _rest(self, position: int) -> float:
        return 1 - self.nodes[self.children[position][-1]].high


def read_forest(
    roots: Sequence[HierarchyNode], probabilities: Float[Tensor, " n_nodes"], device: torch.device
) -> Forest:
    """The `Forest` of these trees, its nodes breadth-first; node i fires with `probabilities[i]`.

    Raises:
        TypeError: for roots that are no HierarchyNodes.
        ValueError: for what is no forest, an index that is missing or repeated, probabilities that
            are outside [0, 1] or, of exclusive siblings, sum to more than 1, and scaled children.
    """
    n_nodes = _check_trees(roots)
    p = check_probabilities(
        "probabilities", check_shape("probabilities", probabilities, (n_nodes,))
    )
    tolerance = rounding_tolerance(p)
    nodes: list[Node] = []
    families = deque([(-1, roots, False, "")])
    n_uniforms = 0
    while families:
        parent, siblings, exclusive, name = families.popleft()
        own = [1.0 if s.feature_index is None else p[s.feature_index].item() for s in siblings]
        bounds = _exclusive_bounds(own, tolerance, name) if exclusive else [(0.0, q) for q in own]
        for sibling, (low, high) in zip(siblings, bounds, strict=True):
            index = -1 if sibling.feature_index is None else sibling.feature_index
            only_one = bool(sibling.mutually_exclusive_children and sibling.children)
            families.append((len(nodes), sibling.children, only_one, _describe(sibling)))
            nodes.append(Node(index, parent, low, high, n_uniforms, only_one))
            n_uniforms += not exclusive
        n_uniforms += exclusive
    return Forest(nodes, device)


def _exclusive_bounds(
    probabilities: Sequence[float], tolerance: float, parent: str
) -> list[tuple[float, float]]:
    ends = list(accumulate(probabilities))
    total = ends[-1]
    if total > 1 + tolerance:
        raise ValueError(
            f"probabilities of the mutually exclusive children of {parent} must sum to at most 1, "
            f"got a sum of {total:.10g}"
        )
    if total >= 1 - tolerance:
        ends = [end / total for end in ends]  # no rest of rounding: exactly one child fires
    return list(pairwise([0.0, *ends]))


def _check_trees(roots: Sequence[HierarchyNode]) -> int:
    check_instance("roots", roots, Sequence)
    for root in roots:
        check_instance("roots (each of them)", root, HierarchyNode)
    try:
        HierarchyNode(children=roots).validate()
    except ValueError as error:
        raise ValueError(f"roots must be a forest: {error}") from error
    waiting, indices = deque(roots), Counter[int]()
    while waiting:
        node = waiting.popleft()
        _check_node(node)
        if node.feature_index is not None:
            indices[check_non_negative_int("feature_index", node.feature_index)] += 1
        waiting.extend(node.children)
    n_nodes = indices.total()
    wanted = Counter(range(max(n_nodes, 1)))
    if indices != wanted:
        missing, surplus = (sorted(c.elements()) for c in (wanted - indices, indices - wanted))
        raise ValueError(
            f"roots must hold each feature_index from 0 to {max(wanted)} once, one for each node, "
            f"got {missing} missing and {surplus} too many"
        )
    return n_nodes


def _check_node(node: HierarchyNode) -> None:
    if node.scale_children_by_parent:
        raise ValueError(
            f"scale_children_by_parent must be False (magnitudes are independent), "
            f"got True at {_describe(node)}"
        )
    if node.mutually_exclusive_children and any(c.feature_index is None for c in node.children):
        raise ValueError(
            "mutually exclusive children must each have a feature_index (an organisational node "
            f"always fires with its parent), got None below {_describe(node)}"
        )


def _describe(node: HierarchyNode) -> str:
    index, name = node.feature_index, node.feature_id
    own = "an organisational node" if index is None else f"node {index}"
    return f"{own} ({name})" if name else own
