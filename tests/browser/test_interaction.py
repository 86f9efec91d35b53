"""What readers do: move sliders, point, change the theme, search, and read without scripts."""

import csv
import io

import pytest

from conftest import SITE


def pages_with(selector):
    return [page.name for page in SITE.pages.values() if page.soup.select_one(selector)]


WITH_FRAMES = pages_with('.touch[data-touch="frames"]')
WITH_PAGES = pages_with('.touch[data-touch="pages"]')
WITH_POINTS = pages_with('.touch[data-touch="points"]')


def test_the_book_has_six_figures_to_touch():
    assert sum(len(page.soup.select(".touch")) for page in SITE.pages.values()) >= 6
    assert WITH_FRAMES and WITH_PAGES and WITH_POINTS


def opened(page, site, name, selector):
    """The page's first element of this kind, in view."""
    page.goto(site + name)
    found = page.locator(selector).first
    found.scroll_into_view_if_needed()
    return found


@pytest.mark.parametrize("name", WITH_FRAMES)
def test_a_slider_changes_the_picture_by_keyboard_and_by_pointer(phone, site, name):
    figure = opened(phone, site, name, '.touch[data-touch="frames"]')
    slider, image = figure.locator("input[type=range]"), figure.locator("img.only-light")
    frames = [item.get_attribute("data-light") for item in figure.locator("ul > li").all()]
    slider.focus()
    slider.press("Home")
    assert image.get_attribute("src") == frames[0]
    slider.press("ArrowRight")
    assert image.get_attribute("src") == frames[1]
    assert figure.locator("output").inner_text() == slider.get_attribute("aria-valuetext")
    box = slider.bounding_box()
    phone.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert image.get_attribute("src") == frames[-1]
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


@pytest.mark.parametrize("name", WITH_PAGES)
def test_a_slider_changes_the_page(phone, site, name):
    figure = opened(phone, site, name, '.touch[data-touch="pages"]')
    shown = figure.locator(".touch-page:not([hidden])")
    before = shown.inner_text()
    figure.locator("input[type=range]").press("End")
    assert shown.count() == 1
    assert shown.inner_text() != before


@pytest.mark.parametrize("name", WITH_POINTS)
def test_points_tell_what_they_are_by_pointer_and_keyboard(phone, site, name):
    figure = opened(phone, site, name, '.touch[data-touch="points"]')
    points, note = figure.locator(".touch-point"), figure.locator(".touch-note")
    points.first.focus()
    assert note.inner_text() == points.first.get_attribute("aria-label")
    points.first.press("ArrowRight")
    assert note.inner_text() == points.nth(1).get_attribute("aria-label")
    points.nth(1).press("Escape")
    assert note.inner_text() == note.get_attribute("data-start")
    points.last.hover(force=True)  # the canvas below takes the pointer, for the nearest point
    assert note.inner_text() in [point.get_attribute("aria-label") for point in points.all()]


@pytest.mark.parametrize("name", WITH_FRAMES + WITH_PAGES + WITH_POINTS)
def test_without_scripts_the_start_of_a_figure_shows_and_no_controls(bare, site, name):
    figure = opened(bare, site, name, ".touch")
    start = figure.locator("img.only-light, .touch-page:not([hidden])").first
    assert start.is_visible()
    assert not any(control.is_visible() for control in figure.locator("input, button").all())


def test_the_dark_theme_switches_the_figures(phone, site):
    phone.goto(site + "book/true_l0.html")
    light, dark = (phone.locator(f"main img.only-{theme}").first for theme in ("light", "dark"))
    assert light.is_visible() and not dark.is_visible()
    button = phone.locator(".theme-switch-button:visible").first
    for _ in range(3):  # the button goes through light, dark and the system's
        if not dark.is_visible():
            button.click()
    assert dark.is_visible() and not light.is_visible()


def test_search_finds_a_term_of_the_glossary(phone, site):
    phone.goto(site + "search.html?q=absorption")
    found = phone.locator("#search-results a[href*='glossary']").first
    found.wait_for()
    assert "lossary" in found.inner_text()


@pytest.mark.parametrize("name", pages_with("a[download][href$='.csv']"))
def test_the_data_of_the_figures_are_tables(phone, site, name):
    phone.goto(site + name)
    for link in phone.locator("a[download][href$='.csv']").all():
        reply = phone.request.get(link.evaluate("link => link.href"))
        rows = list(csv.reader(io.StringIO(reply.text())))
        assert reply.ok and len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}


def test_a_hidden_solution_opens_by_keyboard(phone, site):
    phone.goto(site + "book/true_l0.html")
    solution = phone.locator(".solution.dropdown").first
    content = solution.locator("section")
    assert not content.is_visible()
    solution.locator("button.toggle-button").press("Enter")
    assert content.is_visible()
