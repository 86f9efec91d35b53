"""The plots draw the data they are given, where they are told, and nothing else."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from bookkit import style
from saebook import plots


@pytest.fixture(autouse=True)
def figures():
    with mpl.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


@pytest.fixture
def sweep():
    rows = [
        {"k": k, "seed": seed, "loss": 10 * k + seed**2} for k in (3, 1, 2) for seed in range(3)
    ]
    return pd.DataFrame(rows)


def test_bars_have_the_heights_of_the_probabilities(ax):
    p = torch.tensor([0.4, 0.2, 0.1], requires_grad=True)
    assert plots.plot_firing_probabilities(p, ax=ax) is ax
    assert np.allclose([bar.get_height() for bar in ax.patches], [0.4, 0.2, 0.1])
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in ax.patches] == [0, 1, 2]


def test_a_new_figure_is_made_when_no_axes_are_given():
    before = set(plt.get_fignums())
    ax = plots.plot_firing_probabilities([0.5])
    assert ax.figure.number not in before


@pytest.mark.parametrize("p", [[1.2], [-0.1, 0.5], [[0.5]], [], [float("nan")]])
def test_what_is_not_a_vector_of_probabilities_is_refused(p, ax):
    with pytest.raises(ValueError, match=r"^p "):
        plots.plot_firing_probabilities(p, ax=ax)


def test_keywords_reach_the_artist(ax):
    plots.plot_firing_probabilities([0.5], ax=ax, color="black")
    assert to_hex(ax.patches[0].get_facecolor()) == "#000000"


def test_a_correlation_matrix_is_drawn_from_minus_one_to_one(ax):
    C = np.array([[1.0, -0.25], [-0.25, 1.0]])
    plots.plot_correlation_matrix(C, ax=ax)
    (image,) = ax.images
    assert np.array_equal(image.get_array(), C)
    assert image.get_clim() == (-1, 1)
    assert image.get_cmap() == style.DIVERGING


def test_a_correlation_matrix_is_square(ax):
    with pytest.raises(ValueError, match=r"C must be a square matrix, got shape \(2, 3\)"):
        plots.plot_correlation_matrix(np.zeros((2, 3)), ax=ax)


def test_cosines_have_latents_in_rows_and_features_in_columns(ax):
    cosines = torch.arange(6.0).reshape(2, 3) / 6
    plots.plot_decoder_cosines(cosines, ax=ax)
    assert np.allclose(ax.images[0].get_array(), cosines.numpy())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Feature", "Latent")


def test_the_colour_bar_can_be_left_out():
    ax = plots.plot_decoder_cosines(np.eye(2), label=None)
    assert len(ax.figure.axes) == 1
    assert len(plots.plot_decoder_cosines(np.eye(2)).figure.axes) == 2


def test_a_vector_of_cosines_is_refused(ax):
    with pytest.raises(ValueError, match=r"cosines must have 2 axes, got shape \(3,\)"):
        plots.plot_decoder_cosines(np.zeros(3), ax=ax)


@pytest.mark.parametrize(
    ("statistic", "offset"), [("median", 1), ("min", 0), ("max", 4), ("mean", 5 / 3)]
)
def test_a_sweep_shows_every_seed_and_a_line_through_the_statistic(sweep, ax, statistic, offset):
    plots.plot_sweep(sweep, x="k", y="loss", statistic=statistic, ax=ax)
    dots, line = ax.lines
    assert sorted(zip(*dots.get_data(), strict=True)) == sorted(
        zip(sweep["k"], sweep["loss"], strict=True)
    )
    assert dots.get_linestyle() == "None"
    assert dots.get_alpha() < 0.5
    assert np.array_equal(line.get_xdata(), [1, 2, 3])
    assert np.allclose(line.get_ydata(), np.array([10, 20, 30]) + offset)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("k", "loss")


def test_labels_that_are_set_stay(sweep, ax):
    ax.set(xlabel="Latents allowed to fire")
    plots.plot_sweep(sweep, x="k", y="loss", ax=ax)
    assert ax.get_xlabel() == "Latents allowed to fire"


def test_each_hue_has_its_colour_and_name(sweep, ax):
    data = pd.concat([sweep.assign(kind="trained"), sweep.assign(kind="true", loss=0)])
    plots.plot_sweep(data, x="k", y="loss", hue="kind", ax=ax)
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert [line.get_label() for line in lines] == ["trained", "true"]
    assert [line.get_color() for line in lines] == list(style.PALETTE[:2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["trained", "true"]


def test_one_run_a_setting_is_a_line_without_dots(ax):
    data = pd.DataFrame({"k": [1, 2], "loss": [3.0, 4.0]})
    plots.plot_sweep(data, x="k", y="loss", seed=None, ax=ax)
    assert len(ax.lines) == 1


def test_unknown_columns_and_statistics_are_refused(sweep, ax):
    with pytest.raises(ValueError, match=r"y must be one of \[.*\], got 'mse'"):
        plots.plot_sweep(sweep, x="k", y="mse", ax=ax)
    with pytest.raises(ValueError, match=r"statistic must be one of .*, got 'best'"):
        plots.plot_sweep(sweep, x="k", y="loss", statistic="best", ax=ax)


def test_only_tables_are_swept(unchecked, ax):
    with pytest.raises(TypeError, match="data must be a DataFrame .*, got dict"):
        plots.plot_sweep({}, x="k", y="loss", ax=ax)


def test_a_seed_that_occurs_twice_in_a_setting_is_refused(sweep, ax):
    with pytest.raises(ValueError, match="several rows for one seed"):
        plots.plot_sweep(pd.concat([sweep, sweep]), x="k", y="loss", ax=ax)


def test_a_grid_has_a_panel_for_each_value():
    rows = [
        {"k": k, "seed": s, "n": n, "s_n": n * k + s}
        for n in (12, 13, 14, 15, 16)
        for k in (1, 2)
        for s in (0, 1)
    ]
    axes = plots.plot_sweep_grid(pd.DataFrame(rows), x="k", y="s_n", panel="n", columns=3)
    assert [ax.get_title() for ax in axes] == [f"n = {n}" for n in (12, 13, 14, 15, 16)]
    assert len(axes[0].figure.axes) == 5
    assert np.allclose(axes[3].lines[1].get_ydata(), [15.5, 30.5])
    assert axes[0].figure.get_supxlabel() == "k"
    assert axes[0].figure.get_supylabel() == "s_n"


def test_a_grid_needs_columns(sweep):
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        plots.plot_sweep_grid(sweep, x="k", y="loss", panel="seed", columns=0)


def test_the_true_l0_is_a_line_with_a_name(ax):
    ax.set(xlim=(1, 25))
    plots.plot_true_l0(ax, torch.tensor(10.95))
    assert np.allclose(ax.lines[0].get_xdata(), 10.95)
    assert ax.texts[0].get_text() == "true L0"
    plots.plot_true_l0(ax, 3, label="")
    assert len(ax.texts) == 1


def test_plots_change_no_global_settings(sweep, ax):
    before = mpl.rcParams.copy()
    plots.plot_sweep(sweep, x="k", y="loss", ax=ax)
    plots.plot_firing_probabilities([0.5], ax=ax)
    plots.plot_correlation_matrix(np.eye(2))
    assert mpl.rcParams == before


def test_feature_components_are_written_into_their_cells():
    ax = plots.plot_feature_components(
        [[1.0, -0.36], [-0.001, 0.9]], features=["parent", "child"], latents=["first", "second"]
    )
    assert [text.get_text() for text in ax.texts] == ["1.00", "−0.36", "0.00", "0.90"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["parent", "child"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]


def test_feature_components_want_as_many_names_as_rows_and_columns():
    with pytest.raises(ValueError, match="features must be 2 names, got 1"):
        plots.plot_feature_components([[1.0, 0.0]], features=["parent"])
