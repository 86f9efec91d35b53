"""What the benchmarks share: wall-clock time, the machine's peak, sae-lens' trainer as a peer."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from sae_lens import LoggingConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.synthetic import ActivationGenerator
from torch import Tensor

from saebook.worlds import CopulaWorld


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of a piece of work, its output thrown away."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start


def rounds(peers: dict[str, Callable[[], float]], n: int) -> dict[str, list[float]]:
    """What each peer gives in each of `n` rounds; all run in every round, once before to warm up.

    So a machine whose speed drifts still gives fair ratios.
    """
    for run in peers.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(n):
        for name, run in peers.items():
            found[name].append(run())
    return found


def ratio(times: Iterable[float], others: Iterable[float]) -> str:
    """How many times as long the first took: the median over the rounds, and the range."""
    each = [a / b for a, b in zip(times, others, strict=True)]
    return f"{statistics.median(each):.1f} ({min(each):.1f}–{max(each):.1f})"


def matmul_peak() -> float:
    """GFLOP/s of the best of three sizes of PyTorch's single-precision matrix product."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(size, size), torch.randn(size, size)
        out = torch.empty(size, size)
        fastest = min(seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)) for _ in range(8))
        best = max(best, 2 * size**3 / fastest / 1e9)
    return best


def trainer_config(steps: int, batch: int, device: str = "cpu") -> SAETrainerConfig:
    """sae-lens' trainer at a constant rate, with nothing to log or to save."""
    options: dict[str, Any] = {
        "lr": 3e-4,
        "lr_end": 3e-4,
        "lr_scheduler_name": "constant",
        "lr_warm_up_steps": 0,
        "lr_decay_steps": 0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "n_restart_cycles": 1,
        "dead_feature_window": 1000,
        "feature_sampling_window": 2000,
        "logger": LoggingConfig(log_to_wandb=False),
        "n_batches_for_norm_estimate": 1,
    }
    return SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        device=device,
        autocast=False,
        **options,
    )


def its_generator(world: CopulaWorld) -> ActivationGenerator:
    """sae-lens' own generator of activations, for the world of fifty features."""
    return ActivationGenerator(
        world.n_features,
        world.firing_probabilities.float(),
        std_firing_magnitudes=0.15,
        correlation_matrix=world.correlation.float(),
    )


class Cycle:
    """A few batches again and again, as a source for either trainer."""

    def __init__(self, *shape: int, n: int = 8, device: str = "cpu") -> None:
        rng = torch.Generator().manual_seed(0)
        self.batches = [torch.randn(shape, generator=rng).to(device) for _ in range(n)]
        self.drawn = 0

    def __call__(self, *_: object) -> Tensor:
        self.drawn += 1
        return self.batches[self.drawn % len(self.batches)]
