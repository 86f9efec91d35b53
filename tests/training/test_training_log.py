"""The training log against sae-lens' own trainer, over an interruption, and its refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from sae_lens.registry import get_sae_training_class
from test_ensembles import (
    BATCH,
    ENSEMBLES,
    Killed,
    die_at,
    replace,
    sae_lens_trainer,
    sample_batch,
    small_run,
)

from saebook.metrics import variance_explained
from saebook.training import TrainingLog, TrainingOptions, train_ensemble


def rows_of_sae_lens(cfg, *, seed, steps, window, every):
    """What sae-lens' trainer reports, step by step."""
    torch.manual_seed(seed)
    sae = get_sae_training_class(cfg.architecture())[0](copy.deepcopy(cfg))
    trainer = sae_lens_trainer(sae, steps=steps, window=window)
    generator, rows = torch.Generator().manual_seed(99), []
    for step in range(steps):
        dead = int(trainer.dead_neurons.sum())
        output = trainer.step(sample_batch(BATCH, generator))
        trainer.n_training_steps += 1
        if step % every == 0 or step == steps - 1:
            losses = {"loss": output.loss, **output.losses}
            row = {name: loss.item() for name, loss in losses.items()} | {
                "step": step,
                "n_dead": dead,
            }
            row["l0"] = (output.feature_acts > 0).sum().item() / BATCH
            row["variance_explained"] = variance_explained(output.sae_in, output.sae_out.detach())
            rows.append(row)
    return rows


@pytest.mark.parametrize(
    "name", ["standard", "gated", "jumprelu, tanh", "matryoshka batchtopk", "batchtopk, schedule"]
)
def test_the_log_holds_what_the_trainer_of_sae_lens_reports(name):
    cfgs = [replace(cfg, dtype="float64") for cfg in ENSEMBLES[name][:2]]
    log = TrainingLog(every=15)
    train_ensemble(
        cfgs,
        sample_batch,
        TrainingOptions(steps=40, batch_size=BATCH, lr=1e-3, dead_feature_window=5, log=log),
        seeds=[0, 1],
        generator=torch.Generator().manual_seed(99),
    )
    table = log.table()
    assert table["lr"].tolist() == [1e-3] * len(table)
    for i, cfg in enumerate(cfgs):
        expected = rows_of_sae_lens(cfg, seed=i, steps=40, window=5, every=15)
        found = table[table["sae"] == i]
        assert found["step"].tolist() == [0, 15, 30, 39]
        for column in expected[0]:
            values = [row[column] for row in expected]
            assert found[column].tolist() == pytest.approx(values, abs=1e-9)
    if "topk" in name:
        assert table["n_dead"].max() > 0


@pytest.mark.parametrize("window", [0, 3])
def test_a_latent_is_dead_once_it_was_silent_for_more_steps_than_the_window(window):
    def silence_two(sae):
        sae.b_enc.data[:2] -= 100

    log = TrainingLog(every=1)
    cfg = replace(ENSEMBLES["standard"][0], l1_coefficient=0.0, dtype="float64")
    small_run(cfgs=[cfg], seeds=[0], init=silence_two, dead_feature_window=window, steps=6, log=log)
    # before a step, counted from 0, they have been silent for as many steps
    assert log.table()["n_dead"].tolist() == [2 if step > window else 0 for step in range(6)]


@pytest.mark.parametrize(
    ("every", "steps", "wanted"), [(4, 9, [0, 4, 8]), (4, 10, [0, 4, 8, 9]), (20, 3, [0, 2])]
)
def test_every_so_many_steps_and_the_last_are_recorded(every, steps, wanted):
    log = TrainingLog(every=every)
    assert [step for step in range(steps) if log.wants(step, steps)] == wanted


def test_a_log_does_not_change_the_weights():
    plain, logged = small_run(), small_run(log=TrainingLog(every=3))
    for a, b in zip(plain, logged, strict=True):
        assert torch.equal(a.W_dec, b.W_dec)
        assert torch.equal(a.topk_threshold, b.topk_threshold)


def test_a_resumed_run_has_the_whole_log(tmp_path, monkeypatch):
    whole, resumed = TrainingLog(every=4), TrainingLog(every=4)
    small_run(log=whole)
    path = tmp_path / "run.safetensors"
    monkeypatch.setattr("saebook.training.engine.run.SAVE_EVERY", 10)
    settings = {"checkpoint": path}
    with pytest.raises(Killed):
        small_run(sample_batch=die_at(24), log=TrainingLog(every=4), **settings)
    small_run(log=resumed, **settings)
    assert resumed.table().equals(whole.table())


@pytest.mark.usefixtures("unchecked")
def test_a_used_log_and_a_bad_interval_are_refused():
    log = TrainingLog(every=10)
    small_run(log=log)
    with pytest.raises(ValueError, match="log must be empty, got one with 24 rows"):
        small_run(log=log)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        TrainingLog(every=0)
    with pytest.raises(TypeError, match="every must be an int, got 2.5"):
        TrainingLog(every=2.5)


def test_an_unused_log_has_an_empty_table():
    assert TrainingLog().table().empty
