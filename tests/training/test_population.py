"""Exact training on finite worlds against autograd, closed forms and sampled training."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from sae_lens.synthetic import init_sae_to_match_feature_dict

from calls import called
from saebook import worlds
from saebook.saes import (
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAEConfig,
)
from saebook.training import TrainingOptions, expected_loss, train_ensemble, train_population
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.stack import Stack
from saebook.training.engine.steps import gradients
from saebook.training.initial import fresh_saes
from saebook.training.stationarity import _distance_of_hull, state_batch
from saebook.worlds.support import support_inputs

SHAPE = {"d_in": 10, "d_sae": 4}


@pytest.fixture(scope="module")
def family():
    generator = torch.Generator().manual_seed(0)
    return worlds.make_family_world(generator=generator, d_in=10)


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    return worlds.make_parent_child_world(generator=generator, d_in=10)


def near_truth(world, noise=0.05):
    def init(sae):
        init_sae_to_match_feature_dict(sae, world.feature_dict, noise_level=noise)

    return init


CONFIGS = {
    "standard": StandardTrainingSAEConfig(l1_coefficient=0.05, **SHAPE),
    "topk": TopKTrainingSAEConfig(k=1, **SHAPE),
    "jumprelu": JumpReLUTrainingSAEConfig(l0_coefficient=0.05, jumprelu_bandwidth=0.5, **SHAPE),
    "matryoshka": BalancedMatryoshkaTrainingSAEConfig(
        l1_coefficient=0.05,
        matryoshka_widths=[1, 2, 4],
        inner_loss_multipliers=[math.inf, 0.5],
        **SHAPE,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_is_that_of_sae_lens_loss_averaged_over_the_states(name, family):
    cfg = replace(CONFIGS[name], dtype="float64")
    (sae,) = fresh_saes([cfg], [3], near_truth(family, 0.2))
    if hasattr(sae, "threshold"):
        sae.threshold.data = sae.threshold.data.double() + 0.3
    x, p = support_inputs(family, d_in=10)
    stack = Stack([sae], device=x.device, dead_feature_window=9)
    scratch = Scratch(x, 1, batch=len(x), cfg=cfg)
    gradients(stack, Batch(x, p[None, None] * len(x)), scratch, 0)
    found = sum(float(grad.square().sum()) for grad in stack.grads.values()) ** 0.5
    assert found > 0.01
    torch.testing.assert_close(
        expected_loss([sae], family).gradient_norm[0].item(), found, rtol=1e-8, atol=0
    )


def test_training_stops_at_a_gradient_norm_below_the_tolerance(family):
    cfgs = [
        BalancedMatryoshkaTrainingSAEConfig(
            l1_coefficient=0.03,
            matryoshka_widths=[1, 4],
            inner_loss_multipliers=beta,
            **SHAPE,
        )
        for beta in (0.0, 0.25, 1.0)
    ]
    saes = train_population(cfgs, family, init=near_truth(family, 0), tolerance=1e-7)
    found = expected_loss(saes, family)
    assert float(found.gradient_norm.max()) < 1e-7
    start = expected_loss(
        train_population(cfgs, family, init=near_truth(family, 0), tolerance=1e9), family
    )
    assert bool((found.loss < start.loss).all())
    assert saes[0].W_dec.dtype == torch.float64


def test_a_single_latent_without_penalty_does_what_the_closed_form_of_a_tied_latent_says(pair):
    # With encoder and decoder tied and no biases the best unit latent is the first eigenvector of
    # E[x xᵀ] = [[p, q], [q, q]] with p = P(parent), q = P(parent and child). The trained SAE has
    # biases as well, so it may only be better.
    q, p = 0.05, 0.25
    eigenvalues = torch.linalg.eigvalsh(torch.tensor([[p, q], [q, q]], dtype=torch.float64))
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1, l1_coefficient=0.0)
    saes = train_population([cfg], pair, init=near_truth(pair, 0.1), tie_weights=True)
    assert torch.equal(saes[0].W_enc, saes[0].W_dec.T)
    found = expected_loss(saes, pair, tie_weights=True)
    assert float(found.gradient_norm[0]) < 1e-6
    assert 0 < float(found.loss[0]) < p + q - float(eigenvalues[-1])


def test_sampled_training_agrees_within_its_standard_error(pair):
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1, l1_coefficient=1e-3)
    exact = train_population([cfg], pair, init=near_truth(pair, 0.1))[0]
    ratios = []
    for seed in range(5):
        sampled = train_ensemble(
            [cfg],
            pair.sample,
            TrainingOptions(steps=1000, lr=3e-3, lr_decay_steps=800),
            seeds=1,
            init=near_truth(pair, 0.1),
            generator=seed,
        )[0]
        ratios.append(child_ratio(sampled, pair))
    ratios = torch.tensor(ratios, dtype=torch.float64)
    standard_error = float(ratios.std()) / len(ratios) ** 0.5
    assert standard_error < 0.01
    assert abs(float(ratios.mean()) - child_ratio(exact, pair)) < 4 * standard_error


def child_ratio(sae, world):
    parent, child = (sae.W_dec.detach().double() @ world.directions.double().T)[0].tolist()
    return child / parent


def test_batchtopk_at_the_true_l0_mixes_no_siblings(family):
    # Child latents may carry a part of the parent: where a child fires the parent does too.
    cfg = BatchTopKTrainingSAEConfig(k=family.true_l0, **SHAPE)
    (sae,) = train_population([cfg], family, init=near_truth(family), tolerance=1e-4)
    components = sae.W_dec.detach() @ family.directions.double().T
    others = components[:, 1:] - torch.diag(components.diagonal())[:, 1:]
    assert float(others.abs().max()) < 1e-3
    assert float(components.diagonal().min()) > 0.5


def test_batchtopk_shares_its_budget_as_a_large_batch_of_samples_does(family):
    cfg = BalancedMatryoshkaBatchTopKTrainingSAEConfig(
        k=0.2, matryoshka_widths=[1, 4], dtype="float64", **SHAPE
    )
    (sae,) = fresh_saes([cfg], [0], near_truth(family, 0.1))
    x, p = support_inputs(family, d_in=10)
    stack = Stack([sae], device=x.device, dead_feature_window=9)
    scratch = Scratch(x, 1, batch=2 * len(x), cfg=cfg)
    gradients(stack, Batch(x.repeat(2, 1), p.repeat(2)[None, None] * len(x)), scratch, 0)

    copies = torch.tensor((p * 40_000).round().tolist(), dtype=torch.int64)
    large = x.repeat_interleave(copies, dim=0)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0))
    step_input = TrainStepInput(
        sae_in=large[order],
        coefficients={},
        dead_neuron_mask=None,
        n_training_steps=0,
        is_logging_step=False,
    )
    sae.training_forward_pass(step_input).loss.backward()
    for name in ("W_dec", "b_dec", "b_enc"):
        found, sampled = stack.grads[name][0], getattr(sae, name).grad.detach()
        assert float((found - sampled).norm() / sampled.norm()) < 0.02


@pytest.mark.parametrize(
    ("child_given_parent", "child_otherwise", "ratio", "bias"),
    [(0.2, 0.2, 0.0, 0.2), (0.2, 0.0, 0.251, -0.012), (0.2, 0.1, 0.227, 0.065)],
    ids=["independent", "hierarchical", "positively correlated"],
)
def test_a_single_latent_hedges_as_in_independent_trials(
    child_given_parent, child_otherwise, ratio, bias
):
    world = worlds.make_parent_child_world(
        generator=torch.Generator().manual_seed(0),
        child_given_parent=child_given_parent,
        child_otherwise=child_otherwise,
    )
    cfg = StandardTrainingSAEConfig(d_in=50, d_sae=1, l1_coefficient=1e-3)
    (sae,) = train_population([cfg], world, init=near_truth(world, 0.1))
    assert child_ratio(sae, world) == pytest.approx(ratio, abs=0.005)
    child = world.directions[1].double()
    assert float(sae.b_dec.detach() @ child) == pytest.approx(bias, abs=0.005)


# Encoder and decoder of the parent's latent on parent and child, scaled to norm 1, and the part of
# a child's decoder that is its own: independent trials with plain autograd.
BALANCE = {
    0.0: (0.781, -0.361, 1.0, 0.0),
    0.1: (0.990, -0.082, 0.999, 0.020),
    0.25: (1.0, 0.001, 0.997, 0.044),
    0.5: (0.996, 0.051, 0.992, 0.072),
    1.0: (0.987, 0.092, 0.984, 0.103),
    math.inf: (0.946, 0.187, 0.947, 0.185),
}


def test_the_weight_of_the_inner_loss_turns_absorption_into_hedging():
    world = worlds.make_family_world(generator=torch.Generator().manual_seed(0))
    cfgs = [
        BalancedMatryoshkaTrainingSAEConfig(
            d_in=50,
            d_sae=4,
            l1_coefficient=0.03,
            matryoshka_widths=[1, 4],
            inner_loss_multipliers=beta,
        )
        for beta in BALANCE
    ]
    saes = train_population(cfgs, world, init=near_truth(world, 0))
    for sae, expected in zip(saes, BALANCE.values(), strict=True):
        rows = torch.stack([sae.W_enc[:, 0], sae.W_dec[0]]).detach() @ world.directions.double().T
        rows = rows / rows.norm(dim=1, keepdim=True)
        assert rows[:, :2].flatten().tolist() == pytest.approx(expected, abs=0.005)
    child = saes[0].W_dec[1].detach()
    own = float(child @ world.directions[1].double() / child.norm())
    assert own == pytest.approx(0.90, abs=0.005)
    assert float(expected_loss(saes, world).gradient_norm.max()) < 1e-6


def test_worlds_that_differ_in_probabilities_train_side_by_side(family):
    cfg = StandardTrainingSAEConfig(l1_coefficient=0.05, **SHAPE)
    others = [
        worlds.make_family_world(
            generator=torch.Generator().manual_seed(0), d_in=10, children=children
        )
        for children in ([0.1, 0.2, 0.3], [0.4, 0.2, 0.1])
    ]
    start = near_truth(family)
    together = train_population([cfg] * 2, others, init=start)
    for sae, world in zip(together, others, strict=True):
        (alone,) = train_population([cfg], world, init=start)
        torch.testing.assert_close(sae.W_dec, alone.W_dec, rtol=0, atol=1e-4)
    assert not torch.allclose(together[0].W_dec, together[1].W_dec, atol=1e-2)
    both = expected_loss(together, others).loss
    assert both[1] == expected_loss([together[1]], others[1]).loss[0]


def test_at_a_kink_the_gradient_does_not_vanish_but_a_subgradient_does():
    # Rare, middling and frequent children: at this beta some pre-activations end at exactly 0.
    world = worlds.make_family_world(
        generator=torch.Generator().manual_seed(0), children=[0.02, 0.15, 0.5], d_in=4
    )
    cfg = BalancedMatryoshkaTrainingSAEConfig(
        d_in=4, d_sae=4, l1_coefficient=0.03, matryoshka_widths=[1, 4], inner_loss_multipliers=2.0
    )
    found = expected_loss(train_population([cfg], world, init=near_truth(world, 0)), world)
    assert float(found.gradient_norm[0]) > 1e-5
    assert float(found.subgradient_norm[0]) < 0.5 * float(found.gradient_norm[0])
    fresh = expected_loss(fresh_saes([replace(cfg, dtype="float64")], [0], None), world)
    assert float(fresh.subgradient_norm[0]) > 0.5 * float(fresh.gradient_norm[0]) > 0.01


def test_the_distance_of_a_hull_is_that_of_its_nearest_point():
    distance = _distance_of_hull(torch.tensor([[1.0, 1.0], [1.0, -1.0], [3.0, 0.0]]).numpy())
    assert distance == pytest.approx(1.0, abs=0.02)
    assert _distance_of_hull(torch.tensor([[1.0], [-3.0]]).numpy()) == pytest.approx(0, abs=1e-9)


def test_a_run_that_does_not_converge_says_so(pair):
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1)
    with pytest.warns(UserWarning, match="1 of 1 SAEs have a gradient norm above tolerance"):
        train_population([cfg], pair, TrainingOptions(steps=5, lr=3e-3))


@pytest.mark.parametrize(
    ("tolerance", "subgradient", "warns"),
    [(1e-6, 0.99e-4, False), (1e-6, 1.01e-4, True), (1e-2, 0.99e-2, False), (1e-2, 1.01e-2, True)],
)
def test_a_warning_is_due_above_the_tolerance_or_that_of_kinks(
    pair, monkeypatch, tolerance, subgradient, warns
):
    monkeypatch.setattr(
        "saebook.training.population.smallest_subgradients",
        lambda saes, *_, **__: torch.full((len(saes),), subgradient, dtype=torch.float64),
    )
    cfgs = [StandardTrainingSAEConfig(d_in=10, d_sae=1, l1_coefficient=c) for c in (0.1, 0.2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_population(cfgs, pair, TrainingOptions(steps=3, lr=3e-3), tolerance=tolerance)
    assert [str(each.message)[:12] for each in caught] == ["2 of 2 SAEs "] * warns


def test_an_sae_whose_gradient_vanishes_needs_no_subgradient(pair, monkeypatch):
    def nothing_of(saes, *_, **__):
        return torch.empty(0, dtype=torch.float64) if not saes else pytest.fail("was asked for")

    monkeypatch.setattr("saebook.training.population.smallest_subgradients", nothing_of)
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1)
    norm = expected_loss(fresh_saes([replace(cfg, dtype="float64")], [0], None), pair).gradient_norm
    train_population([cfg], pair, TrainingOptions(steps=3, lr=3e-3), tolerance=1.001 * norm.item())
    with pytest.raises(pytest.fail.Exception, match="was asked for"):
        train_population(
            [cfg], pair, TrainingOptions(steps=1, lr=1e-9), tolerance=0.999 * norm.item()
        )


def test_the_rate_stays_for_half_of_the_steps_and_falls_to_0_in_the_other(pair, monkeypatch):
    rates, step = [], Stack.adam_step
    monkeypatch.setattr(Stack, "adam_step", lambda self, lrs: (rates.extend(lrs), step(self, lrs)))
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1)
    train_population([cfg], pair, TrainingOptions(steps=8, lr=1e-3), tolerance=1e9)
    assert rates == []
    with pytest.warns(UserWarning, match="1 of 1"):
        train_population([cfg], pair, TrainingOptions(steps=8, lr=1e-3))
    assert rates == pytest.approx([1e-3] * 5 + [0.75e-3, 0.5e-3, 0.25e-3])


def test_the_expected_loss_is_that_of_a_loop_over_the_states(family):
    cfg = replace(CONFIGS["standard"], dtype="float64")
    (sae,) = fresh_saes([cfg], [3], near_truth(family, 0.2))
    W_enc, b_enc, W_dec, b_dec = (
        getattr(sae, name).detach() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    feature_acts, probabilities = family.support()
    expected = 0.0
    for state, p in zip(feature_acts, probabilities, strict=True):
        x = state.double() @ family.directions.double()
        acts = [max(0.0, float((x - b_dec) @ W_enc[:, j] + b_enc[j])) for j in range(4)]
        x_hat = b_dec + sum(a * W_dec[j] for j, a in enumerate(acts))
        penalty = sum(a * float(W_dec[j].norm()) for j, a in enumerate(acts))
        expected += float(p) * (float((x - x_hat).square().sum()) + 0.05 * penalty)
    assert expected_loss([sae], family).loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_budget_far_below_one_activation_a_sample_is_kept(family):
    # It is below the probability of every state, so one latent in a share of one state uses it up.
    cfg = BatchTopKTrainingSAEConfig(k=0.0005, dtype="float64", **SHAPE)
    (sae,) = fresh_saes([cfg], [0], near_truth(family, 0.1))
    x, p = support_inputs(family, d_in=10)
    stack = Stack([sae], device=x.device, dead_feature_window=9)
    scratch = Scratch(x, 1, batch=2 * len(x), cfg=cfg)
    batch = state_batch(x, p[None], gate=stack.gate)
    gradients(stack, batch, scratch, 0)
    acts = scratch.acts_of_all
    assert float(p.min()) > 0.0005
    assert int((acts > 0).sum()) == 1


def test_saes_of_one_config_world_and_start_need_seeds(pair):
    cfg, other = (StandardTrainingSAEConfig(d_in=10, d_sae=1, l1_coefficient=c) for c in (0.1, 0.2))
    rough = {"steps": 1, "lr": 3e-3, "tolerance": 1e9}
    message = "seeds must hold one whole number per config, 4 in all, where configs are repeated"
    for cfgs in ([cfg] * 4, [cfg, other] * 2):
        with pytest.raises(ValueError, match=message):
            called(train_population, cfgs, pair, **rough)
    saes = called(train_population, [cfg] * 3, pair, seeds=range(3), **rough)
    assert len({sae.W_dec.detach().norm(dim=0).sum().item() for sae in saes}) == 3
    for own in (
        {"cfgs": [cfg, other]},
        {"cfgs": [cfg, cfg, other]},  # a grid may meet one point twice
        {"cfgs": [cfg] * 2, "world": [pair, half_pair()]},
        {"cfgs": [cfg] * 3, "init": saes},
        {"cfgs": [cfg] * 2, "seeds": [0, 0]},
    ):
        own = {"world": pair, **own}
        trained = called(train_population, own.pop("cfgs"), own.pop("world"), **own, **rough)
        assert len(trained) > 1


def half_pair():
    return worlds.make_parent_child_world(
        generator=torch.Generator().manual_seed(0), d_in=10, child_given_parent=0.5
    )


def continuous(pair):
    directions = pair.directions
    return worlds.make_independent_world(torch.tensor([0.2, 0.3]), directions, magnitude_std=0.1)


BAD = {
    "needs a finite world": lambda cfg, pair: train_population([cfg], continuous(pair)),
    "world must be World": lambda cfg, pair: train_population([cfg], pair.sample),
    "world must have d_in = 12": lambda cfg, pair: train_population(
        [StandardTrainingSAEConfig(d_in=12, d_sae=1)], pair
    ),
    "steps must be at least 1": lambda cfg, pair: train_population(
        [cfg], pair, TrainingOptions(steps=0, lr=3e-3)
    ),
    "tolerance must be in": lambda cfg, pair: train_population([cfg], pair, tolerance=-1.0),
    "lr must be in": lambda cfg, pair: train_population(
        [cfg], pair, TrainingOptions(lr=0.0, steps=6000)
    ),
    "world must be one world or one per SAE, 1 in all, got 2": lambda cfg, pair: train_population(
        [cfg], [pair, pair]
    ),
    "same states": lambda cfg, pair: train_population(
        [cfg, cfg],
        [
            pair,
            worlds.make_parent_child_world(
                generator=torch.Generator().manual_seed(0), d_in=10, child_otherwise=0.1
            ),
        ],
    ),
    "seeds must hold one": lambda cfg, pair: train_population([cfg], pair, seeds=[1, 2]),
    "cfgs must be a sequence of sae-lens training configs, got Stand": lambda cfg, pair: (
        train_population(cfg, pair)
    ),
    "saes must be a sequence of training SAEs, got Stand": lambda cfg, pair: expected_loss(
        fresh_saes([cfg], [0], None)[0], pair
    ),
    "saes must be TrainingSAE, got 3": lambda cfg, pair: expected_loss([3], pair),
    "cfgs must hold at least one": lambda cfg, pair: train_population([], pair),
    "share a budget": lambda cfg, pair: expected_loss(
        fresh_saes([BatchTopKTrainingSAEConfig(k=1, **SHAPE)], [0], None), pair
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_by_name(message, pair):
    cfg = StandardTrainingSAEConfig(d_in=10, d_sae=1)
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message](cfg, pair)
