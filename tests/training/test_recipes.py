"""Recipes of several rounds: what each round is, and that none is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sae_lens import BatchTopKTrainingSAEConfig, StandardTrainingSAEConfig
from test_ensembles import SHAPE, Killed, die_at, sample_batch

from saebook.saes import ScheduledBatchTopKTrainingSAEConfig, turned
from saebook.training import (
    Resampling,
    TrainingLog,
    TrainingOptions,
    train_and_polish,
    train_ensemble,
    train_thoroughly,
)

CFGS = [BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (2, 3)]
OPTIONS = TrainingOptions(steps=60, batch_size=16, lr=1e-2, dead_feature_window=5)


def counting():
    """A source, and the list of what it was asked for."""
    sizes = []

    def sample(n, generator):
        sizes.append(n)
        return sample_batch(n, generator)

    return sample, sizes


def assert_same(saes, others) -> None:
    for found, expected in zip(saes, others, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name


def test_polishing_goes_on_from_the_trained_weights_on_larger_batches():
    cfgs = [ScheduledBatchTopKTrainingSAEConfig(k=3, initial_k=1, dtype="float64", **SHAPE)] * 2
    counted, sizes = counting()
    options = TrainingOptions(steps=40, batch_size=16, lr=1e-3, dead_feature_window=100)
    polished = train_and_polish(cfgs, counted, options, seeds=[0, 1], generator=0)
    assert sizes == [16] * 40 + [64] * 5
    assert [sae.activation_fn.k for sae in polished] == [3, 3]
    plain = train_ensemble(cfgs, sample_batch, options, seeds=[0, 1], generator=0)
    assert 0 < float((polished[0].W_dec - plain[0].W_dec).detach().abs().max()) < 0.1


def test_polishing_is_a_second_run_that_starts_from_the_first():
    cfgs = [BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (1, 3)]
    shared = {"seeds": [4, 5], "generator": torch.Generator().manual_seed(0)}
    options = TrainingOptions(steps=20, batch_size=16, lr=1e-2, dead_feature_window=7)
    first = train_ensemble(cfgs, sample_batch, options, **shared)
    polish = replace(options, steps=2, batch_size=64, lr=5e-3, lr_decay_steps=2)
    second = train_ensemble(cfgs, sample_batch, polish, init=first, **shared)
    polished = train_and_polish(cfgs, sample_batch, options, seeds=[4, 5], generator=0)
    assert_same(polished, second)


def test_a_polish_that_was_killed_goes_on_without_training_again(tmp_path):
    path, cfgs = tmp_path / "run.safetensors", CFGS[:1]
    options = TrainingOptions(steps=80, batch_size=16, checkpoint=path)
    with pytest.raises(Killed):
        train_and_polish(cfgs, die_at(85), options, seeds=1, generator=0)
    counted, drawn = counting()
    (resumed,) = train_and_polish(cfgs, counted, options, seeds=1, generator=0)
    assert drawn == [64] * 10
    (whole,) = train_and_polish(
        cfgs, sample_batch, replace(options, checkpoint=None), seeds=1, generator=0
    )
    assert torch.equal(resumed.W_dec, whole.W_dec)
    assert not list(tmp_path.iterdir())


def test_thorough_training_is_three_rounds_turned_between_and_a_polish():
    stream, saes = torch.Generator().manual_seed(0), None
    cfgs = [replace(cfg, aux_loss_coefficient=0.0) for cfg in CFGS]
    shared = {"seeds": [4, 5], "generator": stream}
    for until in (54, 34, 14):  # nine tenths of all sixty steps
        if saes is not None:
            x = sample_batch(4096, stream)
            saes = [turned(sae, x) for sae in saes]
        resampling = Resampling(kind="worst", every=50, until=until)
        own = replace(OPTIONS, steps=20, resampling=resampling)
        saes = train_ensemble(cfgs, sample_batch, own, init=saes, **shared)
    polish = replace(OPTIONS, steps=7, batch_size=64, lr=5e-3, lr_decay_steps=7)
    expected = train_ensemble(cfgs, sample_batch, polish, init=saes, **shared)
    found = train_thoroughly(CFGS, sample_batch, OPTIONS, seeds=[4, 5], generator=0)
    assert_same(found, expected)


def test_silent_latents_are_restarted_unless_the_options_say_otherwise():
    longer = replace(OPTIONS, steps=180)  # rounds of 60 steps, with one restart in the first
    never = replace(longer, resampling=Resampling(kind="worst", every=10_000))
    ours = train_thoroughly(CFGS, sample_batch, longer, seeds=2, generator=0)
    theirs = train_thoroughly(CFGS, sample_batch, never, seeds=2, generator=0)
    assert not torch.equal(ours[0].W_dec, theirs[0].W_dec)


@pytest.mark.parametrize("call", [10, 21, 35, 55, 64])
def test_thorough_training_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch, call):
    monkeypatch.setattr("saebook.training.engine.run.SAVE_EVERY", 10)
    options = replace(OPTIONS, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(Killed):
        train_thoroughly(CFGS, die_at(call), options, seeds=2, generator=0)
    counted, sizes = counting()
    resumed = train_thoroughly(CFGS, counted, options, seeds=2, generator=0)
    assert len(sizes) <= 69 - (call - 1) // 10 * 10 + 2  # 60 steps, two looks, a polish of 7
    assert_same(resumed, train_thoroughly(CFGS, sample_batch, OPTIONS, seeds=2, generator=0))
    assert not list(tmp_path.iterdir())


def test_the_log_of_thorough_training_counts_through_its_rounds():
    log = TrainingLog(every=10)
    train_thoroughly(CFGS, sample_batch, replace(OPTIONS, log=log), seeds=2, generator=0)
    steps = [row["step"] for row in log.rows if row["sae"] == 0]
    assert steps == [0, 10, 19, 20, 30, 39, 40, 50, 59]


def test_a_schedule_of_k_is_over_after_the_first_round():
    cfg = ScheduledBatchTopKTrainingSAEConfig(k=3, initial_k=6, dtype="float64", **SHAPE)
    cfgs = [replace(cfg, transition_k_duration_steps=20)] * 2
    seen = {}

    def watch(step, saes):
        seen[step] = saes()[0].activation_fn.k

    train_thoroughly(cfgs, sample_batch, replace(OPTIONS, callback=watch), seeds=2, generator=0)
    assert seen[10] > 3
    assert [seen[step] for step in (21, 40, 59)] == [3, 3, 3]


def test_thorough_training_suits_saes_without_an_auxiliary_loss():
    cfgs = [StandardTrainingSAEConfig(l1_coefficient=0.1, **SHAPE)]
    (sae,) = train_thoroughly(cfgs, sample_batch, OPTIONS, seeds=[0], generator=0)
    assert sae.cfg.l1_coefficient == 0.1


@pytest.mark.parametrize(
    "changes",
    [{"lr_decay_steps": 5}, {"lr_warm_up_steps": 5}, {"lr_scheduler_name": "cosineannealing"}],
)
def test_a_rate_that_moves_is_refused(changes):
    with pytest.raises(ValueError, match="options must have a constant rate.*got"):
        train_thoroughly(CFGS, sample_batch, replace(OPTIONS, **changes), seeds=2, generator=0)
