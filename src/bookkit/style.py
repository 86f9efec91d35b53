"""Palette, sizes and the two inks of the book's figures.

A chapter calls `use` once, draws each figure in the light ink, and hands it to `themed`, which
draws it again in the dark ink and returns one object that shows the right one and brings the data.
"""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
import urllib.parse
from dataclasses import dataclass, field, fields
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from cycler import cycler
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgba_array
from matplotlib.figure import Figure

from bookkit.figure_data import read_figure, to_csv

PIXELS_PER_INCH = 96
SVG_LIMIT = 120_000

NARROW = 4.5
"""Width in inches of a figure that keeps its text readable on a phone."""
WIDE = 7.2
"""Width in inches of a figure that fills the text column."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#C06AA0", "#8A7A00", "#7A7A7A")
"""Colours of data: told apart by colour-blind readers, contrast at least 3 on both backgrounds."""


@dataclass(frozen=True, kw_only=True)
class Ink:
    """Colours of everything in a figure that is not data."""

    text: str
    muted: str
    grid: str
    background: str


LIGHT = Ink(text="#1f2329", muted="#59626e", grid="#dfe3e8", background="#ffffff")
DARK = Ink(text="#e8ebef", muted="#a3abb5", grid="#363d46", background="#121212")

DIVERGING = LinearSegmentedColormap.from_list(
    "bookkit_diverging", ["#08407a", "#4d9bd6", "#ffffff", "#ee8a3c", "#8f3300"]
)
"""For values around zero, such as cosines and correlations: zero has the colour of the page."""
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "bookkit_sequential", ["#ffffff", "#4d9bd6", "#08407a"]
)
"""For values from zero up."""

_DARK_COLORMAPS = {
    DIVERGING.name: LinearSegmentedColormap.from_list(
        "bookkit_diverging_dark", ["#bfe0fb", "#2f83c0", "#121212", "#c96a1c", "#ffd2a8"]
    ),
    SEQUENTIAL.name: LinearSegmentedColormap.from_list(
        "bookkit_sequential_dark", ["#121212", "#2f83c0", "#bfe0fb"]
    ),
}

_RC: dict[str, Any] = {
    "figure.constrained_layout.use": True,
    "figure.figsize": (NARROW, 3.0),
    "figure.dpi": PIXELS_PER_INCH,
    "figure.facecolor": LIGHT.background,
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT.muted,
    "axes.labelcolor": LIGHT.text,
    "axes.titlesize": 10.5,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "font.size": 10,
    "grid.color": LIGHT.grid,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": LIGHT.text,
    "xtick.color": LIGHT.muted,
    "ytick.color": LIGHT.muted,
    "xtick.labelcolor": LIGHT.text,
    "ytick.labelcolor": LIGHT.text,
    "svg.hashsalt": "bookkit",
    "svg.fonttype": "path",
}


def use() -> None:
    """Set Matplotlib's defaults for a chapter. Call it in the first cell."""
    mpl.get_backend()  # settles a notebook's inline backend, which the first figure would reset
    mpl.rcParams.update(cast("Any", _RC))


_HIDDEN = (
    "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap"
)


@dataclass(frozen=True, kw_only=True)
class ThemedFigure:
    """One drawing in two inks, ready for a notebook or a built page.

    `light` and `dark` are data URIs, `png` is base64 of the light drawing, and `width` and `height`
    are CSS pixels. `data` is what `figure_data.read_figure` reads: None where nothing drawn is
    data, or where that is too much.
    """

    alt: str
    width: int
    height: int
    light: str
    dark: str
    png: str
    data: pd.DataFrame | None = field(default=None, compare=False, repr=False)

    def html(self) -> str:
        """Both drawings with their text, and a link to their data."""
        return self.boxed(self.images()) + self.data_link()

    def images(self) -> str:
        """Both drawings; a page without the book's styles shows the light one."""
        return (
            f"{self._img('only-light', self.light, 'background:#fff')}"
            f"{self._img('only-dark', self.dark, 'display:none')}"
        )

    def data_link(self) -> str:
        """A link that downloads the data; its hidden words tell it from those of other figures."""
        if self.data is None:
            return ""
        of = html.escape(f" of the figure: {textwrap.shorten(self.alt, 80, placeholder=' …')}")
        return (
            '<p class="figure-data" style="margin:0;text-align:end;font-size:.85em">'
            '<a download="figure.csv" '
            f'href="data:text/csv;charset=utf-8,{urllib.parse.quote(to_csv(self.data))}">Data (CSV)'
            f'<span style="{_HIDDEN}">{of}</span></a></p>'
        )

    def boxed(self, inner: str) -> str:
        """A wide drawing scrolls on a phone, so it takes the keyboard's focus."""
        return f"<div {self._box()}>{inner}</div>"

    def _box(self) -> str:
        if self.width <= NARROW * PIXELS_PER_INCH:
            return 'class="themed-figure"'
        return 'class="themed-figure wide" tabindex="0" role="group" aria-label="Figure"'

    def _img(self, kind: str, uri: str, css: str) -> str:
        return (
            f'<img class="themed {kind}" src="{uri}" alt="{html.escape(self.alt)}" '
            f'width="{self.width}" height="{self.height}" loading="lazy" style="{css}">'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/plain": f"Figure: {self.alt}",
            "text/html": self.html(),
            "image/png": self.png,
        }


def themed(fig: Figure, *, alt: str) -> ThemedFigure:
    """Render a figure in light and in dark ink, and close it.

    Only ink changes: text, spines, ticks, grid, background, and the book's colormaps. Colours of
    data stay. The numbers that were drawn come along as a table, up to 20,000 rows of it.

    Args:
        fig: a figure drawn under `use`.
        alt: what the figure shows, in words, for readers who do not see it.

    Raises:
        TypeError: `fig` is not a Matplotlib figure.
        ValueError: `alt` is empty.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"fig must be a matplotlib Figure (for an Axes, its .figure), got {fig!r}")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must be a description of what the figure shows, got {alt!r}")
    data = read_figure(fig)
    width, height = (round(inches * PIXELS_PER_INCH) for inches in fig.get_size_inches())
    png = base64.b64encode(_png(fig, PIXELS_PER_INCH, facecolor=LIGHT.background)).decode()
    light = _data_uri(fig)
    recolor(fig, LIGHT, DARK)
    dark = _data_uri(fig)
    plt.close(fig)
    return ThemedFigure(
        alt=alt.strip(), width=width, height=height, light=light, dark=dark, png=png, data=data
    )


def recolor(fig: Figure, old: Ink, new: Ink) -> None:
    """Replace the colours of one ink, and the book's colormaps, by those of another, in place."""
    fig.draw_without_rendering()  # ticks exist only once a figure is laid out
    swaps = {getattr(old, field.name).lower(): getattr(new, field.name) for field in fields(Ink)}
    for artist in fig.findobj():
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            _swap(artist, name, swaps)
        if (
            isinstance(artist, ScalarMappable)
            and artist.get_cmap().name in _DARK_COLORMAPS
            and new == DARK
        ):
            artist.set_cmap(_DARK_COLORMAPS[artist.get_cmap().name])
    for ax in fig.axes:
        ax.tick_params(color=new.muted, labelcolor=new.text)


def _swap(artist: Any, name: str, swaps: dict[str, str]) -> None:
    getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
    if getter is None or setter is None:
        return
    color = getter()
    if isinstance(color, str) and color in ("none", "auto", "face"):
        return
    rows = to_rgba_array(color)
    found = [swaps.get(to_hex(row)) for row in rows]
    if any(found):
        swapped = [
            (*to_rgba_array(new)[0, :3], row[3]) if new else tuple(row)
            for new, row in zip(found, rows, strict=True)
        ]
        setter(swapped[0] if len(swapped) == 1 else swapped)


def _data_uri(fig: Figure) -> str:
    """SVG where it is small, else PNG with two image pixels for one of CSS; no background."""
    svg = _svg(fig)
    if len(svg) <= SVG_LIMIT:
        return "data:image/svg+xml," + urllib.parse.quote(svg, safe=" !()*,-./:;=?@_~[]|$+")
    return (
        "data:image/png;base64,"
        + base64.b64encode(_png(fig, 2 * PIXELS_PER_INCH, transparent=True)).decode()
    )


def _svg(fig: Figure) -> str:
    buffer = io.StringIO()
    fig.savefig(
        buffer,
        format="svg",
        transparent=True,
        bbox_inches=None,
        metadata={"Date": None, "Creator": None},
    )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", " ", text).replace('"', "'")


def _png(fig: Figure, dpi: int, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches=None, **kwargs)
    return buffer.getvalue()
