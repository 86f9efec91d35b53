import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens.synthetic import HierarchyNode, hierarchy_modifier
from scipy.stats import norm

from saebook.worlds import (
    TreeWorld,
    make_family_world,
    make_finite_world,
    make_forest_world,
    make_independent_world,
    make_parent_child_world,
    make_tree_world,
)

F64 = torch.float64
Node = HierarchyNode


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tree_world(roots, probabilities, n_features=None, **settings) -> TreeWorld:
    p = torch.tensor(probabilities, dtype=F64)
    size = len(p) if n_features is None else n_features
    return make_tree_world(roots, p, torch.eye(size, max(size, 3)), **settings)


def law(world) -> dict[tuple[float, ...], float]:
    acts, p = world.support()
    return dict(zip(map(tuple, acts.tolist()), p.tolist(), strict=True))


def assert_same_law(world, other):
    ours, theirs = law(world), law(other) if not isinstance(other, dict) else other
    assert set(ours) == set(theirs)
    assert ours == pytest.approx(theirs, abs=1e-15, rel=1e-9)


def mixed_world(**settings) -> TreeWorld:
    """Two roots; exclusive children, one of them with a child; nodes 5 and 6 not read out."""
    exclusive = Node(0, [Node(1), Node(2, [Node(3)]), Node(6)], mutually_exclusive_children=True)
    roots = [exclusive, Node(5, [Node(None, [Node(4)])])]
    return tree_world(roots, [0.6, 0.3, 0.4, 0.5, 0.7, 0.8, 0.2], n_features=5, **settings)


def brute_force(roots, p, n_features, magnitude=1.0):
    """The law by going through every set of nodes, however improbable."""
    nodes = []  # (node, parent, exclusive family or None)

    def walk(node, parent):
        nodes.append((node, parent))
        for child in node.children:
            walk(child, node)

    for root in roots:
        walk(root, None)
    result = {}
    for on in itertools.product([False, True], repeat=len(nodes)):
        fires = {id(node): fired for (node, _), fired in zip(nodes, on, strict=True)}
        chance = 1.0
        for node, parent in nodes:
            if parent is not None and not fires[id(parent)]:
                chance *= not fires[id(node)]
            elif node.feature_index is None:
                chance *= fires[id(node)]
            elif parent is None or not parent.mutually_exclusive_children:
                rate = p[node.feature_index]
                chance *= rate if fires[id(node)] else 1 - rate
        for node, _ in nodes:
            if node.mutually_exclusive_children and fires[id(node)]:
                chosen = [c.feature_index for c in node.children if fires[id(c)]]
                rest = 1 - sum(p[c.feature_index] for c in node.children)
                chance *= {0: rest, 1: p[chosen[0]] if chosen else 0}.get(len(chosen), 0)
        row = [0.0] * n_features
        for node, _ in nodes:
            if node.feature_index is not None and node.feature_index < n_features:
                row[node.feature_index] = magnitude * fires[id(node)]
        if chance > 1e-12:
            result[tuple(row)] = result.get(tuple(row), 0.0) + chance
    return result


@st.composite
def forests(draw):
    """Up to six nodes hung below each other at random, exclusively or not, with their rates."""
    n_nodes = draw(st.integers(1, 6))
    order = draw(st.permutations(range(n_nodes)))
    nodes = [Node(index) for index in order]
    roots = []
    for rank, node in enumerate(nodes):
        parent = draw(st.integers(-1, rank - 1))
        if parent < 0:
            roots.append(node)
        elif draw(st.integers(0, 4)) == 0:
            nodes[parent].children = [*nodes[parent].children, Node(None, [node])]
        else:
            nodes[parent].children = [*nodes[parent].children, node]
    p = [draw(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 1.0])) for _ in range(n_nodes)]
    for node in nodes:
        indices = [child.feature_index for child in node.children]
        if len(indices) > 1 and None not in indices and sum(p[i] for i in indices) <= 1:
            node.mutually_exclusive_children = draw(st.booleans())
    return roots, p, draw(st.integers(1, n_nodes))


# Support and marginals


@given(forests())
def test_the_support_is_what_going_through_all_sets_of_nodes_gives(forest):
    roots, p, n_features = forest
    world = tree_world(roots, p, n_features)
    assert_same_law(world, brute_force(roots, p, n_features))


@given(forests())
def test_the_marginals_and_true_l0_are_those_of_the_support(forest):
    roots, p, n_features = forest
    world = tree_world(roots, p, n_features)
    acts, probabilities = world.support()
    torch.testing.assert_close(world.firing_probabilities, probabilities @ acts)
    assert world.true_l0 == pytest.approx((probabilities @ acts).sum().item())
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    assert len(acts.unique(dim=0)) == len(acts)
    assert (probabilities > 0).all()


@given(forests())
def test_the_states_are_counted_before_they_are_listed(forest):
    roots, p, n_features = forest
    world = tree_world(roots, p, n_features)
    assert world._forest.n_states(n_features) == len(world.support()[1])


def test_the_marginal_of_a_node_is_the_product_of_the_rates_above_it():
    world = mixed_world()
    assert world.firing_probabilities.tolist() == pytest.approx(
        [0.6, 0.6 * 0.3, 0.6 * 0.4, 0.6 * 0.4 * 0.5, 0.8 * 0.7]
    )
    assert world.true_l0 == pytest.approx(0.6 * (1 + 0.3 + 0.4 + 0.2) + 0.56)


def test_a_tree_of_two_nodes_is_the_parent_and_child_of_the_finite_worlds():
    family = make_family_world(generator=generator(), children=[0.2])
    pair = make_parent_child_world(generator=generator())
    assert_same_law(family, pair)
    assert torch.equal(family.directions, pair.directions)


def test_roots_without_children_are_independent_features():
    p = [0.3, 0.6, 0.2]
    independent = make_independent_world(torch.tensor(p, dtype=F64), torch.eye(3))
    assert_same_law(tree_world([Node(2), Node(0), Node(1)], p), independent)


def test_the_support_of_constant_magnitudes_holds_them_and_merges_those_clipped_to_zero():
    p, roots = [0.5, 0.4, 0.3], [Node(0, [Node(1), Node(2)])]
    world = tree_world(roots, p, magnitude_mean=torch.tensor([2.0, -1.0, 0.5]))
    expected = {(0, 0, 0): 0.5, (2, 0, 0): 0.5 * 0.7, (2, 0, 0.5): 0.5 * 0.3}
    assert_same_law(world, expected)
    assert world.true_l0 == pytest.approx(0.5 + 0.15)


def test_more_states_than_can_be_listed_are_refused_at_once():
    roots = [Node(i) for i in range(16)]
    assert len(tree_world(roots, [0.5] * 16).support()[1]) == 65_536
    with pytest.raises(ValueError, match=r"support must have at most 65,536 states, got 131,072"):
        tree_world([*roots, Node(16)], [0.5] * 17).support()
    huge = make_forest_world(generator=generator(), magnitude_std=0.0)
    n_states = math.prod([1 + (1 + 2**3) ** 4] * 4)
    with pytest.raises(ValueError, match=f"got {n_states:,}"):
        huge.support()


def test_what_lies_below_a_node_that_never_fires_is_not_listed():
    leaves = [Node(i) for i in range(2, 42)]  # these alone have 2 ** 40 states
    world = tree_world([Node(0, [Node(1, leaves)])], [0.0, 0.5] + 40 * [0.5])
    assert law(world) == {(0.0,) * 42: 1.0}


def test_varying_magnitudes_have_no_finite_support():
    with pytest.raises(ValueError, match=r"magnitude_std must be 0 .* got 0\.2 \(continuous"):
        mixed_world(magnitude_std=0.2).support()


# Sampling


def test_states_are_drawn_as_often_as_the_support_says():
    world = mixed_world()
    acts = world.sample_feature_acts(100_000, generator())
    seen, counts = acts.double().unique(dim=0, return_counts=True)
    states = law(world)
    assert set(map(tuple, seen.tolist())) <= set(states)
    drawn = dict(zip(map(tuple, seen.tolist()), counts.tolist(), strict=True))
    for state, p in states.items():
        standard_error = math.sqrt(p * (1 - p) / len(acts))
        assert abs(drawn.get(state, 0) / len(acts) - p) < 4.5 * standard_error


def test_a_tree_without_exclusive_children_fires_as_under_sae_lens_hierarchy_modifier():
    p = [0.6, 0.5, 0.4, 0.7, 0.3, 0.5, 0.8]
    roots = [Node(0, [Node(1, [Node(3), Node(4)]), Node(2)]), Node(5, [Node(None, [Node(6)])])]
    world, n = tree_world(roots, p), 100_000
    independent = (torch.rand((n, 7), generator=generator(1)) < torch.tensor(p)).float()
    theirs = hierarchy_modifier(roots)(independent).double()
    ours = world.sample_feature_acts(n, generator()).double()
    weights = 2.0 ** torch.arange(7, dtype=F64)
    shares = [torch.bincount((a @ weights).long(), minlength=128) / n for a in (ours, theirs)]
    standard_error = (sum(shares) / n).sqrt().clamp(min=1 / n)
    assert ((shares[0] - shares[1]).abs() / standard_error).max() < 4.5
    assert len(shares[0].nonzero()) > 30


def test_exclusive_children_never_fire_together_and_keep_their_rates():
    roots = [Node(0, [Node(1), Node(2), Node(3)], mutually_exclusive_children=True)]
    world, n = tree_world(roots, [0.5, 0.2, 0.3, 0.4]), 50_000
    fires = world.sample_feature_acts(n, generator()) > 0
    assert fires[:, 1:].sum(1).max() == 1
    given_parent = fires[fires[:, 0], 1:].double()
    for share, p in zip(given_parent.mean(0).tolist(), [0.2, 0.3, 0.4], strict=True):
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(given_parent))
    assert not fires[~fires[:, 0]].any()


def test_sae_lens_lowers_the_rates_of_exclusive_children_where_a_tree_world_keeps_them():
    roots = [Node(0, [Node(1), Node(2)], mutually_exclusive_children=True)]
    n, p = 50_000, 0.5
    acts = (torch.rand((n, 3), generator=generator()) < torch.tensor([1.0, p, p])).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = hierarchy_modifier(roots)(acts).double().mean(0)[1].item()
    lowered = p * (1 - p) + p * p / 2
    assert abs(theirs - lowered) < 4 * math.sqrt(lowered * (1 - lowered) / n)
    assert tree_world(roots, [1.0, p, p]).firing_probabilities.tolist() == [1.0, p, p]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_exclusive_children_whose_rates_sum_to_one_leave_no_rest(dtype):
    roots = [Node(None, [Node(i) for i in range(3)], mutually_exclusive_children=True)]
    p = torch.full((3,), 1 / 3, dtype=dtype)  # in float32 these sum to 1.00000003
    world = make_tree_world(roots, p, torch.eye(3))
    assert_same_law(world, {(1, 0, 0): 1 / 3, (0, 1, 0): 1 / 3, (0, 0, 1): 1 / 3})
    assert world._forest.n_states(3) == 3
    assert (world.sample_feature_acts(10_000, generator()).sum(1) == 1).all()


def test_the_same_seed_draws_the_same_whatever_the_spread_of_magnitudes():
    world = mixed_world()
    x, acts = world.sample_with_feature_acts(100, generator(3))
    assert torch.equal(world.sample(100, generator(3)), x)
    assert not torch.equal(world.sample(100, generator(4)), x)
    torch.testing.assert_close(x, acts @ world.directions)
    spread = mixed_world(magnitude_std=0.1).sample_feature_acts(100, generator(3))
    assert torch.equal(spread > 0, acts > 0)


def test_magnitudes_are_normal_and_clipped_at_zero():
    mean, std = torch.tensor([1.0, 0.3]), torch.tensor([0.15, 0.6])
    world = tree_world([Node(0, [Node(1)])], [0.8, 0.9], magnitude_mean=mean, magnitude_std=std)
    acts = world.sample_feature_acts(100_000, generator()).double()
    first = acts[acts[:, 0] > 0, 0]
    assert abs(first.mean() - 1) < 4 * 0.15 / math.sqrt(len(first))
    assert abs(first.std() - 0.15) < 4 * 0.15 / math.sqrt(2 * len(first))
    expected = 0.8 + 0.72 * norm.cdf(0.5)
    assert world.true_l0 == pytest.approx(expected, rel=1e-6)
    counts = (acts > 0).double().sum(1)
    assert abs(counts.mean() - expected) < 4 * counts.std() / math.sqrt(len(counts))
    assert acts.min() == 0


def test_a_tree_world_moves_to_float64_with_the_same_law():
    world = mixed_world()
    double = world.to(dtype=F64)
    assert isinstance(double, TreeWorld)
    assert world.sample(2, generator()).dtype == torch.float32
    assert double.sample(2, generator()).dtype == F64
    assert_same_law(double, world)


def test_a_tree_world_does_not_change_with_the_nodes_it_was_made_from():
    root = Node(0, [Node(1)])
    world = tree_world([root], [0.5, 0.5])
    before = law(world)
    root.children = []
    assert law(world) == before
    assert law(world.to(dtype=F64)) == before


# Nodes that are not read out


def test_an_unread_leaf_changes_nothing_about_the_features():
    read = tree_world([Node(0, [Node(1), Node(2)])], [0.25, 0.15, 0.3])
    unread = tree_world([Node(0, [Node(1), Node(2), Node(3)])], [0.25, 0.15, 0.3, 0.55], 3)
    assert_same_law(unread, read)


def test_nor_does_an_unread_exclusive_leaf_which_only_takes_from_the_rest():
    def world(extra):
        p = [0.25, 0.15, 0.3, 0.55][: 3 + extra]
        children = [Node(i) for i in range(1, len(p))]
        return tree_world([Node(0, children, mutually_exclusive_children=True)], p, 3)

    assert_same_law(world(extra=1), world(extra=0))


def test_exclusion_by_an_unread_node_reaches_the_features_below_it():
    def world(exclusive):
        unread = Node(2, [Node(1)])
        top = Node(None, [Node(0), unread], mutually_exclusive_children=exclusive)
        return law(tree_world([top], [0.5, 0.6, 0.4], n_features=2))

    assert world(exclusive=True) == pytest.approx({(0, 0): 0.26, (1, 0): 0.5, (0, 1): 0.24})
    assert world(exclusive=False)[1, 1] == pytest.approx(0.5 * 0.24)


def test_under_sae_lens_an_unread_exclusive_sibling_lowers_the_rates_of_the_features():
    roots = [Node(0, [Node(1), Node(2)], mutually_exclusive_children=True)]
    acts = torch.ones(4000, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        share = hierarchy_modifier(roots)(acts)[:, 1].mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)  # though it was drawn to fire always


def test_an_organisational_node_fires_with_its_parent_and_may_hold_exclusive_children():
    group = Node(None, [Node(1), Node(2)], mutually_exclusive_children=True)
    world = tree_world([Node(0, [group, Node(3)])], [0.5, 0.3, 0.7, 1.0])
    assert_same_law(world, {(0, 0, 0, 0): 0.5, (1, 1, 0, 1): 0.15, (1, 0, 1, 1): 0.35})


def test_parents_and_depths_skip_what_is_not_read_out():
    world = mixed_world()
    assert world.parents.tolist() == [-1, 0, 0, 2, -1]
    assert world.depths.tolist() == [0, 1, 1, 2, 0]
    chain = tree_world([Node(0, [Node(2, [Node(None, [Node(1)])])])], [0.5] * 3, n_features=2)
    assert (chain.parents.tolist(), chain.depths.tolist()) == ([-1, 0], [0, 1])


# The families and forests of the chapter


def test_the_family_is_a_parent_and_three_children_with_nine_distinct_inputs():
    world = make_family_world(generator=generator())
    assert (world.n_features, world.d_in) == (4, 50)
    assert len(world.support()[1]) == 9
    assert world.firing_probabilities.tolist() == pytest.approx([0.25] + 3 * [0.25 * 0.15])
    assert world.parents.tolist() == [-1, 0, 0, 0]
    torch.testing.assert_close(world.directions @ world.directions.T, torch.eye(4))
    leveled = make_finite_world(*world.support(), world.directions).with_magnitude_levels(
        torch.tensor([0.9, 1.1]), torch.tensor([0.5, 0.5])
    )
    assert len(leveled.probabilities) == 1 + 2 * (1 + 2) ** 3


def test_a_family_may_have_children_of_different_rates_and_varying_magnitudes():
    world = make_family_world(
        generator=generator(), parent=0.5, children=(0.02, 0.5), magnitude_std=0.1, dtype=F64
    )
    assert world.firing_probabilities.tolist() == pytest.approx([0.5, 0.01, 0.25])
    assert world.sample(3, generator()).dtype == F64
    acts = world.sample_feature_acts(1000, generator())
    assert acts[acts > 0].std() > 0.08


def test_the_forest_has_three_levels_of_sixty_eight_features_and_a_true_l0_near_four():
    world = make_forest_world(generator=generator())
    assert (world.n_features, world.d_in) == (68, 100)
    assert torch.bincount(world.depths).tolist() == [4, 16, 48]
    assert torch.bincount(world.parents[4:]).tolist() == 4 * [4] + 16 * [3]
    assert world.true_l0 == pytest.approx(4 * 0.35 * (1 + 4 * 0.3 * (1 + 3 * 0.2)), rel=1e-6)
    torch.testing.assert_close(world.directions @ world.directions.T, torch.eye(68))
    counts = (world.sample_feature_acts(20_000, generator()) > 0).double().sum(1)
    assert abs(counts.mean() - world.true_l0) < 4 * counts.std() / math.sqrt(len(counts))


def test_siblings_of_the_forest_have_rates_spaced_evenly_between_the_bounds():
    p = make_forest_world(generator=generator()).probabilities
    assert p[:4].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5])
    for first in range(4, 20, 4):
        assert p[first : first + 4].tolist() == pytest.approx([0.2, 0.8 / 3, 1 / 3, 0.4])
    for first in range(20, 68, 3):
        assert p[first : first + 3].tolist() == pytest.approx([0.1, 0.2, 0.3])
    only = make_forest_world(generator=generator(), n_roots=1, branching=(), bounds=((0.2, 0.4),))
    assert only.probabilities.tolist() == pytest.approx([0.3])


# Errors name the argument, its value and what was expected

SCALED = Node(0, [Node(1)], scale_children_by_parent=True)
SHARED = Node(1)
BARE_EXCLUSIVE = Node(0, [Node(1), Node(None)], mutually_exclusive_children=True)
PAIR = Node(0, [Node(1)])


@pytest.mark.parametrize(
    ("roots", "message"),
    [
        ([Node(0)], r"probabilities must have shape \(1\), got \(2,\)"),
        ([Node(0, [Node(0)])], r"roots must hold each feature_index from 0 to 1.*\[1\].*\[0\] too"),
        ([Node(0), Node(0)], r"roots must hold each feature_index.* got \[1\] missing and \[0\]"),
        ([Node(0), Node(5)], r"roots must hold each feature_index.* got \[1\] missing and \[5\]"),
        ([Node(0), Node(-1)], r"feature_index must be at least 0, got -1"),
        ([], r"roots must hold each feature_index from 0 to 0 once.* got \[0\] missing and \[\]"),
        ([SHARED, Node(0, [SHARED])], r"roots must be a forest: .*multiple parents"),
        ([SCALED], r"scale_children_by_parent must be False.* got True at node 0"),
        ([BARE_EXCLUSIVE], r"exclusive children must each have a feature_index.*below node 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_tree_world_refuses_what_is_no_forest_of_its_features(roots, message):
    with pytest.raises(ValueError, match=message):
        tree_world(roots, [0.5, 0.5])


def test_a_loop_is_refused():
    root = Node(0, [Node(1)])
    root.children[0].children = [root]
    with pytest.raises(ValueError, match=r"roots must be a forest: Loop"):
        tree_world([root], [0.5, 0.5])


def test_exclusive_children_cannot_have_rates_that_sum_to_more_than_one():
    children = [Node(1), Node(2), Node(3)]
    roots = [Node(0, children, mutually_exclusive_children=True, feature_id="animal")]
    message = r"exclusive children of node 0 \(animal\) must sum to at most 1, got a sum of 1\.2"
    with pytest.raises(ValueError, match=message):
        tree_world(roots, [0.5, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"probabilities": [0.5, 1.5]},
            r"probabilities must be in \[0, 1\], got 1.5 at index \(1,",
        ),
        ({"probabilities": [-0.5, 0.5]}, r"probabilities must be in \[0, 1\], got -0.5 at"),
        ({"probabilities": [0.5, math.nan]}, r"probabilities must be in \[0, 1\], got nan at"),
        ({"n_features": 3}, r"directions must have at most 2 rows, one for each node, got 3"),
        ({"magnitude_std": -0.1}, r"magnitude_std.*\[0, inf\].*-0.1"),
        ({"magnitude_mean": math.nan}, r"magnitude_mean.*nan"),
    ],
)
def test_a_tree_world_refuses_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        tree_world(**({"roots": [PAIR], "probabilities": [0.5, 0.5]} | settings))


@pytest.mark.usefixtures("unchecked")
def test_a_tree_world_refuses_values_of_the_wrong_type():
    with pytest.raises(TypeError, match="roots must be Sequence"):
        tree_world(PAIR, [0.5, 0.5])
    with pytest.raises(TypeError, match=r"roots \(each of them\) must be HierarchyNode, got 3"):
        tree_world([3], [0.5])
    with pytest.raises(TypeError, match=r"feature_index must be an int, got 'a'"):
        tree_world([Node("a")], [0.5])
    with pytest.raises(TypeError, match="probabilities must be a torch.Tensor, got list"):
        make_tree_world([Node(0)], [0.5], torch.eye(1))
    with pytest.raises(ValueError, match=r"magnitude_std must have shape \(2\), got \(3,\)"):
        tree_world([PAIR], [0.5, 0.5], magnitude_std=torch.ones(3))
    with pytest.raises(TypeError, match="generator must be a torch.Generator"):
        mixed_world().sample(3, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parent": 1.5}, r"parent must be in \[0, 1\], got 1.5"),
        ({"children": (0.1, -0.2)}, r"children\[1\] must be in \[0, 1\], got -0.2"),
        ({"d_in": 3}, "n_features must be at most d_in = 3, got 4"),
    ],
)
def test_a_family_refuses_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_family_world(generator=generator(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_roots": 0}, "n_roots must be at least 1, got 0"),
        ({"branching": (4, 0)}, r"branching\[1\] must be at least 1, got 0"),
        ({"branching": (4,)}, "bounds must be 2 pairs, one a level, got 3"),
        ({"bounds": ((0.2, 0.5), (0.4, 0.2), (0, 1))}, r"bounds\[1\]\[1\] must be in \[0.4, 1\]"),
        ({"d_in": 50}, "n_features must be at most d_in = 50, got 68"),
    ],
)
def test_a_forest_refuses_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_forest_world(generator=generator(), **settings)
