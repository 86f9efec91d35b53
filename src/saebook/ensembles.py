"""Train many SAEs of one architecture and shape at once, on one shared stream of batches.

The SAEs are ordinary sae-lens training SAEs before and after. In between their weights are stacked,
so that a step of all of them is a handful of large matrix products. Each SAE keeps its own loss,
gradient clipping, optimizer state, dead latents and threshold, and ends with the weights that
`sae_lens.SAETrainer` would give it on the same batches. Taught in the chapter "Finding the true
L0".
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sae_lens import TrainingSAE, TrainingSAEConfig, __version__
from sae_lens.registry import get_sae_training_class
from sae_lens.training.optim import get_lr_scheduler

from saebook._checks import (
    check_generator,
    check_in_range,
    check_non_negative_int,
    check_positive,
    check_positive_int,
)
from saebook._ensemble_run import Run, SampleBatch
from saebook._gates import GATES

__all__ = [
    "Init",
    "SampleBatch",
    "check_configs",
    "learning_rates",
    "train_and_polish",
    "train_ensemble",
]

Init = Sequence[TrainingSAE[Any]] | Callable[[TrainingSAE[Any]], None]


def train_ensemble(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    *,
    steps: int,
    batch_size: int = 1024,
    lr: float = 3e-4,
    lr_warm_up_steps: int = 0,
    lr_decay_steps: int = 0,
    seeds: Sequence[int],
    generator: torch.Generator | None = None,
    init: Init | None = None,
    dead_feature_window: int = 1000,
    device: str | torch.device = "cpu",
    workspace_mib: float = 64,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
) -> list[TrainingSAE[Any]]:
    """Train one SAE per config in one stacked program; return them in the order of the configs.

    Args:
        cfgs: sae-lens training configs of one architecture and shape: standard, topk, batchtopk,
            scheduled_batchtopk or jumprelu. They may differ in k, in coefficients and in schedules.
        sample_batch: `sample_batch(n, generator)` gives a batch `(n, d_in)`, seen by every SAE.
        steps: number of training steps.
        batch_size: samples a step.
        lr: learning rate of Adam (sae-lens' betas 0.9 and 0.999).
        lr_warm_up_steps: steps of a linear rise from 0 at the start.
        lr_decay_steps: steps of a linear fall to 0 at the end.
        seeds: one whole number per SAE; draws its initial weights, as `torch.manual_seed` would.
        generator: draws the batches; by default one seeded with `seeds[0]`. Its state advances.
        init: SAEs to start from, one per config; or a function that changes a fresh SAE in place.
        dead_feature_window: a latent silent for more than this many steps counts as dead.
        device: where the weights live while they train, such as "cpu" or "cuda".
        workspace_mib: scratch memory in MiB. SAEs that do not fit take turns within each step,
            with the same result; the default suits the caches of a CPU, a GPU likes more.
        progress: show a progress bar when standard error is a terminal.
        checkpoint: a file to save the run to. A run that was killed goes on from it and ends with
            the same weights; the file is removed at the end.
        checkpoint_every: steps between two saves.

    Returns:
        Training SAEs on the CPU, each with its own copy of its config.

    Raises:
        ValueError, TypeError: for an unusable argument, a batch of the wrong shape or with NaN,
            or a checkpoint of another run.

    Source: the training step of sae-lens 6.54; BatchTopK of Bussmann et al. (arXiv 2412.06410).
    """
    check_positive_int("steps", steps)
    check_positive_int("batch_size", batch_size)
    check_positive("lr", lr)
    check_positive("workspace_mib", workspace_mib)
    check_positive_int("checkpoint_every", checkpoint_every)
    check_non_negative_int("dead_feature_window", dead_feature_window)
    lrs = learning_rates(
        lr, steps=steps, lr_warm_up_steps=lr_warm_up_steps, lr_decay_steps=lr_decay_steps
    )
    check_configs(cfgs)
    saes = _fresh_saes(cfgs, _checked_seeds(seeds, len(cfgs)), init)
    if generator is None:
        generator = torch.Generator().manual_seed(seeds[0])
    run = Run(
        saes,
        sample_batch,
        generator=check_generator("generator", generator),
        lrs=lrs,
        batch_size=batch_size,
        dead_feature_window=dead_feature_window,
        device=torch.device(device),
        workspace_bytes=workspace_mib * 2**20,
    )
    path = Path(checkpoint) if checkpoint else None
    run.train(progress=progress, path=path, every=checkpoint_every)
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
    generator: torch.Generator,
    dead_feature_window: int = 100,
    progress: bool = True,
) -> list[TrainingSAE[Any]]:
    """Train SAEs with small batches, then polish them with larger ones while the rate falls to 0.

    Many small steps find the features. But BatchTopK shares `k · batch` activations within each
    batch, and a small batch often holds more than its share of active features; that mixes latents
    a little, even at the true L0. Larger batches at the end undo this. The short window revives
    dead latents early. Schedules of k and of coefficients are over when the polish begins.

    Args:
        cfgs, sample_batch, seeds, generator, dead_feature_window, progress: as in `train_ensemble`.
        steps: steps on batches of `batch_size`, at the constant rate `lr`.
        polish_steps: further steps on batches of `polish_factor * batch_size`, from half of `lr`
            down to 0; by default an eighth of `steps`.
        batch_size: samples a step before the polish.
        polish_factor: how many times larger the batches of the polish are.
        lr: learning rate of Adam before the polish.

    Raises:
        ValueError, TypeError: for an unusable argument.

    Chapter: "Finding the true L0".
    """
    if polish_steps is None:
        polish_steps = max(1, check_positive_int("steps", steps) // 8)
    check_positive_int("polish_steps", polish_steps)
    check_positive_int("polish_factor", polish_factor)
    check_positive("lr", lr)
    check_generator("generator", generator)
    shared: dict[str, Any] = {
        "seeds": seeds,
        "generator": generator,
        "dead_feature_window": dead_feature_window,
        "progress": progress,
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


def learning_rates(
    lr: float, *, steps: int, lr_warm_up_steps: int, lr_decay_steps: int
) -> list[float]:
    """The learning rate of every step: sae-lens' schedule `constant` with warm-up and decay.

    Raises:
        ValueError: if warm-up and decay together are longer than the training.
    """
    check_non_negative_int("lr_warm_up_steps", lr_warm_up_steps)
    check_non_negative_int("lr_decay_steps", lr_decay_steps)
    if lr_warm_up_steps + lr_decay_steps > steps:
        raise ValueError(
            f"lr_warm_up_steps + lr_decay_steps must be at most steps = {steps}, "
            f"got {lr_warm_up_steps} + {lr_decay_steps}"
        )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = get_lr_scheduler(
        "constant",
        optimizer=optimizer,
        training_steps=steps,
        lr=lr,
        warm_up_steps=lr_warm_up_steps,
        decay_steps=lr_decay_steps,
        lr_end=lr,
        num_cycles=1,
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def check_configs(cfgs: Sequence[TrainingSAEConfig]) -> None:
    """Check that sae-lens training configs can be trained as one stack.

    Raises:
        ValueError, TypeError: naming the field, its values and what was expected.
    """
    if len(cfgs) == 0:
        raise ValueError("cfgs must hold at least one sae-lens training config, got none")
    for cfg in cfgs:
        if not isinstance(cfg, TrainingSAEConfig):
            raise TypeError(f"cfgs must hold sae-lens training configs, got {type(cfg).__name__}")
    architectures = sorted({cfg.architecture() for cfg in cfgs})
    if len(architectures) > 1 or architectures[0] not in GATES:
        known = sorted(GATES)
        raise ValueError(f"cfgs must share one architecture of {known}, got {architectures}")
    varying = GATES[architectures[0]].varying | {"decoder_init_norm", "metadata"}
    for field in dataclasses.fields(cfgs[0]):
        values = [getattr(cfg, field.name) for cfg in cfgs]
        if field.name not in varying and any(value != values[0] for value in values):
            different = sorted(set(map(str, values)))
            raise ValueError(f"cfgs must agree in {field.name}, got {different}")
    for cfg in cfgs:
        _check_config(cfg)


def _check_config(cfg: Any) -> None:
    """Check what sae-lens leaves unchecked in a config, and what a stack cannot serve."""
    check_positive_int("d_in", cfg.d_in)
    check_positive_int("d_sae", cfg.d_sae)
    if hasattr(cfg, "k"):
        check_in_range("k", cfg.k, 0, cfg.d_sae, open_minimum=True)
        if cfg.architecture() == "topk":
            check_positive_int("k", cfg.k)
    for name in ("l1_coefficient", "l0_coefficient", "aux_loss_coefficient"):
        if hasattr(cfg, name):
            check_in_range(name, getattr(cfg, name), 0, open_maximum=True)
    fixed = {"normalize_activations": "none", "reshape_activations": "none", "lp_norm": 1.0}
    for name, value in fixed.items():
        if getattr(cfg, name, value) != value:
            raise ValueError(f"{name} must be {value!r} in an ensemble, got {getattr(cfg, name)!r}")
    if cfg.dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64' in an ensemble, got {cfg.dtype!r}")


def _checked_seeds(seeds: Sequence[int], n_saes: int) -> list[int]:
    if isinstance(seeds, int) or len(seeds) != n_saes:
        got = seeds if isinstance(seeds, int) else f"{len(seeds)} of them"
        raise ValueError(f"seeds must hold one whole number per config, {n_saes} in all, got {got}")
    return [check_non_negative_int("seeds", seed) for seed in seeds]


def _fresh_saes(
    cfgs: Sequence[TrainingSAEConfig], seeds: list[int], init: Init | None
) -> list[TrainingSAE[Any]]:
    """sae-lens SAEs with weights drawn from their seeds or taken from `init`."""
    saes = []
    with torch.random.fork_rng(devices=[]):
        for cfg, seed in zip(cfgs, seeds, strict=True):
            torch.manual_seed(seed)
            cfg = copy.deepcopy(cfg)
            cfg.device = "cpu"
            cfg.sae_lens_training_version = __version__
            sae = get_sae_training_class(cfg.architecture())[0](cfg)
            if callable(init):
                init(sae)
            saes.append(sae)
    if init is not None and not callable(init):
        _copy_weights(init, saes)
    return saes


def _copy_weights(sources: Sequence[TrainingSAE[Any]], saes: Sequence[TrainingSAE[Any]]) -> None:
    n = len(saes)
    if len(sources) != n:
        raise ValueError(f"init must hold one SAE per config, {n} in all, got {len(sources)}")
    for source, sae in zip(sources, saes, strict=True):
        for name, weight in sae.named_parameters():
            start = dict(source.named_parameters()).get(name)
            if start is None or start.shape != weight.shape:
                got = "none" if start is None else tuple(start.shape)
                raise ValueError(f"init must have {name} of shape {tuple(weight.shape)}, got {got}")
            weight.data.copy_(start.data)
