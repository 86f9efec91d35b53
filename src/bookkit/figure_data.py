"""The data behind a figure, read from what was drawn.

`style.themed` calls `read_figure`, so that a figure in a chapter brings its table along and no
chapter has to say twice what it draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator

MAX_ROWS = 20_000
"""Longer tables are no help to a reader of a page."""

Parts = Iterator[tuple[str, Any, dict[str, Any]]]


def read_figure(fig: Figure) -> pd.DataFrame | None:
    """Everything that a figure draws in data coordinates, as one table with a row a value.

    Read are lines, scatters, bars, error bars, filled bands, images and meshes. Lines that mark a
    place (`axhline`, `axvline`), text and colour bars are not data.

    Args:
        fig: a drawn figure. It is not changed.

    Returns:
        Columns panel, x label, y label, series, kind, x and y. Where something has them, also low
        and high (the ends of an error bar or band), row, column and value (of images and meshes; x
        and y are then the middle of the cell as drawn), x name and y name (of ticks with names).
        None if nothing is data, or if there are more than `MAX_ROWS` rows.
    """
    tables, rows = [], 0
    for number, ax in enumerate(_panels(fig), start=1):
        place = {
            "panel": ax.get_title("left") or ax.get_title() or f"panel {number}",
            "x label": ax.get_xlabel(),
            "y label": ax.get_ylabel(),
        }
        for kind, artist, columns in _drawn(ax):
            table = pd.DataFrame({**place, "series": _label(artist), "kind": kind, **columns})
            for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
                if name in table and (names := _tick_names(axis)):
                    table[f"{name} name"] = table[name].map(names).fillna("")
            tables.append(table)
            rows += len(table)
    return pd.concat(tables, ignore_index=True) if 0 < rows <= MAX_ROWS else None


def to_csv(data: pd.DataFrame) -> str:
    """The table as text: six significant digits, the same bytes for the same numbers."""
    return data.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _panels(fig: Figure) -> list[Axes]:
    return [ax for ax in fig.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]


def _label(artist: Any) -> str:
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label


def _tick_names(axis: Any) -> dict[float, str]:
    """What the ticks say, where it is not their number, such as the names of variants."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return {}
    places = axis.get_ticklocs()  # also those out of view
    names = dict(zip(places.tolist(), axis.get_major_formatter().format_ticks(places), strict=True))
    return names if any(text not in ("", f"{at:g}") for at, text in names.items()) else {}


def _drawn(ax: Axes) -> Parts:
    """Kind, artist and columns of each artist of a panel that shows data."""
    bars = [box for box in ax.containers if isinstance(box, ErrorbarContainer)]
    within = {part for box in bars for part in (box[0], *box[1])}
    for line in ax.lines:
        if line not in within and line.get_transform() is ax.transData and len(_xy(line)["x"]):
            yield "line", line, _xy(line)
    for box in ax.containers:
        if isinstance(box, ErrorbarContainer) and box[0] is not None:
            yield "error bar", box, {**_xy(box[0]), **_ends(box)}
        elif isinstance(box, BarContainer) and len(box.patches):
            yield "bar", box, _bars(box)
    for artist in (*ax.collections, *ax.images):
        if isinstance(artist, PathCollection):
            yield "scatter", artist, _scatter(artist)
        elif isinstance(artist, QuadMesh):
            yield "mesh", artist, _mesh(artist)
        elif isinstance(artist, PolyCollection) and hasattr(artist, "t_direction"):
            yield "band", artist, _band(artist)
        elif isinstance(artist, AxesImage) and np.shape(_values(artist))[2:] == ():
            yield "image", artist, _image(artist)


def _xy(line: Any) -> dict[str, Any]:
    return {
        "x": np.asarray(line.get_xdata(orig=False)),
        "y": np.asarray(line.get_ydata(orig=False)),
    }


def _ends(box: Any) -> dict[str, Any]:
    """The ends of vertical error bars, else of horizontal ones."""
    segments = np.array(box[2][-1].get_segments())  # (n, 2, 2)
    ends = segments[:, :, 1 if box.has_yerr else 0]
    return {"low": ends.min(axis=1), "high": ends.max(axis=1)} if len(ends) else {}


def _bars(box: Any) -> dict[str, Any]:
    along = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in box.patches]
    if box.orientation == "horizontal":
        along = [(bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in box.patches]
    x, y = np.array(along).T
    return {"x": x, "y": y}


def _scatter(points: Any) -> dict[str, Any]:
    x, y = np.asarray(points.get_offsets()).T
    values = points.get_array()
    return {"x": x, "y": y} | ({} if values is None else {"value": np.asarray(values).ravel()})


def _band(band: Any) -> dict[str, Any]:
    """The outline runs along one edge and back along the other; of a `fill_between` only."""
    along, across = (0, 1) if band.t_direction == "x" else (1, 0)
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    edges = pd.Series(corners[:, across]).groupby(corners[:, along])
    low = edges.min()
    name = "x" if along == 0 else "y"
    return {name: low.index.to_numpy(), "low": low.to_numpy(), "high": edges.max().to_numpy()}


def _mesh(mesh: Any) -> dict[str, Any]:
    corners = np.asarray(mesh.get_coordinates())
    middles = (corners[:-1, :-1] + corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1]) / 4
    values = _values(mesh).reshape(middles.shape[:2])
    return _cells(values, middles[..., 0], middles[..., 1])


def _image(image: Any) -> dict[str, Any]:
    values = _values(image)
    left, right, bottom, top = image.get_extent()
    rows, columns = ((np.arange(size) + 0.5) / size for size in values.shape)
    first, last = (top, bottom) if image.origin == "upper" else (bottom, top)
    x, y = np.meshgrid(left + (right - left) * columns, first + (last - first) * rows)
    return _cells(values, x, y)


def _values(artist: Any) -> Any:
    """The numbers behind the colours, with gaps where they are masked."""
    return np.ma.filled(np.ma.asarray(artist.get_array(), dtype=float), np.nan)


def _cells(values: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    row, column = np.indices(values.shape)
    table = {"x": x, "y": y, "row": row, "column": column, "value": values}
    return {name: np.ravel(array) for name, array in table.items()}
