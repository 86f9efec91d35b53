"""Where a latent fires on text: its top activations, a fair draw of them, and how both read.

Of tensors only: the activations of one latent (or of any other direction) and the tokens.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_in_range,
    check_non_negative_int,
    check_positive_int,
    check_shape,
)

TokenStrings = Callable[[int], str] | Sequence[str]

_HIGHLIGHT = "213,94,0"  # the palette's orange
_OPACITY = 0.5  # of the strongest: text keeps a contrast of 4.5 on a light and on a dark page
_MARKS = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Positions at which one latent fires.

    Attributes:
        rows: index of each example's context, (n_examples,).
        positions: index of its token within the context, (n_examples,).
        activations: of the latent there, (n_examples,), above 0.
    """

    rows: Int[Tensor, " n_examples"]
    positions: Int[Tensor, " n_examples"]
    activations: Float[Tensor, " n_examples"]

    def __len__(self) -> int:
        return len(self.rows)


def top_examples(acts: Float[Tensor, "n_contexts n_ctx"], n: int) -> Examples:
    """The n highest activations, at most one a context, the highest first.

    Fewer where the latent fires in fewer than n contexts. Of equal activations the first in the
    text is taken.

    Raises:
        ValueError: for a latent that never fires, n outside 1 … n_contexts, or values that are not
            finite.
    """
    _check_acts(acts)
    check_in_range("n", check_positive_int("n", n), 1, len(acts))
    highest = acts.max(dim=1).values
    rows = highest.argsort(descending=True, stable=True)[: min(n, int((highest > 0).sum()))]
    positions = (acts[rows] == highest[rows, None]).int().argmax(dim=1)  # argmax takes the first
    return _examples(acts, rows, positions)


def uniform_examples(
    acts: Float[Tensor, "n_contexts n_ctx"], n: int, *, generator: GeneratorLike
) -> Examples:
    """n of the positions where the latent fires, whatever its activation, in the order drawn.

    All active positions are put in a uniformly random order. Taken are the first n that lie in
    different contexts; if there are fewer such contexts, the first of the remaining positions make
    up the number, and if there are fewer than n positions, all are taken. So the first example is
    a uniform draw from the active positions, and a context with many is likely but not repeated.

    Raises:
        ValueError: for a latent that never fires, n outside 1 … the number of entries of `acts`, or
            values that are not finite.
        TypeError: for a generator that is none.
    """
    _check_acts(acts)
    check_in_range("n", check_positive_int("n", n), 1, acts.numel())
    active = (acts > 0).nonzero()
    order = torch.randperm(len(active), generator=check_generator("generator", generator))
    rows, positions = active[order.to(active.device)].T
    drawn = torch.arange(len(rows), device=rows.device)
    first = torch.full((len(acts),), len(rows), device=rows.device)
    first = first.scatter_reduce(0, rows, drawn, "amin")  # of each context
    taken = (drawn != first[rows]).int().argsort(stable=True)[:n]
    return _examples(acts, rows[taken], positions[taken])


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One example: its tokens, how strongly each is highlighted, and which one it is about."""

    activation: float
    tokens: tuple[str, ...]
    strengths: tuple[float, ...]
    peak: int
    cut_before: bool
    cut_after: bool

    def html(self) -> str:
        spans = (
            _span(html.escape(token), strength, peak=i == self.peak)
            for i, (token, strength) in enumerate(zip(self.tokens, self.strengths, strict=True))
        )
        return (
            f'<li style="margin:.3em 0">{self.activation:.2f}: '
            '<span style="white-space:pre-wrap;overflow-wrap:anywhere">'
            f"{self._with_cuts(''.join(spans))}</span></li>"
        )

    def text(self) -> str:
        marked = [f"[[{t}]]" if i == self.peak else t for i, t in enumerate(self.tokens)]
        return f"{self.activation:.2f}: {self._with_cuts(''.join(marked))}"

    def _with_cuts(self, text: str) -> str:
        return f"{'…' if self.cut_before else ''}{text}{'…' if self.cut_after else ''}"


@dataclass(frozen=True, kw_only=True)
class Highlighted:
    """Examples to read, in a notebook or on a built page; made by `highlighted`.

    Colours are laid over the page's own, so one version serves light and dark.
    """

    title: str
    lines: tuple[_Line, ...]

    def html(self) -> str:
        """A captioned list; the example's token is bold and underlined for who sees no colour."""
        return (
            '<figure class="saebook-examples" style="margin:1em 0">'
            f"<figcaption>{html.escape(self.title)}</figcaption>"
            '<ul role="list" style="list-style:none;padding:0;margin:.3em 0">'
            f"{''.join(line.html() for line in self.lines)}</ul></figure>"
        )

    def text(self) -> str:
        """The same as lines of plain text, the example's token in double brackets."""
        return "\n".join([self.title, *(line.text() for line in self.lines)])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}


def highlighted(
    examples: Examples,
    acts: Float[Tensor, "n_contexts n_ctx"],
    tokens: Int[Tensor, "n_contexts n_ctx"],
    token_strings: TokenStrings,
    *,
    before: int = 12,
    after: int = 6,
    title: str = "Activating examples",
) -> Highlighted:
    """Examples in their text, each token shaded by its activation over the latent's highest.

    The highest is that of all of `acts`, so that several lists of one latent can be compared.

    Args:
        examples: from the same `acts`.
        token_strings: a token's text, by call or by index.
        before: number of tokens shown before the example's own, within its context.
        after: number shown after it.
        title: the caption.

    Raises:
        ValueError: for shapes that differ, a latent that never fires, values that are not finite,
            a negative number of tokens, or no title.
        IndexError: for examples that lie outside `acts`.
    """
    _check_acts(acts)
    if tokens.shape != acts.shape:
        raise ValueError(
            f"tokens must have the shape of acts, {tuple(acts.shape)}, got {tuple(tokens.shape)}"
        )
    check_non_negative_int("before", before)
    check_non_negative_int("after", after)
    if not title.strip():
        raise ValueError(f"title must not be empty, got {title!r}")
    string = token_strings if callable(token_strings) else token_strings.__getitem__
    strengths = acts.clamp(min=0) / acts.max()
    lines = []
    for example in range(len(examples)):
        row, at = int(examples.rows[example]), int(examples.positions[example])
        start, stop = max(0, at - before), min(acts.shape[1], at + after + 1)
        lines.append(
            _Line(
                activation=acts[row, at].item(),
                tokens=tuple(
                    string(token).translate(_MARKS) for token in tokens[row, start:stop].tolist()
                ),
                strengths=tuple(strengths[row, start:stop].tolist()),
                peak=at - start,
                cut_before=start > 0,
                cut_after=stop < acts.shape[1],
            )
        )
    return Highlighted(title=title.strip(), lines=tuple(lines))


def _span(text: str, strength: float, *, peak: bool) -> str:
    """A token's HTML: plain where the latent is silent."""
    opacity = round(_OPACITY * strength, 2)
    shade = f"background:rgba({_HIGHLIGHT},{opacity:g})" if opacity > 0 else ""
    if peak:
        return f'<strong style="text-decoration:underline;{shade}">{text}</strong>'
    return f'<span style="{shade}">{text}</span>' if shade else text


def _examples(acts: Tensor, rows: Tensor, positions: Tensor) -> Examples:
    return Examples(rows=rows, positions=positions, activations=acts[rows, positions])


def _check_acts(acts: Tensor) -> None:
    check_finite("acts", check_shape("acts", acts, ("n_contexts", "n_ctx")))
    if not bool((acts > 0).any()):
        raise ValueError(f"acts must be above 0 somewhere, got at most {acts.max():g}")
