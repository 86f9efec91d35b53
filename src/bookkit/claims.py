"""The ledger of claims: a statement about a result, the value found, and whether it holds.

A chapter states what it found with `check`. A claim about a number gives the number with its bound,
and over several runs with its interval: `at_least`, `at_most`, `between`. A true statement is shown
under its cell and listed on the Claims page. A false one is marked there, and stops nothing: what
follows it still runs. `make book` lists all false claims at its end, and fails for them in CI.
"""

from __future__ import annotations

import html
import math
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bookkit._findings import Finding, at_least, at_most, between

__all__ = [
    "Claim",
    "ClaimWarning",
    "Finding",
    "at_least",
    "at_most",
    "between",
    "check",
    "format_finding",
    "format_value",
]

MIME = "application/vnd.bookkit.claim+json"

Scalar = float | int | str
Value = Scalar | tuple[Scalar, ...]

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class ClaimWarning(UserWarning):
    """A claim about a result is false, outside of a notebook."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about a result that was checked.

    It holds if its numbers keep their bounds, and `rest`, all else that was checked, is true.
    """

    id: str
    statement: str
    value: Value | None = None
    published: Value | None = None
    source: str | None = None
    rest: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the statement is true of this run."""
        return self.rest and all(finding.holds for finding in self.findings)

    @property
    def verdict(self) -> str:
        """What stands before the statement."""
        return "✓ Claim." if self.holds else "✗ Does not hold here."

    @property
    def found(self) -> str:
        """The value for reading: as it was given, or the numbers found with their bounds."""
        return "; ".join(self.numbers)

    @property
    def numbers(self) -> list[str]:
        """Each number found with its bounds, for reading; or one string, the value as given."""
        if self.value is None and self.findings:
            return [format_finding(finding) for finding in self.findings]
        return [format_value(self.value)]

    @property
    def anchor(self) -> str:
        """The HTML id under which the claim can be linked to."""
        return f"claim-{self.id}"

    def payload(self) -> dict[str, Any]:
        """The claim as JSON values; `value` and `published` are formatted for reading."""
        return {
            "id": self.id,
            "statement": self.statement,
            "value": self.found,
            "numbers": self.numbers,
            "published": format_value(self.published),
            "source": self.source or "",
            "anchor": self.anchor,
            "holds": self.holds,
            "rest": self.rest,
            "verdict": self.verdict,
            "findings": [finding.payload() for finding in self.findings],
        }

    def html(self) -> str:
        """The claim as one line of HTML with an anchor."""
        esc = html.escape
        found = f' <span class="claim-value">{esc(self.found)}</span>' if self.found != "–" else ""
        kind = "claim" if self.holds else "claim claim-false"
        told = ", ".join(
            part
            for part in (
                f"published {format_value(self.published)}" if self.published is not None else "",
                self.source or "",
            )
            if part
        )
        return (
            f'<div class="{kind}" id="{esc(self.anchor)}">'
            f'<span class="claim-verdict">{self.verdict}</span> '
            f"{esc(self.statement)}{found}{f' ({esc(told)})' if told else ''}</div>"
        )

    def text(self) -> str:
        """The claim as one line of plain text."""
        told = f" (published {format_value(self.published)})" if self.published is not None else ""
        found = f": {self.found}" if self.found != "–" else ""
        return f"{self.verdict} {self.statement}{found}{told}"

    def _ipython_display_(self) -> None:
        """Show nothing: `check` has, and a cell's last value would be displayed once more."""


def check(
    id: str,
    statement: str,
    holds: Any,
    *,
    value: Any = None,
    published: Any = None,
    source: str | None = None,
) -> Claim:
    """Check a statement about a result and enter it in the ledger.

    Args:
        id: a slug, unique in the book: lower-case words and digits joined by hyphens.
        statement: the claim in words, as plain text.
        holds: what the statement comes to: a number with its bounds (`at_least`, `at_most`,
            `between`); or a Boolean (Python's, NumPy's, or a PyTorch tensor without axes) where
            there is no number; or a list of these, all of which must hold.
        value: what to show as the value found, in place of the numbers and bounds of `holds`: a
            number, a string, a scalar array or tensor, or a list of these.
        published: the value that the source gives, of the same kinds.
        source: a key of the bibliography ("chanin2025sparse") or free text.

    Returns:
        The claim. In a notebook it has also been displayed; elsewhere a false one gives a warning.

    Raises:
        TypeError, ValueError: an argument is not what is expected.
    """
    parts = _parts(holds)
    claim = Claim(
        id=_slug(id),
        statement=_text("statement", statement),
        value=_value("value", value),
        published=_value("published", published),
        source=None if source is None else _text("source", source),
        rest=all(part for part in parts if isinstance(part, bool)),
        findings=tuple(part for part in parts if isinstance(part, Finding)),
    )
    _show(claim)
    return claim


def format_finding(finding: Finding) -> str:
    """Format a number with its bounds for reading, such as "0.043 (0.038 to 0.048) ≥ 0.02"."""
    shown = format_value(finding.value)
    if finding.n > 1:
        shown += f" ({format_value(finding.low)} to {format_value(finding.high)})"
    if finding.least is not None and finding.most is not None:
        shown += f" in {format_value(finding.least)} to {format_value(finding.most)}"
    elif finding.least is not None:
        shown += f" ≥ {format_value(finding.least)}"
    elif finding.most is not None:
        shown += f" ≤ {format_value(finding.most)}"
    return f"{finding.name}: {shown}" if finding.name else shown


def format_value(value: Value | None) -> str:
    """Format a value for reading: three significant digits, a true minus sign, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, tuple):
        return ", ".join(map(format_value, value))
    if isinstance(value, str):
        return value
    return _number(value).replace("-", "−")


def _number(value: float | int) -> str:
    if isinstance(value, int) or value == 0:
        return f"{value:,}" if isinstance(value, int) else "0"
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _slug(id: Any) -> str:
    if not isinstance(id, str) or not _SLUG.fullmatch(id):
        raise ValueError(
            "id must be lower-case words and digits joined by hyphens, such as 'low-k-error', "
            f"got {id!r}"
        )
    return id


def _text(name: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} must be a string that is not empty, got {text!r}")
    return text.strip()


def _parts(holds: Any) -> list[Finding | bool]:
    """The numbers with bounds, and the Booleans, that a claim rests on."""
    if isinstance(holds, list | tuple):
        if not holds:
            raise ValueError("holds must have at least one part, got an empty list")
        return [part for each in holds for part in _parts(each)]
    item = _item(holds)
    if not isinstance(item, bool | Finding):
        raise TypeError(
            "holds must be a number with its bounds (`at_least`, `at_most`, `between`), a single "
            f"Boolean (Python, NumPy or PyTorch), or a list of these, got {holds!r}"
        )
    return [item]


def _value(name: str, value: Any) -> Value | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_scalar(name, entry) for entry in value)
    if getattr(value, "ndim", 0) == 1:
        return tuple(_scalar(name, entry) for entry in value)
    return _scalar(name, value)


def _scalar(name: str, value: Any) -> Scalar:
    item = _item(value)
    if isinstance(item, bool) or not isinstance(item, float | int | str):
        raise TypeError(
            f"{name} must be a number, a string, a scalar array or tensor, or a list of these, "
            f"got {value!r}"
        )
    return item


def _item(value: Any) -> Any:
    """The Python value inside an array or tensor without axes; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _show(claim: Claim) -> None:
    """Display the claim if this is a notebook's kernel; elsewhere warn of a false one."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is not None:
        bundle = {"text/plain": claim.text(), "text/html": claim.html(), MIME: claim.payload()}
        ipython.display.display(bundle, raw=True)
    elif not claim.holds:
        told = f"claim {claim.id!r} does not hold: {claim.statement} (found: {claim.found})"
        warnings.warn(told, ClaimWarning, stacklevel=3)
