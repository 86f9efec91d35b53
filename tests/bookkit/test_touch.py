"""Sliders and points: the start shows without scripts, and everything else is in the markup."""

import urllib.parse

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup

from bookkit import style, touch

pytestmark = pytest.mark.usefixtures("book_style")


def picture(height=1.0, size=(3, 2)):
    fig, ax = plt.subplots(figsize=size)
    ax.plot([0, 1], [0, height])
    return style.themed(fig, alt=f"A line up to {height:g}")


def three(**kwargs):
    options = {"labels": ["1", "2", "3"], "name": "k", "notes": ["low", "<right>", "high"]}
    return touch.frames([picture(h) for h in (1, 2, 3)], **{**options, "start": 1, **kwargs})


def soup(figure):
    return BeautifulSoup(figure.html(), "html.parser")


def test_without_scripts_only_the_start_shows():
    page = soup(three())
    images = page.find_all("img")
    assert [image["alt"] for image in images] == ["A line up to 2"] * 2
    assert page.select_one(".touch-controls").has_attr("hidden")
    assert page.select_one("ul").has_attr("hidden")
    assert page.select_one(".touch-note").text == "<right>"


def test_the_slider_is_a_labelled_range_that_says_its_value():
    page = soup(three())
    slider = page.select_one("label input[type=range]")
    assert slider.find_parent("label").text.strip() == "k"
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert slider["aria-valuetext"] == page.output.text == "2"
    assert slider["data-labels"].split("\n") == ["1", "2", "3"]


def test_every_frame_is_there_in_both_inks_with_its_finding():
    pictures = [picture(h) for h in (1, 2, 3)]
    figure = touch.frames(pictures, labels=["1", "2", "3"], name="k", notes=["a", "b", "c"])
    items = soup(figure).select("ul > li")
    assert [item["data-light"] for item in items] == [p.light for p in pictures]
    assert [item["data-dark"] for item in items] == [p.dark for p in pictures]
    assert [item["data-alt"] for item in items] == [p.alt for p in pictures]
    assert [item.text for item in items] == ["a", "b", "c"]


def test_findings_are_read_out_when_they_change():
    assert soup(three()).select_one(".touch-note")["aria-live"] == "polite"


def test_the_data_of_all_frames_is_one_table():
    link = soup(three()).select_one("a[download]")
    text = urllib.parse.unquote(link["href"].partition(",")[2])
    rows = [line.split(",") for line in text.strip().split("\n")]
    assert rows[0][0] == "k"
    assert [(row[0], row[-1]) for row in rows[1:]] == [
        ("1", "0"), ("1", "1"), ("2", "0"), ("2", "2"), ("3", "0"), ("3", "3"),
    ]  # fmt: skip


def test_too_much_data_is_that_of_the_start_alone(monkeypatch):
    monkeypatch.setattr(touch, "MAX_ROWS", 5)
    text = urllib.parse.unquote(soup(three()).select_one("a[download]")["href"])
    assert [line.split(",")[0] for line in text.strip().split("\n")[1:]] == ["2", "2"]


def test_a_notebook_without_html_has_the_start():
    start = picture(2)
    bundle = three()._repr_mimebundle_()
    assert bundle["image/png"] == start.png
    assert bundle["text/plain"] == "Figure with a slider over k: A line up to 2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["1"]}, "3 frames and 1 labels"),
        ({"notes": ["a"]}, "notes has 1 entries; expected 3"),
        ({"start": 3}, "start is 3; expected an index from 0 to 2"),
        ({"start": -1}, "start is -1"),
        ({"name": " "}, "name is ' '"),
    ],
)
def test_frames_refuse_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        three(**change)


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="expected one size for all"):
        touch.frames(
            [picture(), picture(size=(4, 2))], labels="ab", name="k", notes=["", ""], start=0
        )


def test_pages_show_the_start_and_hide_the_others():
    figure = touch.pages(["<p>one</p>", "<p>two</p>"], labels=["1", "2"], name="latent", start=1)
    found = soup(figure).select(".touch-page")
    assert [page.has_attr("hidden") for page in found] == [True, False]
    assert [page.text for page in found] == ["one", "two"]
    assert "image/png" not in figure._repr_mimebundle_()


def test_pages_take_objects_that_write_html_and_text():
    class Page:
        def html(self):
            return "<b>x</b>"

        def text(self):
            return "x"

    figure = touch.pages([Page(), Page()], labels=["1", "2"], name="latent")
    assert soup(figure).select_one(".touch-page b").text == "x"
    assert figure._repr_mimebundle_()["text/plain"].endswith("\nx")


def test_marks_lie_where_the_points_are_drawn():
    fig = plt.figure(figsize=(4, 2), layout="none")
    ax = fig.add_axes((0.25, 0.1, 0.5, 0.8), xlim=(0, 10), ylim=(0, 1))
    marks = touch.marks(ax, [(0, 0), (10, 1), (5, 0.5)], ["a", "b", "c"])
    # The axes run from 25 to 75 % from the left, and from 90 to 10 % from the top.
    assert [(mark.left, mark.top) for mark in marks] == [(25, 90), (75, 10), (50, 50)]


def test_marks_follow_a_logarithmic_axis():
    fig = plt.figure(layout="none")
    ax = fig.add_axes((0, 0, 1, 1), xscale="log", xlim=(1, 100), ylim=(0, 1))
    assert touch.marks(ax, [(10, 0.5)], ["a"])[0].left == pytest.approx(50)


def test_marks_need_a_text_for_each_point():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"xy has shape \(1, 2\); expected \(2, 2\)"):
        touch.marks(ax, [(0, 0)], ["a", "b"])


def test_points_are_buttons_with_their_texts_and_one_stop_of_the_tab_key():
    marks = [touch.Mark(left=10, top=20, text="k < 2"), touch.Mark(left=30, top=40, text="b")]
    page = soup(touch.points(picture(), marks, start="Point at a dot."))
    buttons = page.select("button")
    assert [button["aria-label"] for button in buttons] == ["k < 2", "b"]
    assert [button["tabindex"] for button in buttons] == ["0", "-1"]
    assert buttons[0]["style"] == "left:10%;top:20%"
    assert page.select_one(".touch-points").has_attr("hidden")
    assert page.select_one(".touch-note")["data-start"] == "Point at a dot."


@pytest.mark.parametrize("marks", [[], [touch.Mark(left=101, top=0, text="a")]])
def test_points_outside_the_figure_are_refused(marks):
    with pytest.raises(ValueError, match="expected points inside the figure"):
        touch.points(picture(), marks, start="Point.")
