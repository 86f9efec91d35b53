"""What an ensemble did while it trained: losses, L0, variance explained and dead latents.

The numbers are those of sae-lens' own forward pass, not of the hand-written gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from saebook._checks import check_instance, check_positive_int
from saebook.metrics.reconstruction import l0, variance_explained
from saebook.training.schedules import coefficients_at

Row = dict[str, float]


class TrainingLog:
    """Collects one row for each SAE every few steps, and at the last step.

    Pass it to `train_ensemble`, then read its `table()`. One log holds one run.

    Args:
        every: steps between two rows.

    Raises:
        ValueError, TypeError: if `every` is not a whole number of at least 1.
    """

    def __init__(self, every: int = 100) -> None:
        self.every = check_positive_int("every", every)
        self.rows: list[Row] = []

    def wants(self, step: int, steps: int) -> bool:
        """Whether a step, counted from 0, of a run of so many `steps` is recorded."""
        return step % self.every == 0 or step == steps - 1

    def table(self) -> pd.DataFrame:
        """One row for each SAE and recorded step, as they were before that step's update.

        Columns: `step`; `sae`, its index in the ensemble; `lr`, the learning rate; `loss` and its
        parts under sae-lens' names, means over the step's batch (`mse_loss` sums over the entries
        of an input); `l0`; `variance_explained`, a share of the batch's variance round its mean;
        `n_dead`, how many latents count as dead.
        """
        whole = {name: int for name in ("step", "sae", "n_dead") if self.rows}
        return pd.DataFrame(self.rows).astype(whole)


def check_log(log: Any) -> TrainingLog | None:
    """Return the log if it is empty, or None.

    Raises:
        TypeError, ValueError: for anything else, or the log of another run.
    """
    if log is None:
        return None
    if check_instance("log", log, TrainingLog).rows:
        raise ValueError(f"log must be empty, got one with {len(log.rows)} rows of another run")
    return log


def training_row(
    sae: TrainingSAE[Any],
    x: Float[Tensor, "batch d_in"],
    dead: Bool[Tensor, " d_sae"],
    *,
    step: int,
) -> Row:
    """The losses and measures of one SAE on the batch of a training step; it may alter the SAE."""
    output = sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients_at(sae, step),
            dead_neuron_mask=dead,
            n_training_steps=step,
            is_logging_step=True,
        )
    )
    losses: Mapping[str, Tensor] = {"loss": output.loss, **output.losses}
    return {name: float(loss) for name, loss in losses.items()} | {
        "l0": l0(output.feature_acts),
        "variance_explained": variance_explained(x, output.sae_out),
        "n_dead": int(dead.sum()),
    }


def training_rows(
    saes: Sequence[TrainingSAE[Any]],
    x: Float[Tensor, "batch d_in"],
    dead: Bool[Tensor, "saes d_sae"],
    *,
    step: int,
    lrs: Sequence[float],
) -> list[Row]:
    """The rows of several SAEs, all but their indices."""
    with torch.no_grad():
        return [
            {"step": step, "lr": lr, **training_row(sae, x, mask, step=step)}
            for sae, mask, lr in zip(saes, dead, lrs, strict=True)
        ]
