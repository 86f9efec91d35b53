"""What readers do: move sliders, point, change the theme, search, print, go without scripts."""

import csv
import io
import json

import pytest

from conftest import SITE


def pages_with(selector):
    return [page.name for page in SITE.pages.values() if page.soup.select_one(selector)]


OPEN_ON_PAPER = """() => addEventListener("beforeprint", () => {
    window.printed = [...document.querySelectorAll(".solution.dropdown")]
        .map(solution => solution.querySelector("section").checkVisibility());
})"""
NOTEBOOK = "a[href$='.ipynb']"
FRAMES, PAGES, POINTS = (f'.touch[data-touch="{kind}"]' for kind in ("frames", "pages", "points"))


def test_the_book_has_six_figures_to_touch():
    assert sum(len(page.soup.select(".touch")) for page in SITE.pages.values()) >= 6
    assert pages_with(FRAMES) and pages_with(PAGES) and pages_with(POINTS)


def opened(page, site, name, selector):
    """The elements of this kind on a page."""
    page.goto(site + name)
    return page.locator(selector).all()


def drag(page, slider, start, end):
    """Drag a slider's thumb with the mouse, from one share of its length to another."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    left, top, width = box["x"] + 8, box["y"] + box["height"] / 2, box["width"] - 16
    page.mouse.move(left + start * width, top)
    page.mouse.down()
    page.mouse.move(left + end * width, top, steps=5)
    page.mouse.up()


def moves(page, slider):
    """Move a slider by keyboard and by mouse; gives the index where it should stand each time."""
    labels = slider.get_attribute("data-labels").split("\n")
    last = len(labels) - 1
    slider.focus()
    for key, index in {"Home": 0, "ArrowRight": 1, "End": last}.items():
        page.keyboard.press(key)
        yield index, labels[index]
    drag(page, slider, 1, 0)
    yield 0, labels[0]
    drag(page, slider, 0, 1)
    yield last, labels[last]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", pages_with(FRAMES))
def test_a_slider_moves_the_picture(phone, site, name, theme):
    phone.emulate_media(color_scheme=theme)
    for figure in opened(phone, site, name, FRAMES):
        image = figure.locator("img.themed:visible")
        drawings = [item.get_attribute(f"data-{theme}") for item in figure.locator("ul > li").all()]
        assert len(set(drawings)) == len(drawings)
        slider = figure.locator("input[type=range]")
        for index, label in moves(phone, slider):
            assert image.get_attribute("src") == drawings[index]
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            assert figure.locator("output").inner_text() == label
            assert slider.get_attribute("aria-valuetext") == label


@pytest.mark.parametrize("name", pages_with(PAGES))
def test_a_slider_changes_the_text(phone, site, name):
    for figure in opened(phone, site, name, PAGES):
        texts = figure.locator(".touch-page")
        for index, label in moves(phone, figure.locator("input[type=range]")):
            shown = [place for place, text in enumerate(texts.all()) if text.is_visible()]
            assert shown == [index]
            assert figure.locator("output").inner_text() == label


@pytest.mark.parametrize("name", pages_with(POINTS))
def test_points_tell_what_they_are_by_pointer_and_keyboard(phone, site, name):
    for figure in opened(phone, site, name, POINTS):
        points, note = figure.locator(".touch-point"), figure.locator(".touch-note")
        texts = [point.get_attribute("aria-label") for point in points.all()]
        points.first.focus()
        assert note.inner_text() == texts[0]
        phone.keyboard.press("ArrowRight")
        assert note.inner_text() == texts[1]
        phone.keyboard.press("Escape")
        assert note.inner_text() == note.get_attribute("data-start")
        places = [point.get_attribute("style") for point in points.all()]
        for index in range(0, len(places), max(1, len(places) // 5)):
            point, place = points.nth(index), places[index]
            point.scroll_into_view_if_needed()
            box = point.bounding_box()
            phone.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            there = [text for text, other in zip(texts, places, strict=True) if other == place]
            assert note.inner_text() in there


@pytest.mark.parametrize("name", pages_with(".touch"))
def test_without_scripts_the_start_of_a_figure_shows_and_no_controls(bare, site, name):
    for figure in opened(bare, site, name, ".touch"):
        assert figure.locator("img.themed:visible, .touch-page:visible").count() == 1
        assert figure.locator("input:visible, button:visible").count() == 0


def test_the_button_for_the_theme_switches_the_figures(phone, site):
    phone.goto(site + "book/true_l0.html")

    def shown():
        return {
            theme
            for theme in ("light", "dark")
            for image in phone.locator(f"main img.only-{theme}").all()
            if image.is_visible()
        }

    assert shown() == {"light"}
    for _ in range(3):  # the button goes through light, dark and the system's
        phone.locator(".theme-switch-button:visible").first.click()
        if shown() != {"light"}:
            break
    assert shown() == {"dark"}
    phone.reload()
    assert shown() == {"dark"}


def test_search_finds_a_term_of_the_glossary(phone, site):
    phone.goto(site + "book/intro.html")
    phone.keyboard.press("Control+k")
    phone.locator("dialog input[type=search]").fill("absorption")
    phone.keyboard.press("Enter")
    phone.wait_for_url("**/search.html?q=absorption*")
    found = phone.locator("#search-results a[href*='book/glossary.html']").first
    found.click()
    phone.locator("main dt:visible", has_text="absorption").first.wait_for()


@pytest.mark.parametrize("name", pages_with("a[download][href$='.csv']"))
def test_the_data_of_the_figures_are_tables(phone, site, name):
    links = opened(phone, site, name, "a[download][href$='.csv']")
    with phone.expect_download() as waiting:
        links[0].press("Enter")
    assert waiting.value.suggested_filename == links[0].get_attribute("download")
    for link in links:
        reply = phone.request.get(link.evaluate("link => link.href"))
        rows = list(csv.reader(io.StringIO(reply.text())))
        assert reply.ok and len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize("name", pages_with(".solution.dropdown"))
def test_hidden_solutions_open_on_paper_and_by_keyboard(phone, site, name):
    solutions = opened(phone, site, name, ".solution.dropdown")
    phone.evaluate(OPEN_ON_PAPER)
    phone.pdf()
    assert phone.evaluate("() => window.printed") == [True] * len(solutions)
    for solution in solutions:
        content = solution.locator("section").first
        assert not content.is_visible()
        solution.locator("button.toggle-button").first.press("Enter")
        assert content.is_visible()


def test_every_chapter_has_a_notebook():
    assert len(pages_with(NOTEBOOK)) >= 9


@pytest.mark.parametrize("name", pages_with(NOTEBOOK))
def test_notebooks_download(phone, site, name):
    for link in opened(phone, site, name, NOTEBOOK):
        with phone.expect_download() as waiting:
            link.press("Enter")
        notebook = json.loads(waiting.value.path().read_text("utf-8"))
        assert notebook["nbformat"] == 4
        assert any(cell["cell_type"] == "code" for cell in notebook["cells"])


@pytest.mark.parametrize("name", pages_with("details.hide"))
def test_one_button_opens_all_folded_code_and_shuts_it_again(phone, site, name):
    phone.goto(site + name)
    button, cells = phone.locator(".code-button"), phone.locator("details.hide")
    for pressed, n_open in (("true", cells.count()), ("false", 0)):
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        assert phone.locator("details.hide[open]").count() == n_open


def test_without_scripts_each_cell_of_code_opens_by_itself(bare, site):
    bare.goto(site + pages_with("details.hide")[0])
    cell = bare.locator("details.hide").first
    cell.locator("summary").click()
    assert cell.evaluate("cell => cell.open")
    assert not bare.locator(".code-button").is_visible()
