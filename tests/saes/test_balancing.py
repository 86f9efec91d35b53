"""Balancing weights against stationarity, the book's formula for one child, and small penalties."""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate

import pytest
import torch
from sae_lens.synthetic import HierarchyNode, init_sae_to_match_feature_dict

from saebook import worlds
from saebook.saes import (
    Balance,
    BalancedMatryoshkaTrainingSAE,
    BalancedMatryoshkaTrainingSAEConfig,
    balancing_weight,
    compound_weights,
    per_prefix_weights,
)
from saebook.training import TrainingOptions, expected_loss, train_population


def exclusive_family(rate: float, n: int, parent: float) -> worlds.TreeWorld:
    root = HierarchyNode(0, [HierarchyNode(i + 1) for i in range(n)])
    root.mutually_exclusive_children = n > 1
    directions = worlds.make_orthonormal_directions(n + 1, 6, generator=0, dtype=torch.float64)
    rates = torch.tensor([parent] + [rate] * n, dtype=torch.float64)
    return worlds.make_tree_world([root], rates, directions)


def balanced_sae(balance: Balance, world, penalty: float, parent: float):
    """The stationary point of the theorem, written out in feature coordinates."""
    n, directions = world.n_features - 1, world.directions
    s, c = math.sin(balance.angle), math.cos(balance.angle)
    row = torch.tensor([c] + [s / math.sqrt(n)] * n, dtype=torch.float64)
    bias = parent / (1 - parent) * penalty / 2 * row
    activation = c - penalty / 2 - float(bias @ row)
    children = torch.eye(n + 1, dtype=torch.float64)[1:]
    children[:, 0] = 1
    left = children - (c - penalty / 2) * row
    rho = left.norm(dim=1, keepdim=True)
    cfg = BalancedMatryoshkaTrainingSAEConfig(
        d_in=6,
        d_sae=n + 1,
        matryoshka_widths=[1, n + 1],
        inner_loss_multipliers=balance.beta,
        l1_coefficient=penalty,
        dtype="float64",
    )
    sae = BalancedMatryoshkaTrainingSAE(cfg)
    sae.W_dec.data = torch.cat([row[None], left / rho]) @ directions
    wanted = torch.cat([torch.tensor([[activation]]), rho - penalty / 2]).flatten()
    # Each latent reads its own feature; a margin keeps it off the kink where the feature is absent.
    sae.W_enc.data = (directions * (wanted + 1)[:, None]).T.contiguous()
    sae.b_dec.data = bias @ directions
    sae.b_enc.data = sae.b_dec @ sae.W_enc - 1
    return sae


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("rate", "penalty"), [(0.05, 0.003), (0.15, 0.03), (0.3, 0.01)])
@pytest.mark.parametrize("parent", [0.1, 0.6])
def test_the_weight_makes_the_balanced_sae_stationary(n, rate, penalty, parent):
    world = exclusive_family(rate, n, parent)
    balance = balancing_weight(rate, penalty, n)
    sae = balanced_sae(balance, world, penalty, parent)
    assert expected_loss([sae], world).gradient_norm.item() < 1e-7
    sae.cfg.inner_loss_multipliers = 1.05 * balance.beta
    assert expected_loss([sae], world).gradient_norm.item() > 1e-5


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_weight_for_a_small_penalty(n):
    found = balancing_weight(0.1, 1e-7, n)
    assert found.beta == pytest.approx(math.sqrt(1e-7 * (1 - n * 0.1) / 0.2), rel=2e-3)
    assert found.angle == pytest.approx(math.sqrt(0.5e-7 * n * 0.1 / (1 - n * 0.1)), rel=2e-3)


def test_frequent_children_need_less_and_a_larger_penalty_more():
    rates = [balancing_weight(q, 0.03).beta for q in (0.02, 0.1, 0.5)]
    assert rates == sorted(rates, reverse=True)
    assert balancing_weight(0.1, 0.1).beta > balancing_weight(0.1, 0.03).beta


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.03), "child_rate must lie between 0 and 1/n_children = 1, got 0.0"),
        ((0.5, 0.03, 2), "child_rate must lie between 0 and 1/n_children = 0.5, got 0.5"),
        ((0.2, 0.0), "l1_coefficient"),
        ((0.2, 0.03, 0), "n_children"),
    ],
)
def test_settings_without_a_weight_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        balancing_weight(*arguments)


@pytest.mark.parametrize("rates", [[0.5, 0.15, 0.02], [0.3, 0.1, 0.03, 0.01], [0.4, 0.2]])
def test_per_prefix_weights_leave_no_gap_where_children_exclude_each_other(rates):
    n, penalty = len(rates), 0.03
    root = HierarchyNode(0, [HierarchyNode(i + 1) for i in range(n)])
    root.mutually_exclusive_children = True
    world = worlds.make_tree_world(
        [root],
        torch.tensor([0.25, *rates], dtype=torch.float64),
        worlds.make_orthonormal_directions(n + 1, n + 1, generator=0, dtype=torch.float64),
    )
    cfg = BalancedMatryoshkaTrainingSAEConfig(
        d_in=n + 1,
        d_sae=n + 1,
        matryoshka_widths=list(range(1, n + 2)),
        inner_loss_multipliers=per_prefix_weights(rates, penalty),
        l1_coefficient=penalty,
    )
    at_truth = partial(
        init_sae_to_match_feature_dict, feature_dict=world.feature_dict, noise_level=0.0
    )
    (sae,) = train_population([cfg], world, TrainingOptions(steps=20_000), init=at_truth)
    parent, *children = world.directions
    alone, *both = (
        sae.encode(x[None])[0, 0].item() for x in (parent, *(parent + c for c in children))
    )
    assert both == pytest.approx([alone] * n, abs=1e-4)


def test_per_prefix_weights_of_one_child_are_its_balancing_weight():
    assert per_prefix_weights([0.15], 0.03) == pytest.approx([balancing_weight(0.15, 0.03).beta])


def largest_gap_of_independent_children(rates, weights, penalty):
    n = len(rates)
    world = worlds.make_family_world(
        generator=0, children=tuple(rates), d_in=n + 1, dtype=torch.float64
    )
    cfg = BalancedMatryoshkaTrainingSAEConfig(
        d_in=n + 1,
        d_sae=n + 1,
        matryoshka_widths=list(range(1, n + 2)),
        inner_loss_multipliers=weights,
        l1_coefficient=penalty,
    )
    at_truth = partial(
        init_sae_to_match_feature_dict, feature_dict=world.feature_dict, noise_level=0.0
    )
    options = TrainingOptions(steps=12_000, lr=3e-3)
    (sae,) = train_population([cfg], world, options, init=at_truth)
    parent, *children = world.directions
    answers = sae.encode(torch.stack([parent, *(parent + child for child in children)]))[:, 0]
    return (1 - answers[1:] / answers[0]).abs().max().item()


@pytest.mark.parametrize("rates", [[0.5, 0.15, 0.02], [0.4, 0.2]])
@pytest.mark.parametrize("penalty", [0.003, 0.01])
def test_weights_for_independent_children_leave_gaps_below_the_penalty(rates, penalty):
    own = per_prefix_weights(rates, penalty, exclusive=False)
    others = per_prefix_weights(rates, penalty)
    left = largest_gap_of_independent_children(rates, own, penalty)
    assert left < penalty / 2
    assert largest_gap_of_independent_children(rates, others, penalty) > 2 * left


def test_weights_for_independent_children_solve_their_equations_for_a_small_penalty():
    rates, penalty = [0.5, 0.15, 0.02], 1e-8
    left_out = list(accumulate(per_prefix_weights(rates, penalty, exclusive=False)))
    odds = [q / (1 - q) for q in rates]
    for j in range(3):
        lean = [
            odds[i]
            * (
                left_out[i]
                + sum(odds[k] * min(left_out[i], left_out[k]) for k in range(3) if k != i)
            )
            for i in range(3)
        ]
        others = sum(rates[i] * min(left_out[i], left_out[j]) * lean[i] for i in range(3) if i != j)
        assert left_out[j] * lean[j] + others == pytest.approx(penalty / 2, rel=2e-3)


@pytest.mark.parametrize("wrong", [[], [0.1, 0.2], [0.2, 0.2], [0.6, 0.5], [0.2, 0.0]])
def test_per_prefix_weights_need_rates_that_fall(wrong):
    with pytest.raises(ValueError, match="child_rates must"):
        per_prefix_weights(wrong, 0.03)


def test_compound_weights_grow_outwards():
    assert compound_weights(0.5, 3) == [0.125, 0.25, 0.5]
    with pytest.raises(ValueError, match="n_inner"):
        compound_weights(0.5, 0)
