"""Resampling against a plain loop round sae-lens' own trainer, and its refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
)
from sae_lens.registry import get_sae_training_class
from test_ensembles import BATCH, SHAPE, largest_difference, sae_lens_trainer, sample_batch

from calls import called
from saebook.training import Resampling, TrainingOptions, train_ensemble
from saebook.training.resampling import KINDS, _generator

CFGS = {
    "standard": [
        StandardTrainingSAEConfig(l1_coefficient=c, dtype="float64", **SHAPE) for c in (0.05, 0.4)
    ],
    "batchtopk": [
        BatchTopKTrainingSAEConfig(k=k, aux_loss_coefficient=0.0, dtype="float64", **SHAPE)
        for k in (1, 2)
    ],
    "jumprelu": [
        JumpReLUTrainingSAEConfig(
            l0_coefficient=c, jumprelu_init_threshold=0.2, dtype="float64", **SHAPE
        )
        for c in (0.3, 1.0)
    ],
    "gated": [
        GatedTrainingSAEConfig(l1_coefficient=c, dtype="float64", **SHAPE) for c in (0.1, 0.5)
    ],
}


def silence_some(sae):
    """Give the first eight latents a bias that no input overcomes."""
    bias = sae.b_gate if hasattr(sae, "b_gate") else sae.b_enc
    bias.data[:8] -= 5


FIRST = {"b_enc": 0.0, "b_gate": 0.0, "b_mag": 0.0, "r_mag": 0.0, "threshold": 0.2}


def restart(trainer, sae, latent, direction, norm):
    """Give one latent new weights and an optimizer that knows nothing of them."""
    weights = dict(sae.named_parameters())
    weights["W_dec"].data[latent] = direction
    weights["W_enc"].data[:, latent] = direction * norm
    moments = [trainer.optimizer.state[weight] for weight in weights.values()]
    for (name, weight), state in zip(weights.items(), moments, strict=True):
        if name in FIRST:
            weight.data[latent] = FIRST[name]
        for key in ("exp_avg", "exp_avg_sq"):
            if name != "b_dec" and key in state:
                (state[key].T if name == "W_enc" else state[key])[latent] = 0
    trainer.n_forward_passes_since_fired[latent] = 0


def resample_by_hand(trainer, sae, output, kind, *, seed, step):
    """The number of latents that were given new weights."""
    x, dead = output.sae_in, trainer.dead_neurons.nonzero().flatten().tolist()
    losses = ((output.sae_out - x) ** 2).sum(1).detach()
    if not dead:
        return 0
    norm = 1.0
    if kind != "loss_weighted":
        chosen = losses.argsort(descending=True)[: len(dead)]
    else:
        chances = losses.square() / losses.square().max() + 1e-12
        chosen = torch.multinomial(chances, len(dead), generator=_generator(seed, step))
        live = [j for j in range(sae.cfg.d_sae) if j not in dead]
        norm = 0.2 * sum(sae.W_enc[:, j].norm() for j in live).item() / len(live) if live else 1.0
    for latent, row in zip(dead, chosen.tolist(), strict=False):
        if kind == "as_it_is":
            sae.W_enc.data[:, latent], sae.W_dec.data[latent] = x[row], x[row] / x[row].norm()
            trainer.n_forward_passes_since_fired[latent] = 0
        else:
            away = (x[row] - sae.b_dec).detach()
            restart(trainer, sae, latent, away / away.norm(), norm)
    return min(len(dead), len(x))


def train_by_hand(cfg, kind, *, seed, steps, every, until):
    torch.manual_seed(seed)
    sae = get_sae_training_class(cfg.architecture())[0](copy.deepcopy(cfg))
    silence_some(sae)
    trainer = sae_lens_trainer(sae, steps=steps, window=3)
    generator, count = torch.Generator().manual_seed(99), 0
    for step in range(steps):
        output = trainer.step(sample_batch(BATCH, generator))
        trainer.n_training_steps += 1
        if (step + 1) % every == 0 and step < until:
            count += resample_by_hand(trainer, sae, output, kind, seed=seed, step=step)
    return sae, count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CFGS)
def test_resampled_training_equals_a_plain_loop_round_sae_lens(name, kind):
    settings = {"steps": 60, "every": 7, "until": 42}
    runs = [train_by_hand(cfg, kind, seed=s, **settings) for s, cfg in enumerate(CFGS[name])]
    saes = train_ensemble(
        CFGS[name],
        sample_batch,
        TrainingOptions(
            steps=60,
            batch_size=BATCH,
            lr=1e-3,
            dead_feature_window=3,
            resampling=Resampling(kind=kind, every=7, until=42),
        ),
        seeds=[0, 1],
        generator=torch.Generator().manual_seed(99),
        init=silence_some,
    )
    assert sum(count for _, count in runs) > 0, "nothing was ever resampled"
    assert largest_difference(saes, [sae for sae, _ in runs]) < 1e-6


@pytest.mark.parametrize("kind", ["worst", "loss_weighted"])
def test_an_sae_is_resampled_alone_as_beside_others(kind):
    settings = {
        "steps": 40,
        "batch_size": BATCH,
        "lr": 1e-3,
        "dead_feature_window": 3,
        "resampling": Resampling(kind=kind, every=5),
        "init": silence_some,
    }

    def run(cfgs, seeds):
        generator = torch.Generator().manual_seed(1)
        return called(
            train_ensemble, cfgs, sample_batch, seeds=seeds, generator=generator, **settings
        )

    beside = run(CFGS["standard"] * 2, [0, 1, 2, 3])
    alone = run(CFGS["standard"][1:], [3])
    assert largest_difference(alone, beside[3:]) < 1e-12


def silence(sae):
    """Give every latent a bias that no input overcomes."""
    sae.b_enc.data -= 100


def test_more_dead_latents_than_inputs_are_resampled_as_far_as_inputs_go():
    start = torch.full((SHAPE["d_in"],), 100.0, dtype=torch.float64)

    (sae,) = train_ensemble(
        CFGS["standard"][:1],
        lambda n, generator: sample_batch(n, generator) + start,
        TrainingOptions(
            steps=1,
            batch_size=5,
            lr=1e-9,
            dead_feature_window=0,
            resampling=Resampling(kind="worst", every=1),
        ),
        seeds=[0],
        init=silence,
    )
    restarted = sae.b_enc.abs() < 1e-6
    assert restarted.sum() == 5
    torch.testing.assert_close(sae.W_dec[restarted].norm(dim=1), torch.ones(5).double())


def test_inputs_without_error_restart_no_latent_in_a_zero_direction():
    for kind in ("worst", "loss_weighted"):
        (sae,) = train_ensemble(
            CFGS["batchtopk"][:1],
            lambda n, _: torch.zeros(n, SHAPE["d_in"], dtype=torch.float64),
            TrainingOptions(
                steps=5,
                batch_size=BATCH,
                dead_feature_window=0,
                resampling=Resampling(kind=kind, every=1),
            ),
            seeds=[0],
            init=silence,
        )
        assert sae.W_dec.norm(dim=1).min() > 0
        assert all(torch.isfinite(weight).all() for weight in sae.parameters())


@pytest.mark.parametrize(
    ("until", "due"),
    [(None, [7, 14, 21, 28]), (28, [7, 14, 21, 28]), (27, [7, 14, 21]), (7, [7]), (6, [])],
)
def test_resampling_is_due_after_every_so_many_steps_up_to_the_last(until, due):
    resampling = Resampling(kind="worst", every=7, until=until)
    assert [n for n in range(1, 30) if resampling.due(n)] == due


BAD = {
    r"kind must be one of \['as_it_is', 'loss_weighted', 'worst'\], got 'best'": {
        "kind": "best",
        "every": 10,
    },
    "every must be at least 1, got 0": {"kind": "worst", "every": 0},
    "until must be an int, got 2.5": {"kind": "worst", "every": 1, "until": 2.5},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_settings_are_refused_with_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        Resampling(**BAD[message])
