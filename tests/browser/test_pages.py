"""Every page of the site, on a phone and on a desk, in light and in dark."""

from statistics import median

import pytest
from site_checks import listed

from conftest import PAGES

LARGEST_PAGE = 450_000
LARGEST_PAGE_WITH_FIGURES = 1_200_000
MOST_OPEN_CODE = 0.25
MOST_OPEN_CODE_IN_THE_MEDIAN = 0.2


def test_page_loads_without_errors(visit):
    assert not visit.faults, listed(visit.faults)


def test_page_asks_nothing_of_another_host(visit):
    assert not visit.foreign, listed(visit.foreign)


def test_page_fits_a_phone(visit):
    assert not visit.too_wide, listed(visit.too_wide)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_accessible(visit, theme):
    assert not visit.violations[theme], listed(visit.violations[theme])


def test_images_have_a_size_and_load_when_needed(visit):
    assert not visit.unfit_images, listed(visit.unfit_images)


def test_page_prints_without_its_navigation(visit):
    assert not visit.printed_navigation, listed(visit.printed_navigation)


def test_page_is_light_before_its_figures(visit):
    assert visit.bytes_without_figures <= LARGEST_PAGE


def test_page_is_light_with_its_figures(visit):
    assert visit.bytes_with_figures <= LARGEST_PAGE_WITH_FIGURES


def test_page_is_more_text_and_pictures_than_open_code(visit):
    assert visit.open_code <= MOST_OPEN_CODE


def test_median_page_with_code_has_little_of_it_open(look):
    shares = [look(page.name).open_code for page in PAGES]
    assert median(share for share in shares if share) <= MOST_OPEN_CODE_IN_THE_MEDIAN
