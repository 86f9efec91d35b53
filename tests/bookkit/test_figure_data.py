"""What a figure draws comes back as the table that was put in."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bookkit import figure_data, style
from bookkit.figure_data import read_figure, to_csv

pytestmark = pytest.mark.usefixtures("book_style")


def read(draw):
    fig, ax = plt.subplots()
    draw(ax)
    return read_figure(fig)


def test_a_line_gives_its_points_with_its_place_and_name():
    fig, axes = plt.subplots(1, 2)
    axes[1].plot([1, 2], [3.5, 4.5], label="loss")
    axes[1].set(title="Right", xlabel="k", ylabel="Error")
    table = read_figure(fig)
    assert table.to_dict("list") == {
        "panel": ["Right"] * 2,
        "x label": ["k"] * 2,
        "y label": ["Error"] * 2,
        "series": ["loss"] * 2,
        "kind": ["line"] * 2,
        "x": [1, 2],
        "y": [3.5, 4.5],
    }


def test_panels_without_a_title_are_numbered():
    fig, axes = plt.subplots(1, 2)
    for ax in axes:
        ax.plot([0], [0])
    assert read_figure(fig)["panel"].tolist() == ["panel 1", "panel 2"]


def test_marks_and_ink_are_no_data():
    def draw(ax):
        ax.axhline(1)
        ax.axvline(2, label="true L0")
        ax.text(0, 0, "text")

    assert read(draw) is None


def test_a_line_that_matplotlib_named_has_no_name():
    assert read(lambda ax: ax.plot([0], [1]))["series"].tolist() == [""]


def test_a_scatter_gives_its_points_and_the_values_behind_its_colours():
    table = read(lambda ax: ax.scatter([1, 2], [3, 4], c=[0.1, 0.2]))
    assert table[["x", "y", "value"]].to_numpy().tolist() == [[1, 3, 0.1], [2, 4, 0.2]]


def test_bars_give_their_middles_and_lengths():
    table = read(lambda ax: ax.bar([0, 1], [5, 6], width=0.8))
    np.testing.assert_allclose(table[["x", "y"]], [[0, 5], [1, 6]])
    table = read(lambda ax: ax.barh([0, 1], [5, 6]))
    np.testing.assert_allclose(table[["x", "y"]], [[5, 0], [6, 1]])


def test_a_histogram_gives_counts_at_the_middles_of_its_bins():
    table = read(lambda ax: ax.hist([0.1, 0.2, 1.5], bins=[0, 1, 2]))
    assert table[["x", "y"]].to_numpy().tolist() == [[0.5, 2], [1.5, 1]]


def test_error_bars_give_their_ends_once():
    table = read(lambda ax: ax.errorbar([1, 2], [3, 4], yerr=0.5, capsize=2, label="a"))
    assert table["kind"].tolist() == ["error bar"] * 2
    assert table["series"].tolist() == ["a"] * 2
    assert table[["x", "y", "low", "high"]].to_numpy().tolist() == [
        [1, 3, 2.5, 3.5],
        [2, 4, 3.5, 4.5],
    ]
    table = read(lambda ax: ax.errorbar([1], [3], xerr=0.5))
    assert table[["x", "y", "low", "high"]].to_numpy().tolist() == [[1, 3, 0.5, 1.5]]


def test_a_band_gives_its_edges():
    table = read(lambda ax: ax.fill_between([1, 2, 3], [0, 1, 0], [2, 3, 4]))
    assert table[["x", "low", "high"]].to_numpy().tolist() == [[1, 0, 2], [2, 1, 3], [3, 0, 4]]


def test_an_image_gives_a_row_for_each_cell():
    table = read(lambda ax: ax.imshow([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    cells = table[["row", "column", "x", "y", "value"]]
    assert cells.iloc[[0, 5]].to_numpy().tolist() == [[0, 0, 0, 0, 1], [1, 2, 2, 1, 6]]
    assert len(cells) == 6


def test_an_image_from_below_has_its_first_row_at_the_bottom():
    table = read(lambda ax: ax.imshow([[1.0], [2.0]], origin="lower", extent=(0, 1, 0, 4)))
    assert table[["y", "value"]].to_numpy().tolist() == [[1, 1], [3, 2]]


def test_a_mesh_gives_the_middles_of_its_cells():
    table = read(lambda ax: ax.pcolormesh([0, 1, 3], [0, 2], [[7.0, 8.0]]))
    assert table[["x", "y", "value"]].to_numpy().tolist() == [[0.5, 1, 7], [2, 1, 8]]


def test_a_masked_cell_is_empty():
    table = read(lambda ax: ax.imshow(np.ma.masked_equal([[1.0, 2.0]], 2)))
    assert np.isnan(table["value"].iloc[1])


def test_a_picture_in_colours_is_no_table():
    assert read(lambda ax: ax.imshow(np.zeros((2, 2, 3)))) is None


def test_colour_bars_are_not_read():
    fig, ax = plt.subplots()
    fig.colorbar(ax.imshow([[1.0, 2.0]]))
    assert set(read_figure(fig)["panel"]) == {"panel 1"}


def test_named_ticks_are_written_beside_their_numbers():
    def draw(ax):
        ax.plot([1, 2], [0, 1])
        ax.set_yticks([0, 1], ["TopK", "Gated"])
        ax.set_xticks([1, 2], ["1", "2"])

    table = read(draw)
    assert table["y name"].tolist() == ["TopK", "Gated"]
    assert "x name" not in table


def test_a_named_tick_out_of_view_is_no_obstacle():
    def draw(ax):
        ax.plot([1, 2], [0, 1])
        ax.set_xticks([1, 2, 9], ["a", "b", "c"])
        ax.set_xlim(1, 2)

    assert read(draw)["x name"].tolist() == ["a", "b"]


def test_too_long_a_table_is_left_out(monkeypatch):
    monkeypatch.setattr(figure_data, "MAX_ROWS", 3)
    assert len(read(lambda ax: ax.plot([1, 2, 3], [1, 2, 3]))) == 3
    assert read(lambda ax: ax.plot([1, 2, 3, 4], [1, 2, 3, 4])) is None


def test_text_has_six_digits_and_reads_back():
    text = to_csv(pd.DataFrame({"x": [1 / 3, 1e-9], "name": ["a,b", ""]}))
    assert text == 'x,name\n0.333333,"a,b"\n1e-09,\n'
    assert pd.read_csv(io.StringIO(text))["name"].iloc[0] == "a,b"


def test_reading_leaves_the_figure_as_it_was():
    drawings = []
    for reads in (False, True):
        fig, ax = plt.subplots()
        ax.plot([0, 1], [0, 1])
        ax.errorbar([1], [1], yerr=1)
        ax.set_xticks([0, 1], ["a", "b"])
        if reads:
            read_figure(fig)
        drawings.append(style._svg(fig))
    assert drawings[0] == drawings[1]
