"""Train many SAEs of one architecture and shape at once, on one shared stream of batches.

The SAEs are ordinary sae-lens training SAEs before and after. In between their weights are stacked,
so that a step of all of them is a handful of large matrix products. Each SAE keeps its own loss,
gradient clipping, optimizer state, dead latents and threshold, and ends with the weights that
`sae_lens.SAETrainer` would give it on the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens import TrainingSAE, TrainingSAEConfig

from saebook._checks import (
    GeneratorLike,
    check_function,
    check_generator,
    check_instance,
    check_non_negative_int,
    check_positive,
    check_positive_int,
)
from saebook.training.engine.run import Run, SampleBatch
from saebook.training.engine.shards import check_n_shards, train_shards
from saebook.training.initial import Init, check_budgets, check_configs, check_seeds, fresh_saes
from saebook.training.log import TrainingLog, check_log
from saebook.training.resampling import Resampling
from saebook.training.schedules import ensemble_learning_rates


def train_ensemble(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    *,
    steps: int,
    batch_size: int = 1024,
    lr: float | Sequence[float] = 3e-4,
    lr_scheduler_name: str = "constant",
    lr_end: float | None = None,
    lr_warm_up_steps: int = 0,
    lr_decay_steps: int = 0,
    seeds: Sequence[int],
    generator: GeneratorLike | None = None,
    init: Init | None = None,
    dead_feature_window: int = 1000,
    resampling: Resampling | None = None,
    log: TrainingLog | None = None,
    device: str | torch.device = "cpu",
    workspace_mib: float = 64,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    n_shards: int = 1,
) -> list[TrainingSAE[Any]]:
    """Train one SAE per config in one stacked program; return them in the order of the configs.

    The numbers are those of sae-lens, but for one case: activations that tie exactly at BatchTopK's
    threshold are all kept here, where sae-lens keeps an arbitrary part. Only worlds without
    continuous magnitudes have such ties.

    Args:
        cfgs: sae-lens training configs of one architecture and shape: standard, topk, batchtopk,
            jumprelu, gated, matryoshka_batchtopk, or one of `architectures`. They may differ in k,
            in coefficients, in schedules and in the weights of inner losses.
        sample_batch: `sample_batch(n, generator)` gives a batch `(n, d_in)`, seen by every SAE.
        steps: number of training steps.
        batch_size: samples a step.
        lr: learning rate of Adam (sae-lens' betas 0.9 and 0.999); or one for each SAE.
        lr_scheduler_name: what the rate does between warm-up and decay, by sae-lens' name:
            "constant", or "cosineannealing" for half a cosine from `lr` down to `lr_end`.
        lr_end: rate at the end of the cosine; by default `lr / 10`, as in sae-lens.
        lr_warm_up_steps: steps of a linear rise from 0 at the start.
        lr_decay_steps: steps of a linear fall to 0 at the end.
        seeds: one whole number per SAE; draws its initial weights, as `torch.manual_seed` would.
        generator: draws the batches; by default one seeded with `seeds[0]`. Its state advances.
        init: SAEs to start from, one per config, with all their weights and BatchTopK's threshold;
            or a function that changes a fresh SAE in place. Adam starts anew.
        dead_feature_window: a latent silent for more than this many steps counts as dead.
        resampling: when and how to give dead latents new weights; by default never.
        log: an empty `TrainingLog` to fill.
        device: where the weights live while they train, such as "cpu" or "cuda".
        workspace_mib: scratch memory in MiB. SAEs that do not fit take turns within each step,
            with the same result; the default suits the caches of a CPU, a GPU likes more.
        progress: show a progress bar when standard error is a terminal.
        checkpoint: a file to save the run to. A run that was killed goes on from it and ends with
            the same weights; the file is removed at the end.
        checkpoint_every: steps between two saves.
        n_shards: number of joblib tasks to split the SAEs into, each a stacked program on one
            thread. joblib's `parallel_config` says where they run: in this process by default, in
            others on this machine, on a Dask cluster. The batches and, to rounding, the weights are
            those of one stack; and bit for bit the same wherever the shards run, on processors of
            one kind. Each gets a copy of `sample_batch` as it is at the start, and a checkpoint
            file of its own, which all workers must reach. README.md has an example, "Beyond one
            machine".

    Returns:
        Training SAEs on the CPU, each with its own copy of its config.

    Raises:
        ValueError, TypeError: for an unusable argument, a batch of the wrong shape or with NaN,
            or a checkpoint of another run.

    Source: the training step of sae-lens 6.54; BatchTopK of Bussmann et al. (arXiv 2412.06410).

    Example: four shards on the workers of a Dask cluster. ::

        with Client("tcp://head-node:8786"), joblib.parallel_config(backend="dask"):
            saes = train_ensemble(cfgs, world.sample, steps=15_000, seeds=seeds, n_shards=4)
    """
    check_positive_int("steps", steps)
    check_positive_int("batch_size", batch_size)
    check_positive("workspace_mib", workspace_mib)
    check_positive_int("checkpoint_every", checkpoint_every)
    check_non_negative_int("dead_feature_window", dead_feature_window)
    if resampling is not None:
        check_instance("resampling", resampling, Resampling)
    check_configs(cfgs)
    check_function("sample_batch", sample_batch, "of a number of samples and a generator")
    check_budgets(cfgs, batch_size=batch_size, steps=steps)
    lrs = ensemble_learning_rates(
        lr,
        len(cfgs),
        steps=steps,
        lr_scheduler_name=lr_scheduler_name,
        lr_end=lr_end,
        lr_warm_up_steps=lr_warm_up_steps,
        lr_decay_steps=lr_decay_steps,
    )
    check_n_shards(n_shards, len(cfgs))
    seeds = check_seeds(seeds, len(cfgs))
    saes = fresh_saes(cfgs, seeds, init)
    if generator is None:
        generator = torch.Generator().manual_seed(seeds[0])
    settings: dict[str, Any] = {
        "generator": check_generator("generator", generator),
        "lrs": lrs,
        "batch_size": batch_size,
        "dead_feature_window": dead_feature_window,
        "device": torch.device(device),
        "workspace_bytes": workspace_mib * 2**20,
        "seeds": seeds,
        "resampling": resampling,
        "log": check_log(log),
    }
    saving: dict[str, Any] = {
        "path": Path(checkpoint) if checkpoint else None,
        "every": checkpoint_every,
    }
    if n_shards > 1:
        return train_shards(n_shards, saes, sample_batch, settings, saving, progress=progress)
    run = Run(saes, sample_batch, **settings)
    run.train(progress=progress, **saving)
    run.write_back()
    return saes


def train_and_polish(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    *,
    steps: int,
    polish_steps: int | None = None,
    batch_size: int = 256,
    polish_factor: int = 4,
    lr: float = 2e-3,
    seeds: Sequence[int],
    generator: GeneratorLike,
    dead_feature_window: int = 100,
    progress: bool = True,
    n_shards: int = 1,
) -> list[TrainingSAE[Any]]:
    """Train SAEs with small batches, then polish them with larger ones while the rate falls to 0.

    Many small steps find the features. But BatchTopK shares `k · batch` activations within each
    batch, and a small batch often holds more than its share of active features; that mixes latents
    a little, even at the true L0. Larger batches at the end undo this. The short window revives
    dead latents early. Schedules of k and of coefficients are over when the polish begins. It goes
    on from the weights and from BatchTopK's threshold; Adam and the count of silent steps restart.

    Args:
        cfgs, sample_batch, seeds, generator, dead_feature_window, progress, n_shards: as in
            `train_ensemble`.
        steps: steps on batches of `batch_size`, at the constant rate `lr`.
        polish_steps: further steps on batches of `polish_factor * batch_size`, from half of `lr`
            down to 0; by default an eighth of `steps`.
        batch_size: samples a step before the polish.
        polish_factor: how many times larger the batches of the polish are.
        lr: learning rate of Adam before the polish.

    Raises:
        ValueError, TypeError: for an unusable argument.
    """
    if polish_steps is None:
        polish_steps = max(1, check_positive_int("steps", steps) // 8)
    check_positive_int("polish_steps", polish_steps)
    check_positive_int("polish_factor", polish_factor)
    check_positive("lr", lr)
    generator = check_generator("generator", generator)
    shared: dict[str, Any] = {
        "seeds": seeds,
        "generator": generator,
        "dead_feature_window": dead_feature_window,
        "progress": progress,
        "n_shards": n_shards,
    }
    saes = train_ensemble(cfgs, sample_batch, steps=steps, batch_size=batch_size, lr=lr, **shared)
    return train_ensemble(
        [_settled(cfg) for cfg in cfgs],
        sample_batch,
        steps=polish_steps,
        batch_size=polish_factor * batch_size,
        lr=lr / 2,
        lr_decay_steps=polish_steps,
        init=saes,
        **shared,
    )


def _settled(cfg: TrainingSAEConfig) -> TrainingSAEConfig:
    """The config with its schedules at their end."""
    over = {"initial_k": None, "l1_warm_up_steps": 0, "l0_warm_up_steps": 0}
    return dataclasses.replace(cfg, **{k: v for k, v in over.items() if hasattr(cfg, k)})
