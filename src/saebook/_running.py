"""What a training loop needs around its steps: a progress bar, one thread or several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

T = TypeVar("T")
WORTH_A_THREAD = 2**21  # multiplications that take some ten times as long as starting a thread


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
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def spread(work: Callable[..., object], n: int, *args: object, cost: int) -> None:
    """Call `work(first, last, *args)` on parts of `range(n)`, side by side on torch's threads.

    Args:
        work: frees the GIL.
        n: length of the range.
        cost: multiplications in all; threads are started where each has enough to do.
    """
    n_parts = max(1, min(torch.get_num_threads(), n, cost // WORTH_A_THREAD))
    if n_parts == 1:
        work(0, n, *args)
        return
    parts = pairwise(n * i // n_parts for i in range(n_parts + 1))
    with ThreadPoolExecutor(n_parts) as pool:
        list(pool.map(lambda part: work(*part, *args), parts))


class InTurn(Executor):
    """Does its work when it is handed in: on a small step a thread would only be waited for."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # raised where the result is asked for, as by a thread
            done.set_exception(error)
        return done
