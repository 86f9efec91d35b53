"""A number that was found, with the bound that a claim sets to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A value, its interval over runs where it has one, and the bounds that it must keep.

    Attributes:
        name: what the number is, where a claim has several.
        value: the number, or the mean or share over `n` runs.
        low, high: the ends of the interval that must keep the bounds; the value itself for n = 1.
        n: number of runs behind the value.
        least, most: the bounds; None where there is none.
    """

    name: str
    value: float
    low: float
    high: float
    n: int = 1
    least: float | None = None
    most: float | None = None

    @property
    def room(self) -> float:
        """Distance of the interval from its nearer bound, in the value's unit; negative beyond."""
        if math.isnan(self.low) or math.isnan(self.high):
            return math.nan
        below = math.inf if self.least is None else self.low - self.least
        above = math.inf if self.most is None else self.most - self.high
        return min(below, above)

    @property
    def holds(self) -> bool:
        """Whether the whole interval keeps the bounds. Not a number keeps none."""
        return self.room >= 0

    def payload(self) -> dict[str, Any]:
        """The finding as JSON values; numbers that JSON lacks become text."""
        return {
            key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def at_least(found: Any, bound: Any, name: str = "") -> Finding:
    """The number found is `bound` or more. Arguments as in `between`."""
    return _finding(found, name, least=bound)


def at_most(found: Any, bound: Any, name: str = "") -> Finding:
    """The number found is `bound` or less. Arguments as in `between`."""
    return _finding(found, name, most=bound)


def between(found: Any, least: Any, most: Any, name: str = "") -> Finding:
    """The number found is `least` or more, and `most` or less.

    Args:
        found: a number; or one for each of several runs (seeds, draws), which stands for their
            mean with its interval (95 %, Student's t); or a Boolean for each of several runs,
            which stands for the share that are true with its interval (95 %, Wilson's). The whole
            interval must keep the bounds.
        least, most: the bounds, numbers.
        name: what the number is, for a claim with several.

    Raises:
        TypeError, ValueError: for what is no number or a list of fewer than two, or bounds that
            are not numbers or in the wrong order.

    Source: Wilson (1927) for shares.
    """
    finding = _finding(found, name, least=least, most=most)
    if least > most:
        raise ValueError(f"least must be at most most = {most!r}, got {least!r}")
    return finding


def _finding(found: Any, name: str, **bounds: Any) -> Finding:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    limits: dict[str, Any] = {key: _bound(key, bound) for key, bound in bounds.items()}
    runs = _runs(found)
    if runs is None:
        value = _number("found", found)
        return Finding(name=name, value=value, low=value, high=value, **limits)
    if len(runs) < 2:
        raise ValueError(f"found must be a number or hold at least two runs, got {len(runs)}")
    interval = _share if all(isinstance(run, bool) for run in runs) else _mean
    value, low, high = interval(runs)
    return Finding(name=name, value=value, low=low, high=high, n=len(runs), **limits)


def _runs(found: Any) -> list[Any] | None:
    """The entries of a list, array, tensor or column with one axis; None for a single number."""
    if getattr(found, "ndim", None) == 1 and hasattr(found, "tolist"):
        return list(found.tolist())
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [run.item() if getattr(run, "ndim", None) == 0 else run for run in found]
    return None


def _number(name: str, value: Any) -> float:
    item = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(item, bool) or not isinstance(item, float | int):
        raise TypeError(f"{name} must be a number, or one for each of several runs, got {value!r}")
    return float(item)


def _bound(name: str, value: Any) -> float:
    bound = _number(name, value)
    if math.isnan(bound):
        raise ValueError(f"{name} must be a number, got {bound}")
    return bound


def _mean(runs: list[Any]) -> tuple[float, float, float]:
    from scipy.special import stdtrit

    values, n = [_number("found", run) for run in runs], len(runs)
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    return mean, mean - half, mean + half


def _share(runs: list[bool]) -> tuple[float, float, float]:
    from scipy.special import ndtri

    n, z = len(runs), float(ndtri((1 + LEVEL) / 2))
    share = sum(runs) / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return share, max(0.0, middle - half), min(1.0, middle + half)
