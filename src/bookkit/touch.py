"""Figures to touch: a slider over frames or pages, and points that tell what they are.

All frames are made when the book is built; `book/_static/touch.js` changes them in the page. Where
no script runs, in a plain notebook for example, the start shows and the controls stay hidden.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bookkit.figure_data import MAX_ROWS
from bookkit.style import ThemedFigure


@dataclass(frozen=True, kw_only=True)
class Touchable:
    """A figure with controls, ready for a notebook or a built page, or for `glue`."""

    text: str
    markup: str
    png: str | None = None

    def html(self) -> str:
        """The start, the controls (hidden until a script shows them) and what else they show."""
        return self.markup

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle = {"text/plain": self.text, "text/html": self.markup}
        return bundle if self.png is None else bundle | {"image/png": self.png}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a figure: its place in percent from the left and the top, and its text."""

    left: float
    top: float
    text: str


def frames(
    figures: Sequence[ThemedFigure],
    *,
    labels: Sequence[str],
    name: str,
    notes: Sequence[str],
    start: int = 0,
) -> Touchable:
    """Several drawings of one size, with a slider that chooses among them.

    Args:
        figures: each from `style.themed`, with an alternative text of its own.
        labels: what the slider says at each frame, such as the value of a setting.
        name: what the slider changes, such as "k".
        notes: a sentence for each frame with its finding. It is read out when the frame changes.
        start: index of the frame that shows first, and alone where no script runs or on paper.

    Raises:
        ValueError: there are fewer than two figures, they differ in size, labels or notes are not
            as many, or start is not the index of one.
    """
    _check_slider(figures, labels, name, start)
    if len(notes) != len(figures):
        raise ValueError(f"notes has {len(notes)} entries; expected {len(figures)}, one a figure")
    sizes = {(figure.width, figure.height) for figure in figures}
    if len(sizes) > 1:
        raise ValueError(f"figures have the sizes {sorted(sizes)}; expected one size for all")
    shown = replace(figures[start], data=_all_data(figures, labels, name, start))
    items = "".join(
        f'<li data-light="{figure.light}" data-dark="{figure.dark}" '
        f'data-alt="{html.escape(figure.alt)}">{html.escape(note)}</li>'
        for figure, note in zip(figures, notes, strict=True)
    )
    note = f'<p class="touch-note" aria-live="polite">{html.escape(notes[start])}</p>'
    return Touchable(
        text=f"Figure with a slider over {name}: {shown.alt}",
        markup=_touch(
            "frames",
            shown.boxed(shown.images()),
            _slider(labels, name, start),
            f"{note}<ul hidden>{items}</ul>{shown.data_link()}",
        ),
        png=shown.png,
    )


def pages(
    contents: Sequence[Any], *, labels: Sequence[str], name: str, start: int = 0
) -> Touchable:
    """Several pieces of HTML, with a slider that chooses among them.

    Args:
        contents: HTML, or objects with methods `html` and `text`, such as `examples.Highlighted`.
        labels: what the slider says at each piece.
        name: what the slider changes.
        start: index of the piece that shows first, and alone where no script runs or on paper.

    Raises:
        ValueError: there are fewer than two pieces, labels are not as many, or start is not the
            index of one.
    """
    _check_slider(contents, labels, name, start)
    pieces = "".join(
        f'<div class="touch-page"{"" if i == start else " hidden"}>{_as_html(content)}</div>'
        for i, content in enumerate(contents)
    )
    text = getattr(contents[start], "text", None)
    return Touchable(
        text=f"Page {labels[start]} of a slider over {name}"
        + (f"\n{cast('Callable[[], str]', text)()}" if callable(text) else ""),
        markup=_touch(
            "pages",
            "",
            _slider(labels, name, start),
            f'<div class="touch-stack" aria-live="polite">{pieces}</div>',
        ),
    )


def marks(ax: Axes, xy: Any, texts: Sequence[str]) -> tuple[Mark, ...]:
    """Points of a drawn figure and what each has to say, for `points`.

    Args:
        ax: where the points were drawn.
        xy: (n, 2) points in data coordinates.
        texts: one for each point.

    Raises:
        ValueError: `xy` is not of this shape, or the texts are not as many.
    """
    places = np.asarray(xy, dtype=float)
    if places.shape != (len(texts), 2):
        raise ValueError(f"xy has shape {places.shape}; expected ({len(texts)}, 2), a row a text")
    fig = cast("Figure", ax.figure)
    fig.draw_without_rendering()  # a layout engine places the axes only now
    inside = fig.transFigure.inverted().transform(ax.transData.transform(places))
    return tuple(
        Mark(left=round(100 * x, 2), top=round(100 * (1 - y), 2), text=text)
        for (x, y), text in zip(inside.tolist(), texts, strict=True)
    )


def points(figure: ThemedFigure, marks: Sequence[Mark], *, start: str) -> Touchable:
    """A drawing whose points tell what they are, to a pointer, a finger and the keyboard.

    The points take one stop of the tab key; the arrow keys go from one to the next.

    Args:
        figure: from `style.themed`.
        marks: from `marks`, of one panel or of several in a row.
        start: what to do, shown in the place of the texts until one is chosen.

    Raises:
        ValueError: there is no mark, or one lies outside the figure.
    """
    outside = [mark for mark in marks if not (0 <= mark.left <= 100 and 0 <= mark.top <= 100)]
    if not marks or outside:
        raise ValueError(f"marks has {outside or 'no entry'}; expected points inside the figure")
    buttons = "".join(
        f'<button type="button" class="touch-point" tabindex="{0 if i == 0 else -1}" '
        f'style="left:{mark.left:g}%;top:{mark.top:g}%" '
        f'aria-label="{html.escape(mark.text)}"></button>'
        for i, mark in enumerate(marks)
    )
    canvas = (
        f'<div class="touch-canvas" style="max-width:{figure.width}px">{figure.images()}'
        f'<div class="touch-points" role="group" aria-label="Points of the figure" hidden>'
        f"{buttons}</div></div>"
    )
    note = (
        f'<p class="touch-note" hidden data-start="{html.escape(start)}">{html.escape(start)}</p>'
    )
    return Touchable(
        text=f"Figure with points: {figure.alt}",
        markup=_touch("points", figure.boxed(canvas), "", note + figure.data_link()),
        png=figure.png,
    )


def _touch(kind: str, shown: str, controls: str, rest: str) -> str:
    return f'<div class="touch" data-touch="{kind}">{shown}{controls}{rest}</div>'


def _slider(labels: Sequence[str], name: str, start: int) -> str:
    """A range input with its name and the present label; `data-labels` holds all, one a line."""
    shown, lines = html.escape(labels[start]), html.escape("\n".join(labels))
    return (
        f'<div class="touch-controls" hidden><label>{html.escape(name)} '
        f'<input type="range" min="0" max="{len(labels) - 1}" step="1" value="{start}" '
        f'aria-valuetext="{shown}" data-labels="{lines}" autocomplete="off"></label> '
        f'<output aria-live="off">{shown}</output></div>'
    )


def _all_data(
    figures: Sequence[ThemedFigure], labels: Sequence[str], name: str, start: int
) -> pd.DataFrame | None:
    """The tables of all frames, or of the start alone where that is too much.

    The first column says to which frame a row belongs.
    """
    tables = [
        None
        if figure.data is None
        else figure.data.assign(**{name: label})[[name, *figure.data.columns]]
        for figure, label in zip(figures, labels, strict=True)
    ]
    found = [table for table in tables if table is not None]
    if sum(map(len, found)) > MAX_ROWS:
        return tables[start]
    return pd.concat(found) if found else None


def _as_html(content: Any) -> str:
    return content if isinstance(content, str) else content.html()


def _check_slider(contents: Sequence[Any], labels: Sequence[str], name: str, start: int) -> None:
    if len(contents) < 2 or len(labels) != len(contents):
        raise ValueError(
            f"there are {len(contents)} frames and {len(labels)} labels; "
            "expected at least two frames, and a label for each"
        )
    if not name.strip():
        raise ValueError(f"name is {name!r}; expected what the slider changes")
    if not 0 <= start < len(contents):
        raise ValueError(f"start is {start}; expected an index from 0 to {len(contents) - 1}")
