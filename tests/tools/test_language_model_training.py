"""The language model learns, and an interrupted training ends where an uninterrupted one does."""

import dataclasses
import math

import pytest
import torch

import language_model_training as training
from language_model_training import TrainingPlan, train_language_model
from saebook import _checkpoints

PLAN = TrainingPlan(
    d_model=16, n_layers=2, n_heads=2, steps=30, batch_size=4, warm_up_steps=5, dtype="float32"
)
CONTEXTS = torch.tensor([[0, *[(start + i) % 7 + 1 for i in range(11)]] for start in range(12)])


def train(plan=PLAN, **options):
    return train_language_model(CONTEXTS, vocab_size=8, plan=plan, progress=False, **options)


def weights(model):
    return torch.cat([weight.flatten() for weight in model.parameters()])


def loss(model):
    logits = model(CONTEXTS).logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, CONTEXTS[:, 1:].flatten()).item()


def test_a_sequence_that_counts_is_learned_below_the_unigram():
    trained = train(dataclasses.replace(PLAN, steps=150, lr=1e-2))
    assert loss(trained) < 0.5 < math.log(7)


def test_the_same_plan_gives_the_same_weights_and_another_seed_others():
    first = weights(train())
    assert torch.equal(first, weights(train()))
    assert not torch.equal(first, weights(train(dataclasses.replace(PLAN, seed=1))))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    train()
    assert torch.equal(before, torch.get_rng_state())


class Killed(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    path, whole, step_of = tmp_path / "run", weights(train()), training._train_step

    def killed(model, optimizer, rows, plan, step):
        if step == 17:
            raise Killed
        return step_of(model, optimizer, rows, plan, step)

    monkeypatch.setattr(training, "_train_step", killed)
    with pytest.raises(Killed):
        train(checkpoint=path, checkpoint_every=10)
    assert path.exists()
    seen = []
    monkeypatch.setattr(
        training, "_train_step", lambda *each: seen.append(each[-1]) or step_of(*each)
    )
    resumed = train(checkpoint=path, checkpoint_every=10)
    assert seen == list(range(10, 30))
    assert torch.equal(weights(resumed), whole)
    assert not path.exists()


def test_a_checkpoint_of_another_run_or_cut_short_is_refused(tmp_path):
    path = tmp_path / "run"
    _checkpoints.save(path, {"a": torch.zeros(1)}, run="another", step=3, log=None)
    with pytest.raises(ValueError, match="checkpoint must belong to this run"):
        train(checkpoint=path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="checkpoint must be a file"):
        train(checkpoint=path)


def test_the_rate_rises_then_falls_to_a_tenth():
    plan = TrainingPlan(steps=100, warm_up_steps=10, lr=1.0)
    assert plan.lr_at(0) == pytest.approx(0.1)
    assert plan.lr_at(10) == pytest.approx(1.0)
    assert plan.lr_at(55) == pytest.approx(0.55)
    assert plan.lr_at(100) == pytest.approx(0.1)


def test_each_epoch_visits_every_context_once():
    rows = torch.cat([training._batch(CONTEXTS, PLAN, step) for step in range(3)])
    assert sorted(rows.tolist()) == sorted(CONTEXTS.tolist())
    again = torch.cat([training._batch(CONTEXTS, PLAN, step) for step in range(3, 6)])
    assert not torch.equal(rows, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": -1.0}, "lr must be in"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads = 3, got 16"),
        ({"dtype": "float16"}, "dtype must be one of"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **change)


def test_contexts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="contexts must hold at least one batch of 4 rows, got 2"):
        train_language_model(CONTEXTS[:2], vocab_size=8, plan=PLAN)
    with pytest.raises(ValueError, match=r"contexts must hold ids in \[0, 4\], got .* from 0 to 7"):
        train_language_model(CONTEXTS, vocab_size=5, plan=PLAN)
