"""The ledger of claims: a statement about a result, the value found, and whether it holds.

A chapter states what it found with `check`. A false statement stops the chapter, and so the build;
a true one is shown under its cell and listed on the Claims page. Outside a notebook `check` shows
nothing and behaves the same.

The chapters were written for the embedded language model and its text. Where `SAEBOOK_MODEL` or
`SAEBOOK_TEXT` names others, a false statement stops nothing: it is shown and listed as false there.
"""

from __future__ import annotations

import html
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MIME = "application/vnd.saebook.claim+json"

Scalar = float | int | str
Value = Scalar | tuple[Scalar, ...]

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_checked: dict[str, str] = {}


class ClaimError(AssertionError):
    """A claim about a result is false."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about a result that was checked; false only for another model or text."""

    id: str
    statement: str
    value: Value | None = None
    published: Value | None = None
    source: str | None = None
    holds: bool = True

    @property
    def verdict(self) -> str:
        """What stands before the statement."""
        return "✓ Claim." if self.holds else "✗ Not so for this model and text."

    @property
    def anchor(self) -> str:
        """The HTML id under which the claim can be linked to."""
        return f"claim-{self.id}"

    def payload(self) -> dict[str, Any]:
        """The claim as JSON values, with `value` and `published` formatted for reading."""
        shown = {"value": format_value(self.value), "published": format_value(self.published)}
        return {**asdict(self), **shown, "anchor": self.anchor}

    def html(self) -> str:
        """The claim as one line of HTML with an anchor."""
        esc = html.escape
        found = (
            f' <span class="claim-value">{esc(format_value(self.value))}</span>'
            if self.value is not None
            else ""
        )
        told = ", ".join(
            part
            for part in (
                f"published {format_value(self.published)}" if self.published is not None else "",
                self.source or "",
            )
            if part
        )
        return (
            f'<div class="claim" id="{esc(self.anchor)}">'
            f'<span class="claim-verdict">{self.verdict}</span> '
            f"{esc(self.statement)}{found}{f' ({esc(told)})' if told else ''}</div>"
        )

    def text(self) -> str:
        """The claim as one line of plain text."""
        told = f" (published {format_value(self.published)})" if self.published is not None else ""
        found = f": {format_value(self.value)}" if self.value is not None else ""
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
        holds: a Boolean: Python's, NumPy's, or a PyTorch tensor without axes.
        value: the value found: a number, a string, a scalar array or tensor, or a list of these.
        published: the value that the source gives, of the same kinds.
        source: a key of the bibliography ("chanin2025sparse") or free text.

    Returns:
        The claim. In a notebook it has also been displayed.

    Raises:
        ClaimError: the statement is false, and no other model or text was asked for.
        TypeError, ValueError: an argument is not what is expected.
    """
    claim = Claim(
        id=_slug(id),
        statement=_text("statement", statement),
        value=_value("value", value),
        published=_value("published", published),
        source=None if source is None else _text("source", source),
        holds=_boolean(holds),
    )
    _enter(claim)
    if not claim.holds and not _elsewhere():
        raise ClaimError(
            f"claim {claim.id!r} is false: {claim.statement} "
            f"(value found: {format_value(claim.value)})"
        )
    _show(claim)
    return claim


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
            f"id is {id!r}; expected lower-case words and digits joined by hyphens, "
            "such as 'low-k-error'"
        )
    return id


def _text(name: str, text: Any) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}; expected a string that is not empty")
    return text.strip()


def _boolean(holds: Any) -> bool:
    item = _item(holds)
    if not isinstance(item, bool):
        raise TypeError(f"holds is {holds!r}; expected a single Boolean (Python, NumPy or PyTorch)")
    return item


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
            f"{name} is {value!r}; expected a number, a string, a scalar array or tensor, "
            "or a list of these"
        )
    return item


def _item(value: Any) -> Any:
    """The Python value inside an array or tensor without axes; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _elsewhere() -> bool:
    """Whether the chapters read another model or text than those they were written for."""
    default = {"SAEBOOK_MODEL": "embedded", "SAEBOOK_TEXT": "docstrings"}
    return any(os.environ.get(name) not in (None, "", value) for name, value in default.items())


def _enter(claim: Claim) -> None:
    """Refuse a second claim under an id; the same claim again is a cell that was run again."""
    earlier = _checked.setdefault(claim.id, claim.statement)
    if earlier != claim.statement:
        raise ValueError(
            f"id is {claim.id!r}; expected an id not in use, but it names the claim {earlier!r}"
        )


def _show(claim: Claim) -> None:
    """Display the claim if this is a notebook's kernel."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is not None:
        bundle = {
            "text/plain": claim.text(),
            "text/html": claim.html(),
            MIME: _json_safe(claim.payload()),
        }
        ipython.display.display(bundle, raw=True)


def _json_safe(payload: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, bool | str) else str(value or "")
        for key, value in payload.items()
    }
