"""Axes-level plots of arrays and tables."""

from saebook.plots.heat_maps import (
    plot_correlation_matrix,
    plot_decoder_cosines,
    plot_feature_components,
    plot_firing_probabilities,
    plot_true_l0,
)
from saebook.plots.sweeps import (
    plot_sweep,
    plot_sweep_grid,
)

__all__ = [
    "plot_correlation_matrix",
    "plot_decoder_cosines",
    "plot_feature_components",
    "plot_firing_probabilities",
    "plot_sweep",
    "plot_sweep_grid",
    "plot_true_l0",
]
