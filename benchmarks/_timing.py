"""What the benchmarks share."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of a piece of work, its output thrown away."""
    with contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
