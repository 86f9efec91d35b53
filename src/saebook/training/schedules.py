"""How the learning rate and the coefficients of the loss change over training, as in sae-lens."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig
from sae_lens.training.optim import get_lr_scheduler

from saebook._checks import (
    check_in_range,
    check_non_negative_int,
    check_one_of,
    check_positive,
    check_sequence,
)

SCHEDULES = ("constant", "cosineannealing")


def ensemble_learning_rates(
    lr: float | Sequence[float], n_saes: int, **schedule: Any
) -> list[list[float]]:
    """The learning rates of every SAE of an ensemble, worked out once for each distinct `lr`.

    Raises:
        ValueError: for another number of rates than SAEs, and what `learning_rates` raises.
    """
    single = isinstance(lr, Real)
    each: list[Any] = [lr] * n_saes if single else list(check_sequence("lr", lr, "rates"))
    if len(each) != n_saes:
        raise ValueError(f"lr must hold one rate per config, {n_saes} in all, got {len(each)}")
    distinct = {rate: learning_rates(rate, **schedule) for rate in dict.fromkeys(each)}
    return [distinct[rate] for rate in each]


def learning_rates(
    lr: float,
    *,
    steps: int,
    lr_scheduler_name: str = "constant",
    lr_end: float | None = None,
    lr_warm_up_steps: int = 0,
    lr_decay_steps: int = 0,
) -> list[float]:
    """The learning rate of every step, by sae-lens' scheduler; arguments as in `train_ensemble`.

    Raises:
        ValueError: if warm-up and decay together are longer than the training, or leave no step for
            the cosine; for another schedule; for an `lr_end` above `lr` or without a cosine.
    """
    check_positive("lr", lr)
    check_one_of("lr_scheduler_name", lr_scheduler_name, SCHEDULES)
    cosine = lr_scheduler_name == "cosineannealing"
    if lr_end is not None and not cosine:
        raise ValueError(
            f"lr_end must be None without lr_scheduler_name 'cosineannealing', got {lr_end}"
        )
    lr_end = lr / 10 if lr_end is None else check_in_range("lr_end", lr_end, 0, lr)
    if lr_end == 0 and lr_decay_steps:
        raise ValueError(f"lr_decay_steps must be 0 where lr_end is, got {lr_decay_steps}")
    _check_parts(lr_warm_up_steps, lr_decay_steps, steps, most=steps - 1 if cosine else steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = get_lr_scheduler(
        lr_scheduler_name,
        optimizer=optimizer,
        training_steps=steps,
        lr=lr,
        warm_up_steps=lr_warm_up_steps,
        decay_steps=lr_decay_steps,
        lr_end=lr_end,
        num_cycles=1,
    )
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _check_parts(warm_up: int, decay: int, steps: int, *, most: int) -> None:
    check_non_negative_int("lr_warm_up_steps", warm_up)
    check_non_negative_int("lr_decay_steps", decay)
    if warm_up + decay > most:
        raise ValueError(
            f"lr_warm_up_steps + lr_decay_steps must be at most {most} of {steps} steps, "
            f"got {warm_up} + {decay}"
        )


def coefficients_at(sae: TrainingSAE[Any], step: float) -> dict[str, float]:
    """The coefficients of the loss at a step of training, after their linear warm-up."""
    found = {}
    for name, value in sae.get_coefficients().items():
        warm_up = value.warm_up_steps if isinstance(value, TrainCoefficientConfig) else 0
        final = value.value if isinstance(value, TrainCoefficientConfig) else value
        found[name] = final * (min(1.0, step / warm_up) if warm_up > 0 else 1.0)
    return found
