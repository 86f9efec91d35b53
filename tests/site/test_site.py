"""The built site in `_build/html` holds what it promises, page by page."""

import os
from pathlib import Path

import pytest
import site_checks
from site_checks import Page, Site

ROOT = Path(__file__).resolve().parents[2]
HTML = Path(os.environ.get("SITE") or ROOT / "_build" / "html")

# No silent skip: a missing site is a failure. One whose build did not finish is not in this place.
if not (HTML / "index.html").is_file():
    raise pytest.UsageError(f"no built site: {HTML / 'index.html'} is missing. Run `make book`.")

SITE = Site(HTML)
PAGES = list(SITE.pages.values())
STYLE_SHEETS = sorted(HTML.rglob("*.css"))


def listed(faults: list[str]) -> str:
    return "\n".join(["", *(f"  - {fault}" for fault in faults)])


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
