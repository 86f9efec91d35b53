"""Checks of a reader's own answer to an exercise, which do not show the right one.

In a chapter a check stands below `my_answer = None`. The reader puts an answer there and runs the
cell. A wrong answer never raises: it gets a verdict with a hint. The hidden solution hands its
answer to the same check with `strict=True`, so that a check and a solution that disagree stop the
build.
"""

from __future__ import annotations

import copy
import hashlib
import html
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

_STEPS = 10  # of the grid of a number, per tolerance
_MARKS = {True: "✓ Right.", False: "✗ Not yet.", None: "○ No answer yet."}

# What may have gone wrong with a number, and what would put it right.
_SLIPS: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("Its sign is wrong.", lambda a: -a),
    ("It is twice the answer.", lambda a: a / 2),
    ("It is half of the answer.", lambda a: 2 * a),
    ("It is a hundred times the answer; was a fraction asked for?", lambda a: a / 100),
    ("It is the reciprocal of the answer.", lambda a: 1 / a),
    ("It is one minus the answer.", lambda a: 1 - a),
    ("It is the square of the answer.", lambda a: math.sqrt(abs(a))),
    ("It is the root of the answer.", lambda a: a * a),
)


class ExerciseError(AssertionError):
    """A solution of the book does not pass the check of its exercise."""


@dataclass(frozen=True)
class Verdict:
    """What a check says of an answer, shown as one line.

    Attributes:
        passed: whether the answer is right; None if there is none yet.
        hint: a sentence on what to do or what went wrong; may be empty.
    """

    passed: bool | None
    hint: str = ""

    def __repr__(self) -> str:
        return f"{_MARKS[self.passed]} {self.hint}".strip()

    def _repr_html_(self) -> str:
        return f"<p><strong>{_MARKS[self.passed]}</strong> {html.escape(self.hint)}</p>"


_UNANSWERED = Verdict(None, "Replace None by your answer and run the cell again.")


class _Check(ABC):
    """A check that is called with the answer."""

    def __call__(self, answer: Any, *, strict: bool = False) -> Verdict:
        """Judge an answer; `strict` is for solutions and raises unless it is right.

        Raises:
            ExerciseError: if `strict` and the answer is missing or wrong.
        """
        verdict = _UNANSWERED if answer is None else self._judge(answer)
        if strict and not verdict.passed:
            raise ExerciseError(f"the solution {answer!r} does not pass: {verdict}")
        return verdict

    @abstractmethod
    def _judge(self, answer: Any) -> Verdict: ...


def digest_of(answer: float | str, tolerance: float | None = None) -> str:
    """The digest that a `Number` of this tolerance, or a `Choice`, compares with.

    A number is first rounded to a tenth of the tolerance, where neighbours can be tried.

    Raises:
        TypeError, ValueError: for a tolerance that is not a positive number.
    """
    if isinstance(answer, str):
        return _hash(answer)
    step = _positive(tolerance) / _STEPS
    return _hash(f"{step:.6g} times {round(answer / step)}")


def _hash(text: str) -> str:
    return hashlib.sha256(f"saebook.exercises: {text}".encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Number(_Check):
    """Check of a number that is known by its digest only.

    Attributes:
        digest: `digest_of` the right answer at this tolerance.
        tolerance: how far off an answer may be; the right one is rounded to a tenth of this.
    """

    digest: str
    tolerance: float

    def __post_init__(self) -> None:
        _positive(self.tolerance)

    def _judge(self, answer: Any) -> Verdict:
        number = answer.item() if getattr(answer, "ndim", None) == 0 else answer
        if isinstance(number, bool) or not isinstance(number, Real):
            return Verdict(False, f"Expected a number, got {_brief(answer)}.")
        value = float(number)
        if not math.isfinite(value):
            return Verdict(False, f"Expected a finite number, got {value}.")
        if self._fits(value):
            return Verdict(True, f"It is within {self.tolerance:g} of the answer.")
        for slip, mend in _SLIPS:
            if value and self._fits(mend(value)):
                return Verdict(False, slip)
        if self._fits(value, reach=10):
            return Verdict(False, f"You are close, but not within {self.tolerance:g}.")
        return Verdict(False, f"{value:g} is not within {self.tolerance:g} of the answer.")

    def _fits(self, value: float, *, reach: int = 1) -> bool:
        """Whether a number of the grid within `reach` tolerances has the digest."""
        step = self.tolerance / _STEPS
        place, far = value / step, reach * _STEPS + 1e-6  # an error of rounding is no error
        if abs(place) > 1e15:  # beyond what floats can count
            return False
        cells = range(math.ceil(place - far), math.floor(place + far) + 1)
        return any(digest_of(cell * step, self.tolerance) == self.digest for cell in cells)


@dataclass(frozen=True, kw_only=True)
class Choice(_Check):
    """Check of a choice among named options.

    Attributes:
        options: the options to choose from.
        digest: `digest_of` the right one.
    """

    options: Sequence[str]
    digest: str

    def _judge(self, answer: Any) -> Verdict:
        if not isinstance(answer, str) or answer not in tuple(self.options):
            wanted = ", ".join(map(repr, self.options))
            return Verdict(False, f"Expected one of {wanted}, got {_brief(answer)}.")
        right = _hash(answer) == self.digest
        return Verdict(right, "" if right else "Go through the argument once more.")


@dataclass(frozen=True, kw_only=True)
class Function(_Check):
    """Check of the reader's function against the library's own on given inputs.

    Attributes:
        reference: the function to agree with; it returns a number, a tensor or an array.
        inputs: for each call a tuple of positional arguments.
        tolerance: the difference allowed, absolute or relative.
    """

    reference: Callable[..., Any]
    inputs: Sequence[tuple[Any, ...]]
    tolerance: float = 1e-4

    def _judge(self, answer: Any) -> Verdict:
        if not callable(answer):
            return Verdict(False, f"Expected a function, got {_brief(answer)}.")
        for number, arguments in enumerate(self.inputs, start=1):
            try:
                found = answer(*copy.deepcopy(arguments))
            except Exception as error:  # the reader's code may do anything
                return Verdict(
                    False, f"On input {number} it raises {type(error).__name__}: {error}"
                )
            if found is None:
                return Verdict(None, "Write the function's body and run the cell again.")
            fault = self._fault(found, self.reference(*copy.deepcopy(arguments)))
            if fault:
                shown = ", ".join(map(_brief, arguments))
                return Verdict(False, f"On input {number}, ({shown}), {fault}.")
        return Verdict(True, f"It agrees with the library's on all {len(self.inputs)} inputs.")

    def _fault(self, found: Any, expected: Any) -> str:
        """How a result differs from the expected one; empty if it does not."""
        want = np.asarray(expected, dtype=float)
        try:
            have = np.asarray(found, dtype=float)
        except (TypeError, ValueError, RuntimeError):
            return f"it returns {_brief(found)}, expected {_brief(expected)}"
        if have.shape != want.shape:
            return f"the result has shape {have.shape}, expected {want.shape}"
        same = np.isclose(have, want, rtol=self.tolerance, atol=self.tolerance, equal_nan=True)
        if same.all():
            return ""
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        place = f" at {list(at)}" if at else ""
        return f"it returns {have[at]:.4g}{place}, expected {want[at]:.4g}"


def _brief(value: Any) -> str:
    """A value in a few characters: the entries of a small array, the shape of a large one."""
    if hasattr(value, "shape"):
        size = math.prod(value.shape)
        if size <= 12:
            return str(np.asarray(value).round(3).tolist())
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _positive(tolerance: Any) -> float:
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real):
        raise TypeError(f"tolerance must be a number, got {tolerance!r}")
    number = float(tolerance)
    if not 0 < number < math.inf:
        raise ValueError(f"tolerance must be in (0, inf), got {tolerance!r}")
    return number
