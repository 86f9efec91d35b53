"""One drawing, two inks: only what is not data changes colour."""

import base64
import io
import re
import urllib.parse
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from bookkit import style

pytestmark = pytest.mark.usefixtures("book_style")


def test_lines_take_the_colours_of_the_palette_in_turn():
    plt.rcdefaults()
    style.use()
    drawn = [plt.plot([0, 1])[0].get_color() for _ in style.PALETTE]
    assert drawn == list(style.PALETTE)


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ink", [style.LIGHT, style.DARK])
def test_data_colours_are_visible_on_both_backgrounds(ink):
    assert all(contrast(color, ink.background) >= 3 for color in style.PALETTE)


@pytest.mark.parametrize("ink", [style.LIGHT, style.DARK])
def test_text_is_readable_on_both_backgrounds(ink):
    assert contrast(ink.text, ink.background) >= 7
    assert contrast(ink.muted, ink.background) >= 4.5


def test_no_colour_of_data_is_taken_for_ink():
    ink = {color.lower() for color in vars(style.LIGHT).values()}
    assert not ink & {color.lower() for color in style.PALETTE}


def drawing():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1], [0, 1], color=style.PALETTE[1], label="line")
    ax.set(xlabel="k", title="Title")
    ax.legend()
    return fig, ax


def test_a_figure_without_alternative_text_is_refused():
    fig, _ = drawing()
    for alt in ("", "  "):
        with pytest.raises(ValueError, match=r"alt must be a description .*, got "):
            style.themed(fig, alt=alt)


def test_axes_in_place_of_a_figure_are_refused(unchecked):
    _, ax = drawing()
    with pytest.raises(TypeError, match="fig must be a matplotlib Figure"):
        style.themed(ax, alt="A line")


def test_the_figure_is_closed_so_that_a_notebook_does_not_show_it_twice():
    fig, _ = drawing()
    style.themed(fig, alt="A line")
    assert not plt.fignum_exists(fig.number)


def test_a_figure_brings_its_data_with_a_name_of_its_own():
    link = style.themed(drawing()[0], alt="A <line>").data_link()
    text = urllib.parse.unquote(re.search(r'href="data:text/csv;charset=utf-8,([^"]*)"', link)[1])
    assert text.splitlines()[1:] == ["Title,k,,line,line,0,0", "Title,k,,line,line,1,1"]
    assert "Data (CSV)" in link and "of the figure: A &lt;line&gt;" in link


def test_a_figure_without_data_has_no_link():
    fig, ax = plt.subplots()
    ax.text(0, 0, "text")
    assert "Data" not in style.themed(fig, alt="Text").html()


def test_html_holds_both_drawings_with_size_and_text():
    html = style.themed(drawing()[0], alt='A "line" < that').html()
    images = re.findall(r"<img [^>]*>", html)
    assert ["only-light" in image for image in images] == [True, False]
    assert ["only-dark" in image for image in images] == [False, True]
    for image in images:
        assert 'alt="A &quot;line&quot; &lt; that"' in image
        assert 'width="288" height="192"' in image
        assert 'loading="lazy"' in image


def test_a_page_without_the_books_styles_shows_the_light_drawing_only():
    light, dark = re.findall(r"<img [^>]*>", style.themed(drawing()[0], alt="A line").html())
    assert "display:none" in dark
    assert "display:none" not in light


def test_small_figures_are_well_formed_svg_that_differ_in_ink_only():
    figure = style.themed(drawing()[0], alt="A line")
    prefix = "data:image/svg+xml,"
    light, dark = (
        urllib.parse.unquote(uri.removeprefix(prefix)) for uri in (figure.light, figure.dark)
    )
    assert ElementTree.fromstring(light).tag.endswith("svg")
    assert style.PALETTE[1].lower() in light
    assert style.PALETTE[1].lower() in dark
    assert style.LIGHT.text in light
    assert style.DARK.text in dark
    assert not [
        ink for ink in (style.LIGHT.text, style.LIGHT.muted, style.LIGHT.grid) if ink in dark
    ]


def test_equal_figures_give_equal_bytes():
    first, second = (style.themed(drawing()[0], alt="A line") for _ in range(2))
    assert first == second


def test_large_figures_are_images_with_two_pixels_for_one(monkeypatch):
    monkeypatch.setattr(style, "SVG_LIMIT", 100)
    figure = style.themed(drawing()[0], alt="A line")
    for uri in (figure.light, figure.dark):
        image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
        assert image.size == (2 * figure.width, 2 * figure.height)


def test_the_fallback_image_is_opaque_and_light():
    figure = style.themed(drawing()[0], alt="A line")
    image = Image.open(
        io.BytesIO(base64.b64decode(figure._repr_mimebundle_()["image/png"]))
    ).convert("RGBA")
    assert image.size == (figure.width, figure.height)
    assert image.getpixel((0, 0)) == (255, 255, 255, 255)


def test_the_bundle_has_text_for_a_terminal():
    assert (
        style.themed(drawing()[0], alt="A line")._repr_mimebundle_()["text/plain"]
        == "Figure: A line"
    )


def test_recolouring_reaches_text_spines_ticks_grid_and_legend_but_no_data():
    fig, ax = drawing()
    style.recolor(fig, style.LIGHT, style.DARK)
    assert to_hex(ax.title.get_color()) == style.DARK.text
    assert to_hex(ax.spines["left"].get_edgecolor()) == style.DARK.muted
    assert {to_hex(label.get_color()) for label in ax.get_xticklabels()} == {style.DARK.text}
    assert {to_hex(line.get_color()) for line in ax.get_xgridlines()} == {style.DARK.grid}
    assert to_hex(ax.get_legend().get_texts()[0].get_color()) == style.DARK.text
    assert to_hex(ax.lines[0].get_color()) == style.PALETTE[1].lower()


def test_recolouring_keeps_transparency_and_rows_of_other_colours():
    fig, ax = plt.subplots()
    points = ax.scatter([0, 1], [0, 1], c=[style.LIGHT.muted, style.PALETTE[0]], alpha=0.5)
    style.recolor(fig, style.LIGHT, style.DARK)
    colors = points.get_facecolor()
    assert [to_hex(color) for color in colors] == [style.DARK.muted, style.PALETTE[0].lower()]
    assert np.allclose(colors[:, 3], 0.5)


@pytest.mark.parametrize("cmap", [style.DIVERGING, style.SEQUENTIAL])
def test_zero_has_the_colour_of_the_page_in_both_inks(cmap):
    fig, ax = plt.subplots()
    image = ax.imshow(
        np.zeros((2, 2)), cmap=cmap, vmin=-1 if cmap is style.DIVERGING else 0, vmax=1
    )
    assert np.allclose(image.to_rgba(0.0)[:3], to_rgb(style.LIGHT.background), atol=0.02)
    style.recolor(fig, style.LIGHT, style.DARK)
    assert np.allclose(image.to_rgba(0.0)[:3], to_rgb(style.DARK.background), atol=0.02)
