"""What is checked and built before any training starts: configs, seeds, initial weights."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sae_lens import BatchTopKTrainingSAEConfig, TrainingSAE, TrainingSAEConfig, __version__
from sae_lens.registry import get_sae_training_class

from saebook._checks import (
    check_finite,
    check_in_range,
    check_instance,
    check_non_negative_int,
    check_positive,
    check_positive_int,
    check_sequence,
)
from saebook.training.engine.gates import GATES

VARYING = {"decoder_init_norm", "inner_loss_multipliers", "metadata"}  # with every gate

Init = Sequence[TrainingSAE[Any]] | Callable[[TrainingSAE[Any]], None]


def check_configs(cfgs: Sequence[TrainingSAEConfig]) -> None:
    """Check that sae-lens training configs can be trained as one stack.

    Raises:
        ValueError, TypeError: naming the field, its values and what was expected.
    """
    if len(check_sequence("cfgs", cfgs, "sae-lens training configs")) == 0:
        raise ValueError("cfgs must hold at least one sae-lens training config, got none")
    for cfg in cfgs:
        if not isinstance(cfg, TrainingSAEConfig):
            raise TypeError(f"cfgs must hold sae-lens training configs, got {type(cfg).__name__}")
    architectures = sorted({cfg.architecture() for cfg in cfgs})
    if len(architectures) > 1 or architectures[0] not in GATES:
        known = sorted(GATES)
        raise ValueError(f"cfgs must share one architecture of {known}, got {architectures}")
    varying = GATES[architectures[0]].varying | VARYING
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
    if cfg.decoder_init_norm is not None:
        check_positive("decoder_init_norm", cfg.decoder_init_norm)
    for name in ("l1_coefficient", "l0_coefficient", "aux_loss_coefficient"):
        if hasattr(cfg, name):
            check_in_range(name, getattr(cfg, name), 0, open_maximum=True)
    fixed = {
        "normalize_activations": "none",
        "reshape_activations": "none",
        "lp_norm": 1.0,
    }
    for name, value in fixed.items():
        if getattr(cfg, name, value) != value:
            raise ValueError(f"{name} must be {value!r} in an ensemble, got {getattr(cfg, name)!r}")
    if cfg.dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64' in an ensemble, got {cfg.dtype!r}")


def check_budgets(
    cfgs: Sequence[TrainingSAEConfig], *, batch_size: int, steps: tuple[int, int]
) -> None:
    """Check that BatchTopK keeps at least one activation of every batch between two steps.

    Raises:
        ValueError: if k · batch_size falls below 1 at some step; no latent could be active there.
    """
    for cfg in cfgs:
        if isinstance(cfg, BatchTopKTrainingSAEConfig):
            k = cfg.k
            if hasattr(cfg, "k_at"):  # a schedule is a straight line
                k = min(cfg.k_at(steps[0]), cfg.k_at(steps[1] - 1))
            if int(k * batch_size) < 1:
                raise ValueError(
                    f"k must be at least 1 / batch_size = {1 / batch_size:g} at every step, got {k}"
                )


def check_seeds(seeds: int | Sequence[int], n_saes: int | None = None) -> list[int]:
    """Return the seeds if there is one whole number per SAE; a number n stands for 0 … n − 1.

    Without `n_saes`, any number of seeds will do.
    """
    if isinstance(seeds, int):
        seeds = range(check_positive_int("seeds", seeds))
    n_seeds = len(check_sequence("seeds", seeds, "whole numbers, or how many"))
    if n_saes not in (None, n_seeds):
        raise ValueError(
            f"seeds must hold one whole number per config, {n_saes} in all, got {len(seeds)}"
        )
    return [check_non_negative_int("seeds", seed) for seed in seeds]


def fresh_saes(
    cfgs: Sequence[TrainingSAEConfig], seeds: list[int], init: Init | None
) -> list[TrainingSAE[Any]]:
    """sae-lens SAEs with weights drawn from their seeds, or all their state taken from `init`.

    Raises:
        ValueError, TypeError: if `init` gives weights that do not fit or cannot be trained.
    """
    is_function = callable(init) and not isinstance(init, torch.nn.Module)
    change: Any = init if is_function else None
    saes = []
    with torch.random.fork_rng(devices=[]):
        for cfg, seed in zip(cfgs, seeds, strict=True):
            torch.manual_seed(seed)
            cfg = copy.deepcopy(cfg)
            cfg.device = "cpu"
            cfg.sae_lens_training_version = __version__
            sae = get_sae_training_class(cfg.architecture())[0](cfg)
            if change is not None:
                change(sae)
            saes.append(sae)
    if init is None:
        return saes
    if change is None:
        _copy_state(init, saes)
    for sae in saes:
        _check_start(sae)
    return saes


def _copy_state(sources: Any, saes: Sequence[TrainingSAE[Any]]) -> None:
    n = len(saes)
    if len(check_sequence("init", sources, "SAEs, or a function")) != n:
        raise ValueError(f"init must hold one SAE per config, {n} in all, got {len(sources)}")
    for source, sae in zip(sources, saes, strict=True):
        given = check_instance("init", source, TrainingSAE).state_dict()
        for name, own in sae.state_dict().items():
            start = given.get(name)
            if start is None or start.shape != own.shape:
                got = "none" if start is None else tuple(start.shape)
                raise ValueError(f"init must have {name} of shape {tuple(own.shape)}, got {got}")
            own.copy_(start)


def _check_start(sae: TrainingSAE[Any]) -> None:
    """Check what `init` gave: all finite, and decoder rows by whose norm one can divide."""
    for name, value in sae.state_dict().items():
        check_finite(f"{name} of init", value)
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        zeros = (sae.W_dec.norm(dim=1) == 0).nonzero().flatten().tolist()
        if zeros:
            raise ValueError(
                "W_dec of init must have rows of a norm above 0, for activations are divided by "
                f"it, got 0 at row {zeros[0]}"
            )
