"""The settings that all trainers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sae_lens import TrainingSAE

from saebook._checks import (
    check_function,
    check_instance,
    check_non_negative_int,
    check_positive_int,
)
from saebook.training.log import TrainingLog
from saebook.training.resampling import Resampling
from saebook.training.schedules import ensemble_learning_rates

Callback = Callable[[int, Callable[[], list[TrainingSAE]]], None]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train: the length, the rate and its schedule, what to do on the way, and where.

    A trainer says which of these it takes; `dataclasses.replace` varies them.

    Attributes:
        steps: number of training steps.
        batch_size: samples a step.
        lr: learning rate of Adam (sae-lens' betas 0.9 and 0.999); or one for each SAE.
        lr_scheduler_name: what the rate does between warm-up and decay, by sae-lens' name:
            "constant", or "cosineannealing" for half a cosine from `lr` down to `lr_end`.
        lr_end: rate at the end of the cosine; by default `lr / 10`, as in sae-lens.
        lr_warm_up_steps: steps of a linear rise from 0 at the start.
        lr_decay_steps: steps of a linear fall to 0 at the end.
        dead_feature_window: a latent silent for more than this many steps counts as dead.
        resampling: when and how to give dead latents new weights; by default never.
        log: an empty `TrainingLog` to fill.
        callback: called before each step with its number and a function that gives the SAEs as
            they are then. That function costs time, the call itself none.
        device: where the weights live while they train, such as "cpu" or "cuda".
        sparse: whether a step works on kept activations alone: TopK, BatchTopK and their kin can,
            with the same numbers to rounding. By default where that is faster, which is where a
            sample keeps at most a tenth of many latents.
        checkpoint: a file to save the run to, every 1,000 steps. A run that was killed goes on from
            it and ends with the same weights (bit for bit on one thread; on several, a product
            may be summed in another order); the file is removed at the end.
        n_shards: number of joblib tasks to split the SAEs into, each a stacked program on one
            thread. joblib's `parallel_config` says where they run: in this process by default, in
            others on this machine, on a Dask cluster. The batches and, to rounding, the weights are
            those of one stack; and bit for bit the same wherever the shards run, on processors of
            one kind. Each gets a copy of the source of batches as it is at the start, and a
            checkpoint file of its own, which all workers must reach.
        progress: show a progress bar when standard error is a terminal.

    Raises:
        ValueError, TypeError: for numbers out of range, or things of another kind.

    Example: watch the L0 on the way. ::

        def watch(step, saes):
            if step % 100 == 0:
                print(step, [l0(sae.encode(x)) for sae in saes()])

        options = TrainingOptions(steps=1000, callback=watch)
        saes = train_ensemble(cfgs, world.sample, options, seeds=5, generator=0)
    """

    steps: int
    batch_size: int = 1024
    lr: float | Sequence[float] = 3e-4
    lr_scheduler_name: str = "constant"
    lr_end: float | None = None
    lr_warm_up_steps: int = 0
    lr_decay_steps: int = 0
    dead_feature_window: int = 1000
    resampling: Resampling | None = None
    log: TrainingLog | None = None
    callback: Callback | None = None
    device: str | torch.device = "cpu"
    sparse: bool | None = None
    checkpoint: str | Path | None = None
    n_shards: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        check_positive_int("steps", self.steps)
        check_positive_int("batch_size", self.batch_size)
        check_non_negative_int("dead_feature_window", self.dead_feature_window)
        check_positive_int("n_shards", self.n_shards)
        if self.resampling is not None:
            check_instance("resampling", self.resampling, Resampling)
        if self.log is not None:
            check_instance("log", self.log, TrainingLog)
        if self.callback is not None:
            check_function("callback", self.callback, "of a step and a function that gives SAEs")
            if self.n_shards > 1:
                raise ValueError("callback must be None where n_shards is above 1: shards are away")

    def only(self, *names: str) -> None:
        """Check that no other options than these have been set.

        Raises:
            ValueError: naming the first that has, which the trainer would ignore.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in names and value != field.default:
                raise ValueError(
                    f"{field.name} must be left at {field.default!r} here, got {value!r}: this "
                    f"trainer takes {', '.join(names)}"
                )

    def learning_rates(self, n_saes: int) -> list[list[float]]:
        """The learning rate of every step, for each SAE."""
        return ensemble_learning_rates(
            self.lr,
            n_saes,
            steps=self.steps,
            lr_scheduler_name=self.lr_scheduler_name,
            lr_end=self.lr_end,
            lr_warm_up_steps=self.lr_warm_up_steps,
            lr_decay_steps=self.lr_decay_steps,
        )
