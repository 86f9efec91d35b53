"""BatchTopK with a k that moves during training."""

from __future__ import annotations

from dataclasses import dataclass

from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from typing_extensions import override

from saebook._checks import (
    check_in_range,
    check_non_negative_int,
)


@dataclass
class ScheduledBatchTopKTrainingSAEConfig(BatchTopKTrainingSAEConfig):
    """BatchTopK whose k moves in a straight line from `initial_k` to `k` during training.

    Source: the k transitions of Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560).

    Args:
        initial_k: mean number of active latents per sample before the transition; `None` means `k`.
        transition_k_start_step: first step at which k moves.
        transition_k_duration_steps: number of steps it takes; 0 makes k jump to its final value.

    Raises:
        ValueError: if a k is not in (0, d_sae] or a number of steps is negative.
    """

    initial_k: float | None = None
    transition_k_start_step: int = 0
    transition_k_duration_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("k", self.k), ("initial_k", self.initial_k)):
            if value is not None:
                check_in_range(name, value, 0, self.d_sae, open_minimum=True)
        check_non_negative_int("transition_k_start_step", self.transition_k_start_step)
        check_non_negative_int("transition_k_duration_steps", self.transition_k_duration_steps)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "scheduled_batchtopk"

    def k_at(self, step: int) -> float:
        """The k in force at a training step, counted from 0."""
        if self.initial_k is None:
            return self.k
        past = step - self.transition_k_start_step
        if past < 0:
            return self.initial_k
        if past >= self.transition_k_duration_steps:
            return self.k
        return self.initial_k + (self.k - self.initial_k) * past / self.transition_k_duration_steps


class ScheduledBatchTopKTrainingSAE(BatchTopKTrainingSAE):
    """A BatchTopK training SAE that follows the k schedule of its config.

    The k of the last training step stays in force for `encode`; it is the config's final `k` once
    the transition is over.
    """

    cfg: ScheduledBatchTopKTrainingSAEConfig

    def set_step(self, step: int) -> None:
        """Put the k of a training step, counted from 0, in force."""
        self.activation_fn.k = self.cfg.k_at(step)

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        self.set_step(step_input.n_training_steps)
        return super().training_forward_pass(step_input)
