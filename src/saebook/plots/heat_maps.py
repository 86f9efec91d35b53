"""Axes-level plots of arrays and tables.

Every function draws on the given Axes (a new figure's, where none is given), returns them, and
changes nothing else: no global settings, no showing, no saving. Data are arrays, tensors or
DataFrames, never models or worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from bookkit import style
from saebook.plots.sweeps import new_axes


def plot_firing_probabilities(p: Any, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw the firing probability of each feature as a bar.

    Args:
        p: (n_features,) probabilities between 0 and 1.
        ax: where to draw.
        kwargs: passed to `Axes.bar`.

    Raises:
        ValueError: `p` is not a vector of probabilities.
    """
    p = _array("p", p, ndim=1)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(
            f"p must be probabilities in [0, 1], got values from {p.min():g} to {p.max():g}"
        )
    ax = new_axes(ax)
    ax.bar(np.arange(len(p)), p, **{"width": 0.8, "color": style.PALETTE[0], **kwargs})
    ax.set(xlabel="Feature", ylabel="Firing probability", xlim=(-0.8, len(p) - 0.2))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.grid(False, axis="x")
    return ax


def plot_correlation_matrix(
    C: Any, *, ax: Axes | None = None, label: str = "Correlation", **kwargs: Any
) -> Axes:
    """Draw a correlation matrix as a heat map from −1 to 1, zero in the colour of the page.

    Args:
        C: (n_features, n_features) correlations.
        ax: where to draw.
        label: the colour bar's label.
        kwargs: passed to `Axes.imshow`.

    Raises:
        ValueError: `C` is not a square matrix.
    """
    C = _array("C", C, ndim=2)
    if C.shape[0] != C.shape[1]:
        raise ValueError(f"C must be a square matrix, got shape {C.shape}")
    return _heat_map(C, ax, xlabel="Feature", ylabel="Feature", label=label, **kwargs)


def plot_decoder_cosines(
    cosines: Any, *, ax: Axes | None = None, label: str | None = "Cosine", **kwargs: Any
) -> Axes:
    """Draw the cosine of each latent's decoder row with each feature's direction.

    The rows are drawn in the order given: reorder latents before, for example by matching them
    with features.

    Args:
        cosines: (n_latents, n_features) cosines between −1 and 1.
        ax: where to draw.
        label: the colour bar's label; None draws no bar.
        kwargs: passed to `Axes.imshow`.

    Raises:
        ValueError: `cosines` is not a matrix.
    """
    return _heat_map(
        _array("cosines", cosines, ndim=2),
        ax,
        xlabel="Feature",
        ylabel="Latent",
        label=label,
        **kwargs,
    )


def plot_feature_components(
    components: Any,
    *,
    features: Sequence[str] | None = None,
    latents: Sequence[str] | None = None,
    ax: Axes | None = None,
    label: str | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw a small table of latents in feature coordinates as a heat map with its numbers.

    Args:
        components: (n_latents, n_features) components, such as `metrics.feature_components` gives.
        features: names of the columns; by default their indices.
        latents: names of the rows; by default their indices.
        ax: where to draw.
        label: the colour bar's label; None draws no bar.
        kwargs: passed to `Axes.imshow`.

    Raises:
        ValueError: `components` is not a matrix, or the names are not as many as it has entries.
    """
    values = _array("components", components, ndim=2)
    for name, names, size in (
        ("latents", latents, values.shape[0]),
        ("features", features, values.shape[1]),
    ):
        if names is not None and len(names) != size:
            raise ValueError(f"{name} must be {size} names, got {len(names)}")
    ax = _heat_map(values, ax, xlabel="Feature", ylabel="Latent", label=label, **kwargs)
    ax.set_xticks(range(values.shape[1]), features)
    ax.set_yticks(range(values.shape[0]), latents)
    for (row, column), value in np.ndenumerate(values):
        shown = f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")
        ink = style.LIGHT.text if abs(value) < 0.75 else style.LIGHT.background
        ax.text(column, row, shown, ha="center", va="center", fontsize="small", color=ink)
    return ax


def plot_true_l0(
    ax: Axes, true_l0: SupportsFloat, *, label: str = "true L0", **kwargs: Any
) -> Axes:
    """Mark the true L0 by a dashed vertical line with its name at the top.

    Args:
        ax: Axes whose x axis is k or L0.
        true_l0: where the line goes.
        label: the line's name; an empty string writes none.
        kwargs: passed to `Axes.axvline`.
    """
    ink = style.LIGHT.muted
    ax.axvline(
        float(true_l0),
        **{"color": ink, "linestyle": (0, (4, 3)), "linewidth": 1.2, "zorder": 1, **kwargs},
    )
    if label:
        ax.annotate(
            label,
            (float(true_l0), 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            color=ink,
            fontsize="small",
        )
    return ax


def _heat_map(
    values: np.ndarray,
    ax: Axes | None,
    *,
    xlabel: str,
    ylabel: str,
    label: str | None,
    **kwargs: Any,
) -> Axes:
    ax = new_axes(ax)
    defaults = {
        "cmap": style.DIVERGING,
        "vmin": -1,
        "vmax": 1,
        "aspect": "equal",
        "interpolation": "nearest",
    }
    image: AxesImage = ax.imshow(values, **{**defaults, **kwargs})
    ax.set(xlabel=xlabel, ylabel=ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    ax.grid(False)
    if label is not None:
        bar = ax.figure.colorbar(image, ax=ax, label=label)
        bar.outline.set_visible(False)
    return ax


def _array(name: str, values: Any, *, ndim: int | None = None) -> np.ndarray:
    """A NumPy array of finite numbers from an array, tensor or list."""
    values = values.detach().cpu() if hasattr(values, "detach") else values
    array = np.asarray(values, dtype=float)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    if array.size == 0 or not np.isfinite(array).all():
        got = "none" if array.size == 0 else array[~np.isfinite(array)][0]
        raise ValueError(f"{name} must be finite numbers, got {got}")
    return array
