"""Drawn worlds are what their description says, and worlds with noise."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from sae_lens import StandardTrainingSAEConfig

from saebook.training import TrainingOptions, train_population
from saebook.worlds import (
    DrawnWorld,
    draw_world,
    make_independent_world,
    make_orthonormal_directions,
    make_parent_child_world,
)


@functools.cache
def drawn_worlds() -> list[DrawnWorld]:
    """Sixty worlds, drawn once a process, when a test asks for them."""
    return [draw_world(seed) for seed in range(60)]


def test_sizes_and_l0s_are_within_their_bounds():
    for drawn in drawn_worlds():
        world = drawn.world
        assert isinstance(drawn, DrawnWorld)
        assert 16 <= world.d_in <= 40
        assert 0.45 <= drawn.features_per_dimension <= 2.05
        assert 0.55 <= drawn.d_sae / world.n_features <= 2.05
        assert 0 <= world.noise_std <= 0.1
        assert 1.2 <= world.true_l0 <= 12.1
        assert 0 < drawn.l0_in_reach <= world.true_l0 * (1 + 1e-6)
        assert float(world.firing_probabilities.max()) <= 0.6 + 1e-9


def test_every_kind_is_drawn_and_l0s_are_not_whole():
    assert {drawn.correlation for drawn in drawn_worlds()} == {
        "none",
        "copula",
        "groups",
        "hierarchy",
    }
    assert {drawn.spread for drawn in drawn_worlds()} == {1.0, 3.0}
    assert {drawn.world.noise_std > 0 for drawn in drawn_worlds()} == {True, False}
    assert {drawn.features_per_dimension > 1 for drawn in drawn_worlds()} == {True, False}
    assert all(abs(drawn.world.true_l0 % 1 - 0.5) < 0.5 for drawn in drawn_worlds())


def test_equal_generators_draw_equal_worlds_and_others_do_not():
    first, again, other = (draw_world(seed).world.sample(5, 0) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize("index", range(8))
def test_as_many_features_fire_as_the_description_says(index):
    drawn = drawn_worlds()[index]
    fires = (drawn.world.sample_feature_acts(20_000, 1) > 0).double()
    assert fires.sum(1).mean().item() == pytest.approx(drawn.world.true_l0, rel=0.05)
    if drawn.d_sae >= drawn.world.n_features:
        assert drawn.l0_in_reach == pytest.approx(drawn.world.true_l0, rel=1e-3)


def test_magnitudes_are_spread_by_no_more_than_was_drawn():
    for drawn in drawn_worlds():
        mean = drawn.world.magnitude_mean
        assert 1 <= float(mean.max() / mean.min()) <= drawn.spread + 1e-4


def firing_correlation(world) -> torch.Tensor:
    return torch.corrcoef((world.sample_feature_acts(20_000, 2) > 0).double().T)


def test_groups_fire_together_and_others_do_not():
    world = next(drawn.world for drawn in drawn_worlds() if drawn.correlation == "groups")
    found = firing_correlation(world)
    assert float(found[0, 1:4].min()) > 0.1
    assert float(found[0, 4:].abs().max()) < 0.06


def test_children_fire_only_with_their_parent():
    world = next(drawn.world for drawn in drawn_worlds() if drawn.correlation == "hierarchy")
    fires = world.sample_feature_acts(5000, 3) > 0
    assert bool(fires[:, 1:4].any())
    assert not bool((fires[:, 1:4] & ~fires[:, :1]).any())


def plain_world():
    directions = make_orthonormal_directions(3, 5, generator=torch.Generator().manual_seed(0))
    return make_independent_world(torch.tensor([0.5, 0.2, 0.1]), directions)


def test_noise_is_added_to_each_dimension_and_leaves_the_features_alone():
    world = plain_world()
    noisy = dataclasses.replace(world, noise_std=0.3)
    x, acts = noisy.sample_with_feature_acts(20_000, 4)
    clean, same = world.sample_with_feature_acts(20_000, 4)
    assert torch.equal(acts, same)
    assert (x - clean).std(0).tolist() == pytest.approx([0.3] * 5, rel=0.05)
    assert (x - clean).mean(0).tolist() == pytest.approx([0.0] * 5, abs=0.01)


def test_noise_survives_a_move_to_another_type():
    noisy = dataclasses.replace(plain_world(), noise_std=0.3).to(dtype=torch.float64)
    assert noisy.noise_std == 0.3
    assert noisy.sample(4, 0).dtype == torch.float64


@pytest.mark.usefixtures("unchecked")
def test_noise_must_not_be_negative():
    with pytest.raises(ValueError, match=r"noise_std must be in \[0, inf\], got -1"):
        dataclasses.replace(plain_world(), noise_std=-1.0)


def test_exact_training_refuses_a_world_with_noise():
    world = make_parent_child_world(generator=torch.Generator().manual_seed(0), d_in=4)
    noisy = dataclasses.replace(world, noise_std=0.1)
    cfg = StandardTrainingSAEConfig(d_in=4, d_sae=2)
    with pytest.raises(ValueError, match=r"world must have no noise, got noise_std = 0\.1"):
        train_population([cfg], noisy, TrainingOptions(steps=1), seeds=1)
