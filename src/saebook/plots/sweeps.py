"""The plots of sweeps; a part of `plots`, which is where to import them from."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bookkit import style
from saebook._checks import check_one_of, check_positive_int

STATISTICS = ("median", "mean", "min", "max")


def plot_sweep(
    data: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str | None = None,
    seed: str | None = "seed",
    statistic: str = "median",
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw every run of a sweep as a faint dot, and a line through a statistic over seeds.

    Args:
        data: one row a run.
        x: column of the setting that is swept.
        y: column of the measurement.
        hue: column that separates the lines, each with a colour and an entry in the legend.
        seed: column that tells runs of one setting apart; None when there is one run a setting.
        statistic: what the line goes through: "median", "mean", "min" or "max".
        ax: where to draw.
        kwargs: passed to `Axes.plot` for the lines.

    Raises:
        ValueError: a column is missing, the statistic is unknown, or a seed occurs twice in a
            setting.
    """
    _check_sweep(data, x, y, hue, seed, statistic)
    ax = new_axes(ax)
    groups = [(None, data)] if hue is None else list(data.groupby(hue, sort=False))
    colors = kwargs.pop("colors", style.PALETTE)
    for i, (name, rows) in enumerate(groups):
        color = colors[i % len(colors)]
        _runs_and_line(
            ax,
            rows,
            x,
            y,
            statistic,
            **{"color": color, "label": None if name is None else str(name), **kwargs},
        )
    ax.set(xlabel=ax.get_xlabel() or x, ylabel=ax.get_ylabel() or y)
    if hue is not None:
        ax.legend(title=hue)
    return ax


def plot_sweep_grid(
    data: pd.DataFrame,
    *,
    x: str,
    y: str,
    panel: str,
    columns: int = 4,
    panel_size: tuple[float, float] = (1.8, 1.5),
    **kwargs: Any,
) -> np.ndarray:
    """Draw one sweep a panel, all on one x axis.

    Args:
        data: one row a run.
        x, y: columns as in `plot_sweep`.
        panel: column whose values each get a panel, titled "column = value".
        columns: panels in a row.
        panel_size: width and height of a panel in inches.
        kwargs: passed to `plot_sweep`.

    Returns:
        (n_panels,) the Axes, in the order of first appearance in `data`. Their figure is
        `axes[0].figure`.

    Raises:
        ValueError: as `plot_sweep`, or `columns` is not positive.
    """
    check_positive_int("columns", columns)
    _check_sweep(data, x, y, panel, None, "median")
    names = list(data[panel].unique())
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    size = (panel_size[0] * columns, panel_size[1] * rows)
    fig, grid = plt.subplots(rows, columns, sharex=True, figsize=size, squeeze=False)
    for name, ax in zip(names, grid.flat, strict=False):
        plot_sweep(data[data[panel] == name], x=x, y=y, ax=ax, **kwargs)
        ax.set(title=f"{panel} = {name}", xlabel="", ylabel="")
    for ax in grid.flat[len(names) :]:
        ax.remove()
    for ax in grid.flat[max(0, len(names) - columns) : len(names)]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(x, fontsize="medium")
    fig.supylabel(y, fontsize="medium")
    return grid.ravel()[: len(names)]


def _runs_and_line(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    y: str,
    statistic: str,
    *,
    color: Any,
    label: Any,
    **kwargs: Any,
) -> None:
    line = rows.groupby(x)[y].agg(statistic).sort_index()
    if len(rows) > len(line):
        ax.plot(
            rows[x],
            rows[y],
            linestyle="none",
            marker="o",
            markersize=3,
            alpha=0.45,
            color=color,
            markeredgewidth=0,
        )
    ax.plot(
        line.index,
        line,
        **{"color": color, "label": label, "marker": "o", "markersize": 3, **kwargs},
    )


def _check_sweep(
    data: Any, x: str, y: str, hue: str | None, seed: str | None, statistic: str
) -> None:
    if not isinstance(data, pd.DataFrame):
        raise TypeError(f"data must be a DataFrame with one row a run, got {type(data).__name__}")
    named = {"x": x, "y": y, "hue": hue, "seed": seed}
    for argument, column in named.items():
        if column is not None:
            check_one_of(argument, column, data.columns)
    check_one_of("statistic", statistic, STATISTICS)
    if (
        seed is not None
        and data.duplicated([column for column in (x, hue, seed) if column is not None]).any()
    ):
        raise ValueError(
            f"data must have one row a run, got several rows for one {seed} at the same {x}"
        )


def new_axes(ax: Axes | None) -> Axes:
    """The given Axes, or those of a new figure."""
    return plt.subplots()[1] if ax is None else ax
