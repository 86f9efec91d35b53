"""What a training loop needs around its steps: a progress bar, one thread for small work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm


def step_bar(steps: range, what: str, *, progress: bool, unit: str = "step") -> Any:
    """A bar over the steps still to take, of `what` trains; only if wanted and in a terminal."""
    return tqdm(
        steps,
        initial=steps.start,
        total=steps.stop,
        desc=f"Training {what}",
        unit=unit,
        disable=not (progress and sys.stderr.isatty()),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute each operation on one thread, so that none waits for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
