import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saebook import worlds
from saebook.worlds import FiniteWorld, World, make_finite_world, make_parent_child_world

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def three_state_world(**settings) -> FiniteWorld:
    defaults = {
        "feature_acts": torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.5]], dtype=F64),
        "probabilities": torch.tensor([0.5, 0.3, 0.2], dtype=F64),
        "directions": torch.eye(2, 3),
    }
    return make_finite_world(**(defaults | settings))


def law(world: World) -> dict[tuple[float, ...], float]:
    acts, p = world.support()
    return dict(zip(map(tuple, acts.tolist()), p.tolist(), strict=True))


# Support, rates and samples


def test_the_support_holds_the_listed_states():
    world = three_state_world()
    assert law(world) == pytest.approx({(0, 0): 0.5, (1, 0): 0.3, (2, 0.5): 0.2})
    assert {tensor.dtype for tensor in world.support()} == {F64}


def test_states_listed_twice_are_one_and_those_that_never_occur_are_none():
    world = three_state_world(
        feature_acts=torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
        probabilities=torch.tensor([0.25, 0.0, 0.75]),
    )
    assert law(world) == {(1, 0): 1.0}


def test_rates_and_true_l0_are_those_of_the_states():
    world = three_state_world()
    assert world.firing_probabilities.tolist() == pytest.approx([0.5, 0.2])
    assert world.true_l0 == pytest.approx(0.3 * 1 + 0.2 * 2)


def test_states_are_drawn_as_often_as_their_probabilities_say():
    world = three_state_world()
    acts = world.sample_feature_acts(100_000, generator())
    for state, p in law(world).items():
        share = (acts == torch.tensor(state)).all(dim=1).double().mean().item()
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(acts))


@pytest.mark.parametrize("certain", [0, 1, 2])
def test_states_of_probability_zero_are_never_drawn(certain):
    p = torch.zeros(3, dtype=F64)
    p[certain] = 1.0
    world = three_state_world(probabilities=p)
    acts = world.sample_feature_acts(1000, generator())
    assert torch.equal(acts.double(), world.feature_acts[certain].expand(1000, 2))


@pytest.mark.parametrize(("uniform", "state"), [(0.0, 1), (1 - 2.0**-53, 10)])
def test_the_least_and_the_greatest_uniform_number_draw_states_that_occur(
    monkeypatch, uniform, state
):
    p = torch.tensor([0.0] + 10 * [0.1] + [0.0], dtype=F64)  # in sequence these sum to 1 − 2⁻⁵³
    world = make_finite_world(torch.arange(12.0)[:, None], p, torch.eye(1))
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), uniform, dtype=F64))
    assert world.sample_feature_acts(1, generator()).item() == state


@given(weights=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), seed=st.integers())
def test_drawing_inverts_the_distribution_function(weights, seed):
    p = torch.tensor(weights, dtype=F64) / sum(weights)
    world = three_state_world(probabilities=p)
    draw = world.sample_feature_acts(1, generator(seed % 2**31))
    uniform = torch.rand(1, generator=generator(seed % 2**31), dtype=F64).item()
    state = next(s for s in range(3) if uniform < sum(weights[: s + 1]) / sum(weights))
    assert torch.equal(draw[0].double(), world.feature_acts[state])


def test_inputs_are_activations_times_directions_and_repeat_from_the_same_seed():
    world = make_parent_child_world(generator=generator())
    x, acts = world.sample_with_feature_acts(64, generator(1))
    torch.testing.assert_close(x, acts @ world.directions)
    assert torch.equal(world.sample(64, generator(1)), x)
    assert not torch.equal(world.sample(64, generator(2)), x)


def test_a_finite_world_moves_to_float64_with_the_same_law():
    world = three_state_world()
    double = world.to(dtype=F64)
    assert isinstance(double, FiniteWorld)
    assert world.sample(2, generator()).dtype == torch.float32
    assert double.sample(2, generator()).dtype == F64
    assert law(double) == law(world)


def test_probabilities_in_float32_are_freed_of_their_rounding():
    world = three_state_world(probabilities=torch.tensor([0.2, 0.3, 0.5]))
    assert world.probabilities.dtype == F64
    assert world.probabilities.sum().item() == pytest.approx(1, abs=1e-15)


def test_any_other_finite_world_can_be_listed():
    family = worlds.make_family_world(generator=generator())
    listed = make_finite_world(*family.support(), family.directions)
    assert law(listed) == pytest.approx(law(family))
    assert listed.true_l0 == pytest.approx(family.true_l0)


# Magnitude levels


def test_magnitude_levels_multiply_each_firing_feature_independently():
    levels, p = torch.tensor([0.5, 1.0, 2.0], dtype=F64), torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    expected = {(0.0, 0.0): 0.5}
    for l, q in zip(levels.tolist(), p.tolist(), strict=True):
        expected[l, 0.0] = 0.3 * q
    pairs = list(zip(levels.tolist(), p.tolist(), strict=True))
    for (l, q), (m, r) in itertools.product(pairs, pairs):
        expected[2 * l, 0.5 * m] = 0.2 * q * r
    leveled = three_state_world().with_magnitude_levels(levels, p)
    assert law(leveled) == pytest.approx(expected)
    assert leveled.true_l0 == pytest.approx(0.7)


def test_levels_that_make_states_agree_are_merged():
    world = three_state_world(feature_acts=torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    leveled = world.with_magnitude_levels(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]))
    assert law(leveled) == pytest.approx({(0, 0): 0.5, (1, 0): 0.15, (2, 0): 0.25, (4, 0): 0.1})


def test_a_level_of_zero_silences_a_feature():
    leveled = three_state_world().with_magnitude_levels(
        torch.tensor([0.0, 1.0]), torch.tensor([0.25, 0.75])
    )
    assert leveled.firing_probabilities.tolist() == pytest.approx([0.375, 0.15])


def test_a_single_level_of_one_changes_nothing():
    world = three_state_world()
    assert law(world.with_magnitude_levels(torch.ones(1), torch.ones(1))) == law(world)


def test_as_many_states_as_allowed_are_listed_and_no_more():
    acts, one, levels = torch.ones(1, 16), torch.ones(1), torch.tensor([1.0, 2.0])
    even = torch.tensor([0.5, 0.5])
    world = make_finite_world(acts, one, torch.eye(16))
    assert len(world.with_magnitude_levels(levels, even).probabilities) == 65_536
    world = make_finite_world(torch.ones(1, 17), one, torch.eye(17))
    with pytest.raises(
        ValueError, match=r"magnitude levels must have at most 65,536.* got 131,072"
    ):
        world.with_magnitude_levels(levels, even)


# Parent and child


@pytest.mark.parametrize(
    ("with_parent", "without"), [(0.2, 0.2), (0.2, 0.0), (0.2, 0.1), (0.1, 0.2)]
)
def test_a_child_fires_at_its_rates_with_and_without_its_parent(with_parent, without):
    world = make_parent_child_world(
        generator=generator(), child_given_parent=with_parent, child_otherwise=without
    )
    states = law(world)
    assert sum(states.values()) == pytest.approx(1)
    parent = states[1, 0] + states[1, 1]
    assert parent == pytest.approx(0.25)
    assert states[1, 1] / parent == pytest.approx(with_parent)
    assert states.get((0, 1), 0.0) / (1 - parent) == pytest.approx(without)
    assert world.firing_probabilities.tolist() == pytest.approx(
        [0.25, 0.25 * with_parent + 0.75 * without]
    )


def test_by_default_the_child_needs_its_parent_and_inputs_lie_in_fifty_dimensions():
    world = make_parent_child_world(generator=generator())
    assert set(law(world)) == {(0, 0), (1, 0), (1, 1)}
    assert world.directions.shape == (2, 50)
    torch.testing.assert_close(world.directions @ world.directions.T, torch.eye(2))
    same = make_parent_child_world(generator=generator())
    assert torch.equal(same.directions, world.directions)


# Errors name the argument, its value and what was expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probabilities": torch.tensor([0.5, 0.3, 0.3])}, r"probabilities must sum to 1.*1\.1"),
        (
            {"probabilities": torch.tensor([0.5, 0.3, 0.2 + 1e-8], dtype=F64)},
            r"probabilities must sum to 1, got a sum of 1\.00000001",
        ),
        (
            {"probabilities": torch.tensor([0.5, 0.7, -0.2])},
            r"probabilities must be in \[0, 1\].*-0",
        ),
        ({"probabilities": torch.tensor([0.5, math.nan, 0.5])}, r"probabilities.*got nan at"),
        (
            {"feature_acts": -torch.eye(3, 2)},
            r"feature_acts must be at least 0, got -1 at.*\(0, 0\)",
        ),
        ({"feature_acts": torch.full((3, 2), math.inf)}, r"feature_acts must be finite, got inf"),
        ({"directions": torch.ones(2, 3)}, r"directions must have rows of norm 1"),
    ],
)
def test_a_finite_world_refuses_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        three_state_world(**settings)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probabilities": torch.ones(2) / 2}, r"probabilities must have shape \(3\), got \(2,\)"),
        (
            {"feature_acts": torch.ones(3, 4)},
            r"feature_acts must have shape \(n, 2\), got \(3, 4\)",
        ),
        ({"feature_acts": torch.ones(0, 2)}, r"feature_acts must have at least one row"),
        ({"directions": torch.ones(2)}, r"directions must have shape \(n_features, d_in\)"),
    ],
)
def test_a_finite_world_refuses_wrong_shapes(settings, message):
    with pytest.raises(ValueError, match=message):
        three_state_world(**settings)


@pytest.mark.usefixtures("unchecked")
def test_a_finite_world_refuses_values_of_the_wrong_type():
    with pytest.raises(TypeError, match="feature_acts must be a torch.Tensor, got list"):
        three_state_world(feature_acts=[[0.0, 1.0]])
    with pytest.raises(TypeError, match="generator must be a torch.Generator"):
        three_state_world().sample(3, None)


@pytest.mark.parametrize(
    ("levels", "p", "message"),
    [
        ([-0.5, 1.0], [0.5, 0.5], r"levels must be at least 0, got -0.5 at index \(0, 0\)"),
        ([math.nan, 1.0], [0.5, 0.5], "levels must be finite, got nan"),
        ([0.5, 1.0], [0.5, 0.6], "probabilities must sum to 1, got a sum of 1.1"),
    ],
)
def test_magnitude_levels_refuse_values_out_of_range(levels, p, message):
    with pytest.raises(ValueError, match=message):
        three_state_world().with_magnitude_levels(torch.tensor(levels), torch.tensor(p))


@pytest.mark.usefixtures("unchecked")
def test_magnitude_levels_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"levels must have shape \(n_levels\), got \(2, 1\)"):
        three_state_world().with_magnitude_levels(torch.ones(2, 1), torch.ones(1))
    with pytest.raises(ValueError, match=r"probabilities must have shape \(2\), got \(1,\)"):
        three_state_world().with_magnitude_levels(torch.ones(2), torch.ones(1))


@pytest.mark.parametrize("name", ["parent", "child_given_parent", "child_otherwise"])
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_a_parent_and_child_refuse_rates_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {value}"):
        make_parent_child_world(generator=generator(), **{name: value})


def test_a_world_without_a_law_cannot_be_made():
    directions = worlds.make_orthonormal_directions(2, 3, generator=generator())
    feature_dict = make_finite_world(torch.ones(1, 2), torch.ones(1), directions).feature_dict
    with pytest.raises(TypeError, match="abstract"):
        World(feature_dict=feature_dict, firing_probabilities=torch.ones(2))
