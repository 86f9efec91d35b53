"""SAE architectures that sae-lens lacks, registered with sae-lens under their own names.

Importing this module registers them, so `sae_lens.TrainingSAE.from_dict`, loading and saving find
them. Taught in the chapters "Finding the true L0" and "Balancing Matryoshka SAEs".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TrainingSAE
from sae_lens.registry import (
    SAE_TRAINING_CLASS_REGISTRY,
    get_sae_training_class,
    register_sae_training_class,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from typing_extensions import override

from saebook._checks import (
    check_in_range,
    check_instance,
    check_non_negative_int,
    check_positive_int,
)
from saebook.matryoshka import (
    BalancedMatryoshkaBatchTopKTrainingSAE,
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAE,
    BalancedMatryoshkaTrainingSAEConfig,
)

__all__ = [
    "BalancedMatryoshkaBatchTopKTrainingSAE",
    "BalancedMatryoshkaBatchTopKTrainingSAEConfig",
    "BalancedMatryoshkaTrainingSAE",
    "BalancedMatryoshkaTrainingSAEConfig",
    "ScheduledBatchTopKTrainingSAE",
    "ScheduledBatchTopKTrainingSAEConfig",
    "widened",
    "with_k",
]


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


def with_k(sae: BatchTopKTrainingSAE, k: float) -> BatchTopKTrainingSAE:
    """A copy of a trained BatchTopK SAE that keeps k activations a sample; the original stays.

    Raises:
        TypeError: if the SAE is no BatchTopK SAE.
        ValueError: if k is not in (0, d_sae].
    """
    check_instance("sae", sae, BatchTopKTrainingSAE)
    changed = copy.deepcopy(sae)
    changed.activation_fn.k = check_in_range("k", k, 0, sae.cfg.d_sae, open_minimum=True)
    return changed


def widened(sae: TrainingSAE[Any], n_new: int, *, seed: int) -> TrainingSAE[Any]:
    """An SAE with `n_new` fresh latents after those of a trained one, to be trained further.

    The old latents keep their weights and the SAE its state, such as BatchTopK's threshold; the new
    latents are drawn as sae-lens draws them. The last prefix of a Matryoshka SAE grows with it.
    Taught in the chapter "Hedging and absorption".

    Args:
        sae: a trained sae-lens training SAE; it stays as it is.
        n_new: number of latents to add.
        seed: draws the new latents, as `torch.manual_seed` would.

    Raises:
        TypeError, ValueError: for what is no training SAE, or a number below 1.
    """
    check_instance("sae", sae, TrainingSAE)
    changes: dict[str, Any] = {"d_sae": sae.cfg.d_sae + check_positive_int("n_new", n_new)}
    if hasattr(sae.cfg, "matryoshka_widths"):
        changes["matryoshka_widths"] = [*sae.cfg.matryoshka_widths[:-1], changes["d_sae"]]
    cfg = replace(copy.deepcopy(sae.cfg), **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_non_negative_int("seed", seed))
        wide = get_sae_training_class(cfg.architecture())[0](cfg)
    wide.activation_fn = copy.deepcopy(sae.activation_fn)  # its k may be another than the config's
    state = wide.state_dict()
    for name, old in sae.state_dict().items():
        state[name][tuple(map(slice, old.shape))] = old
    return wide


_OURS = (
    (ScheduledBatchTopKTrainingSAE, ScheduledBatchTopKTrainingSAEConfig),
    (BalancedMatryoshkaTrainingSAE, BalancedMatryoshkaTrainingSAEConfig),
    (BalancedMatryoshkaBatchTopKTrainingSAE, BalancedMatryoshkaBatchTopKTrainingSAEConfig),
)
for _sae_class, _cfg_class in _OURS:
    if _cfg_class.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(_cfg_class.architecture(), _sae_class, _cfg_class)
