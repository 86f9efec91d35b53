"""The batches of a run: drawn, checked, shared by the workers."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from saebook._checks import check_finite
from saebook.training.engine.buffers import Batch

SampleBatch = Callable[[int, torch.Generator], Tensor]


def checked_batch(
    sample_batch: SampleBatch, shape: tuple[int, int], generator: torch.Generator, step: int
) -> Tensor:
    """The batch of a step as it was drawn, of the `shape` (batch, d_in) wanted and finite."""
    x = sample_batch(shape[0], generator)
    if not isinstance(x, Tensor) or x.shape != shape:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"sample_batch must return a tensor of shape {shape}, got {got} at step {step}"
        )
    if not torch.isfinite(x.sum()):
        check_finite(f"the batch that sample_batch returned at step {step}", x)
    return x


class Batches:
    """The batches of a few steps, each drawn by whoever is first to need it, kept for the others.

    Args:
        draw: gives the batch of a step.
        steps: the steps, in whose order batches are drawn.
        n_readers: how often each batch is asked for.
    """

    def __init__(self, draw: Callable[[int], Batch], steps: range, *, n_readers: int) -> None:
        self._draw, self._steps = draw, steps
        self._lock = Lock()
        self._kept: dict[int, Batch] = {}
        self._left = dict.fromkeys(steps, n_readers)
        self._error: BaseException | None = None

    def __call__(self, step: int) -> Batch:
        if step not in self._kept:
            with self._lock:
                self._draw_up_to(step)
        batch = self._kept[step]
        with self._lock:
            self._left[step] -= 1
            if not self._left[step]:
                del self._kept[step]
        return batch

    def first(self) -> Batch:
        """That of the first step, which stays."""
        self._draw_up_to(self._steps.start)
        return self._kept[self._steps.start]

    def _draw_up_to(self, step: int) -> None:
        if self._error:
            raise self._error
        try:
            for each in range(self._steps.start, step + 1):
                if self._left[each] and each not in self._kept:
                    self._kept[each] = self._draw(each)
        except BaseException as error:
            self._error = error  # no other worker shall ask the source again
            raise
