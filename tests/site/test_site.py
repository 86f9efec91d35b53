"""The built site in `_build/html` holds what it promises, page by page."""

from pathlib import Path

import pytest
import site_checks
from site_checks import Page, Site, built_site, listed

ROOT = Path(__file__).resolve().parents[2]
HTML = built_site()
SITE = Site(HTML)
PAGES = list(SITE.pages.values())
STYLE_SHEETS = sorted(HTML.rglob("*.css"))


@pytest.mark.parametrize("check", site_checks.PAGE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_has_no(page: Page, check) -> None:
    faults = check(page)
    assert not faults, listed(faults)


def test_every_chapter_of_the_table_of_contents_was_built() -> None:
    faults = site_checks.missing_toctree_pages(SITE, ROOT / "_toc.yml")
    assert not faults, listed(faults)


@pytest.mark.parametrize("sheet", STYLE_SHEETS, ids=lambda sheet: str(sheet.relative_to(HTML)))
def test_style_sheet_fetches_nothing_from_another_host(sheet: Path) -> None:
    faults = site_checks.external_style_resources(sheet)
    assert not faults, listed(faults)
