"""Recipes: rounds of training, one after another, that recover more than a single one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sae_lens import TrainingSAE, TrainingSAEConfig

from saebook._checks import GeneratorLike, check_generator
from saebook.saes.transforms import turned
from saebook.training.engine.batches import SampleBatch
from saebook.training.engine.shards import checkpoints, remove
from saebook.training.ensembles import Ensemble
from saebook.training.log import TrainingLog
from saebook.training.options import TrainingOptions
from saebook.training.resampling import Resampling

ROUNDS = 3
LOOKED_AT = 4096  # inputs on which latents are judged between two rounds
RESTART_EVERY, RESTART_UNTIL = 50, 0.9  # steps, and the share of all steps


def train_thoroughly(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    seeds: int | Sequence[int],
    generator: GeneratorLike,
) -> list[TrainingSAE[Any]]:
    """Train SAEs, start silent latents anew, turn round those that mean an absence, then polish.

    Gradient descent leaves two kinds of latents stuck. Some fall silent: every 50 steps they start
    anew on the inputs with the largest error, in place of an auxiliary loss. Others point away from
    a feature and fire where it is absent: after one and after two thirds of the steps they are
    turned round, see `saes.turned`, and Adam and the count of silent steps restart. Schedules of k
    and of coefficients are over after the first third. The polish is that of `train_and_polish`.

    Args:
        cfgs, sample_batch, seeds, generator: as in `train_ensemble`; an auxiliary loss is switched
            off.
        options: of the steps before the polish, at a constant rate. A short `dead_feature_window`
            suits it. Its `resampling`, where given, takes the place of the one above.

    Raises:
        ValueError, TypeError: as in `train_ensemble`, and for a rate that is not constant.
    """
    generator = check_generator("generator", generator)
    _check_constant(options)
    ensemble = Ensemble([_without_auxiliary_loss(cfg) for cfg in cfgs], seeds=seeds)
    ends = [options.steps * n // ROUNDS for n in range(ROUNDS + 1)]
    rounds = [_round(options, first, last) for first, last in pairwise(ends)]
    for first, own in zip(ends, rounds, strict=False):
        if first:
            x = sample_batch(LOOKED_AT, generator)
            ensemble = _further(ensemble, [turned(sae, x) for sae in ensemble.saes])
        ensemble._train(sample_batch, own, generator, keep_end=True)
        if options.log and own.log:
            options.log.rows += [row | {"step": row["step"] + first} for row in own.log.rows]
    saes = _polished(ensemble, sample_batch, options, generator)
    for own in rounds:
        remove(checkpoints(own))
    return saes


def _check_constant(options: TrainingOptions) -> None:
    moves = options.lr_scheduler_name != "constant"
    if moves or options.lr_warm_up_steps or options.lr_decay_steps:
        raise ValueError(
            "options must have a constant rate, for the polish lowers it: got "
            f"lr_scheduler_name={options.lr_scheduler_name!r}, lr_warm_up_steps="
            f"{options.lr_warm_up_steps}, lr_decay_steps={options.lr_decay_steps}"
        )


def _without_auxiliary_loss(cfg: TrainingSAEConfig) -> TrainingSAEConfig:
    name = "aux_loss_coefficient"
    return dataclasses.replace(cfg, **({name: 0.0} if hasattr(cfg, name) else {}))


def _round(options: TrainingOptions, first: int, last: int) -> TrainingOptions:
    """The options of the steps from `first` to `last`, with a log of their own."""
    until = max(1, round(RESTART_UNTIL * options.steps) - first)
    watch = options.callback
    return dataclasses.replace(
        _before(options, f"from-{first}"),
        steps=last - first,
        resampling=options.resampling or Resampling(kind="worst", every=RESTART_EVERY, until=until),
        log=TrainingLog(every=options.log.every) if options.log else None,
        callback=watch and (lambda step, saes: watch(first + step, saes)),
    )


def _before(options: TrainingOptions, stage: str) -> TrainingOptions:
    """The options of a stage before the last, with a checkpoint of its own."""
    path = Path(options.checkpoint) if options.checkpoint else None
    return dataclasses.replace(options, checkpoint=path and path.with_stem(f"{path.stem}-{stage}"))


def train_and_polish(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    seeds: int | Sequence[int],
    generator: GeneratorLike,
) -> list[TrainingSAE[Any]]:
    """Train SAEs with small batches, then polish them with larger ones while the rate falls to 0.

    Many small steps find the features. But BatchTopK shares `k · batch` activations within each
    batch, and a small batch often holds more than its share of active features; that mixes latents
    a little, even at the true L0. Larger batches at the end undo this. A short
    `dead_feature_window` revives dead latents early. The polish takes an eighth as many steps, on
    batches four times as large, from half of the rate down to 0. Schedules of k and of coefficients
    are over when it begins. It goes on from the weights and from BatchTopK's threshold; Adam and
    the count of silent steps restart.

    Args:
        cfgs, sample_batch, options, seeds, generator: as in `train_ensemble`. The options are those
            of the steps before the polish; the log records them alone.

    Raises:
        ValueError, TypeError: as there.
    """
    generator = check_generator("generator", generator)
    ensemble, first = Ensemble(cfgs, seeds=seeds), _before(options, "unpolished")
    ensemble._train(sample_batch, first, generator, keep_end=True)
    saes = _polished(ensemble, sample_batch, options, generator)
    remove(checkpoints(first))
    return saes


def _polished(
    ensemble: Ensemble, sample_batch: SampleBatch, options: TrainingOptions, generator: Any
) -> list[TrainingSAE[Any]]:
    """The SAEs after further steps on larger batches, at a rate that falls to 0."""
    steps = max(1, options.steps // 8)
    lr = options.lr
    polish = dataclasses.replace(
        options,
        steps=steps,
        batch_size=4 * options.batch_size,
        lr=lr / 2 if isinstance(lr, int | float) else [each / 2 for each in lr],
        lr_scheduler_name="constant",
        lr_end=None,
        lr_warm_up_steps=0,
        lr_decay_steps=steps,
        resampling=None,
        log=None,
        callback=None,
    )
    polished = _further(ensemble, ensemble.saes)
    return polished.train(sample_batch, polish, generator=generator).saes


def _further(ensemble: Ensemble, saes: Sequence[TrainingSAE[Any]]) -> Ensemble:
    """What goes on from the weights of `saes`, their schedules over and all else forgotten."""
    cfgs = [_settled(sae.cfg) for sae in saes]
    return Ensemble(cfgs, seeds=ensemble.seeds, init=saes)


def _settled(cfg: TrainingSAEConfig) -> TrainingSAEConfig:
    """The config with its schedules at their end."""
    over = {"initial_k": None, "l1_warm_up_steps": 0, "l0_warm_up_steps": 0}
    return dataclasses.replace(cfg, **{k: v for k, v in over.items() if hasattr(cfg, k)})
