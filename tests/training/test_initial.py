"""What a run starts from: given SAEs with all their state, functions, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from test_ensembles import (
    BATCH,
    D_SAE,
    ENSEMBLES,
    PREFIXES,
    SHAPE,
    Killed,
    die_at,
    sample_batch,
    train_with_sae_lens,
)

from calls import called
from saebook.metrics import l0
from saebook.saes import (
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    ScheduledBatchTopKTrainingSAEConfig,
    inference_sae,
    widened,
)
from saebook.training import TrainingOptions, train_and_polish, train_ensemble
from saebook.training.engine.gates import GATES
from saebook.training.initial import fresh_saes

ONE_OF_EACH = {
    cfgs[0].architecture(): replace(cfgs[0], dtype="float64")
    for cfgs in reversed(ENSEMBLES.values())
}
BATCHTOPK = [
    BatchTopKTrainingSAEConfig(k=2, dtype="float64", **SHAPE),
    ScheduledBatchTopKTrainingSAEConfig(k=2, dtype="float64", **SHAPE),
    MatryoshkaBatchTopKTrainingSAEConfig(k=2, dtype="float64", **PREFIXES),
    BalancedMatryoshkaBatchTopKTrainingSAEConfig(k=2, dtype="float64", **PREFIXES),
]
of_each_architecture = pytest.mark.parametrize(
    "cfg", ONE_OF_EACH.values(), ids=lambda cfg: cfg.architecture()
)
of_each_batchtopk = pytest.mark.parametrize("cfg", BATCHTOPK, ids=lambda cfg: cfg.architecture())


def train(cfgs, **changes):
    settings = {
        "steps": 30,
        "batch_size": BATCH,
        "lr": 1e-3,
        "seeds": range(len(cfgs)),
        "generator": torch.Generator().manual_seed(99),
        "dead_feature_window": 5,
        **changes,
    }
    return called(train_ensemble, cfgs, settings.pop("sample_batch", sample_batch), **settings)


def assert_same_state(sae, other, **tolerances):
    assert sae.state_dict().keys() == other.state_dict().keys()
    for name, value in sae.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], msg=name, **tolerances)


def test_there_is_a_config_of_every_architecture():
    assert ONE_OF_EACH.keys() == GATES.keys()


@of_each_architecture
def test_training_goes_on_from_given_saes_as_sae_lens_does_with_its_own(cfg):
    first, _ = train_with_sae_lens(cfg, seed=3, steps=60, window=5, lr=3e-3)
    second, _ = train_with_sae_lens(
        cfg,
        seed=0,
        steps=30,
        window=5,
        init=lambda sae: sae.load_state_dict(first.state_dict()),
    )
    (sae,) = train([cfg], init=[first])
    assert_same_state(sae, second, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(sae.W_dec, first.W_dec)


@of_each_architecture
def test_a_step_at_next_to_no_rate_leaves_given_saes_as_they_were(cfg):
    (first,) = train([cfg], steps=60, lr=2e-3)
    (again,) = train([cfg], steps=1, lr=1e-12, init=[first])
    if hasattr(first, "topk_threshold"):
        assert first.topk_threshold > 0.01
        assert again.topk_threshold == pytest.approx(first.topk_threshold.item(), rel=0.1)
        again.topk_threshold.copy_(first.topk_threshold)
    assert_same_state(again, first, rtol=0, atol=1e-9)


@of_each_batchtopk
@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_threshold_that_a_function_sets_is_averaged_on_from_there(cfg, n_shards):
    starts = [0.5, 2.0]

    def set_threshold(sae):
        sae.topk_threshold.fill_(starts[int(sae.cfg.topk_threshold_lr > 0.3)])

    cfgs = [replace(cfg, topk_threshold_lr=lr) for lr in (0.25, 0.4)]
    found = train(cfgs, steps=1, init=set_threshold, n_shards=n_shards)
    x = sample_batch(BATCH, torch.Generator().manual_seed(99))
    for own, start, seed, sae in zip(cfgs, starts, (0, 1), found, strict=True):
        (fresh,) = fresh_saes([own], [seed], None)
        acts = fresh.training_forward_pass(TrainStepInput(x, {}, None, 0, False)).feature_acts
        smallest, lr = acts[acts > 0].min().item(), own.topk_threshold_lr
        assert sae.topk_threshold.item() == pytest.approx((1 - lr) * start + lr * smallest)


def test_a_killed_run_goes_on_with_the_threshold_it_started_from(tmp_path, monkeypatch):
    monkeypatch.setattr("saebook.training.engine.run.SAVE_EVERY", 10)

    def start_at(threshold):
        return lambda sae: sae.topk_threshold.fill_(threshold)

    path, cfgs = tmp_path / "run.safetensors", [BATCHTOPK[0]]
    with pytest.raises(Killed):
        train(
            cfgs,
            init=start_at(3.0),
            sample_batch=die_at(15),
            checkpoint=path,
        )
    with pytest.raises(ValueError, match="checkpoint must belong to this run"):
        train(cfgs, init=start_at(2.0), checkpoint=path)
    (whole,) = train(cfgs, init=start_at(3.0))
    (resumed,) = train(cfgs, init=start_at(3.0), checkpoint=path)
    assert torch.equal(resumed.topk_threshold, whole.topk_threshold)
    assert whole.topk_threshold > 2  # 30 steps at a rate of 0.01


@of_each_batchtopk
def test_a_short_polish_leaves_the_l0_of_inference_near_k(cfg):
    (sae,) = train_and_polish(
        [cfg],
        sample_batch,
        TrainingOptions(steps=600, batch_size=BATCH, lr=2e-3, dead_feature_window=100),
        seeds=[0],
        generator=torch.Generator().manual_seed(1),
    )
    x = sample_batch(2000, torch.Generator().manual_seed(2))
    assert l0(inference_sae(sae).encode(x)) == pytest.approx(cfg.k, rel=0.2)


@of_each_architecture
def test_a_widened_sae_keeps_all_state_of_the_old_one(cfg):
    (sae,) = train([cfg], steps=60, lr=1e-2)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    state = widened(sae, 3, seed=1).state_dict()
    for name, value in before.items():
        axis = {"W_enc": 1, "b_dec": None, "topk_threshold": None}.get(name, 0)
        kept = state[name] if axis is None else state[name].narrow(axis, 0, D_SAE)
        assert torch.equal(kept, value), name
        assert axis is None or state[name].shape[axis] == D_SAE + 3
        assert torch.equal(sae.state_dict()[name], value), name


def test_a_widened_sae_keeps_as_many_activations_as_the_old_one_in_its_schedule():
    cfg = ScheduledBatchTopKTrainingSAEConfig(
        k=2, initial_k=6, transition_k_duration_steps=100, **SHAPE
    )
    (sae,) = train([cfg], steps=26)
    assert sae.activation_fn.k == 5
    wide = widened(sae, 3, seed=1)
    assert wide.activation_fn.k == 5
    wide.activation_fn.k = 1
    assert sae.activation_fn.k == 5


def zero_row(sae):
    sae.W_dec.data[3] = 0


FINITE = {
    name: cfgs
    for name, cfgs in ENSEMBLES.items()
    if not getattr(cfgs[0], "rescale_acts_by_decoder_norm", False)
}


@pytest.mark.parametrize("name", FINITE)
def test_a_decoder_row_of_zeros_is_trained_as_in_sae_lens(name):
    cfg = replace(FINITE[name][0], dtype="float64")
    reference, _ = train_with_sae_lens(cfg, seed=0, steps=30, window=5, init=zero_row)
    (sae,) = train([cfg], init=zero_row)
    assert_same_state(sae, reference, rtol=1e-5, atol=1e-6)
    assert all(value.isfinite().all() for value in sae.state_dict().values())


@pytest.mark.parametrize("cfg", [TopKTrainingSAEConfig(k=2, **SHAPE), *BATCHTOPK])
def test_a_decoder_row_of_zeros_is_refused_where_activations_are_divided_by_its_norm(cfg):
    message = r"W_dec of init must have rows of a norm above 0, .*, got 0 at row 3"
    with pytest.raises(ValueError, match=message):
        train([cfg], init=zero_row)


@of_each_architecture
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_refused_by_the_name_of_the_weight(cfg, value):
    for name in fresh_saes([cfg], [0], None)[0].state_dict():

        def spoil(sae, name=name):
            getattr(sae, name).data.flatten()[-1] = value

        with pytest.raises(ValueError, match=f"{name} of init must be finite, got {value}"):
            train([cfg], init=spoil)


@of_each_batchtopk
def test_a_k_that_leaves_a_batch_no_activation_is_refused(cfg):
    message = r"k must be at least 1 / batch_size = 0\.1 at every step, got 0\.09"
    with pytest.raises(ValueError, match=message):
        train([replace(cfg, k=2), replace(cfg, k=0.09)], batch_size=10)
    (sae,) = train([replace(cfg, k=0.1)], batch_size=10, steps=1)
    assert sae.cfg.k == 0.1


@pytest.mark.parametrize(
    ("steps", "schedule", "reached"),
    [
        (20, {"initial_k": 0.05, "k": 2, "transition_k_duration_steps": 10}, True),
        (20, {"initial_k": 0.05, "k": 2}, False),  # it jumps to its end before the first step
        (20, {"initial_k": 2, "k": 0.05, "transition_k_start_step": 19}, True),
        (19, {"initial_k": 2, "k": 0.05, "transition_k_start_step": 19}, False),
    ],
)
def test_a_schedule_is_refused_only_if_a_step_of_the_run_has_too_small_a_k(
    steps, schedule, reached
):
    cfgs = [ScheduledBatchTopKTrainingSAEConfig(**schedule, **SHAPE)]
    if reached:
        with pytest.raises(ValueError, match="k must be at least 1 / batch_size = 0.1 at every"):
            train(cfgs, batch_size=10, steps=steps)
    else:
        train(cfgs, batch_size=10, steps=steps)
