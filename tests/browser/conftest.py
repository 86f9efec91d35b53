"""One browser for all tests, one visit to each page, and a summary at the end."""

from statistics import median

import browsing
import pytest
from playwright.sync_api import sync_playwright
from site_checks import Site, built_site

from browser import find_browser

HTML = built_site()
VISITS: dict[str, browsing.Visit] = {}
SITE = Site(HTML)
PAGES = [page for page in SITE.pages.values() if not page.redirect]


def pytest_generate_tests(metafunc):
    if "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", [page.name for page in PAGES])


@pytest.fixture(scope="session")
def site():
    """The address of the site."""
    with browsing.served(HTML) as address:
        yield address


@pytest.fixture(scope="session")
def _browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _screens(_browser):
    return browsing.contexts(_browser)


@pytest.fixture
def bare(_browser):
    """A page in a browser that runs no scripts."""
    context = _browser.new_context(java_script_enabled=False, viewport=browsing.PHONE)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def look(site, _screens):
    """Find out what a page does; each is visited once."""

    def at(page_name):
        if page_name not in VISITS:
            VISITS[page_name] = browsing.visit(site, page_name, *_screens)
        return VISITS[page_name]

    return at


@pytest.fixture
def visit(page_name, look):
    """What a page does."""
    return look(page_name)


@pytest.fixture
def phone(site, _browser):
    """A fresh page on a phone in light, which may not fail at anything."""
    context = _browser.new_context(viewport=browsing.PHONE, color_scheme="light")
    context.set_default_timeout(10_000)
    with browsing.watched(context, site) as seen:
        yield seen.page
        assert not seen.faults + seen.foreign
    context.close()


def pytest_terminal_summary(terminalreporter):
    if not VISITS:
        return
    visits = VISITS.values()
    rules = set().union(*(visit.rules for visit in visits))
    violations = [
        fault for visit in visits for found in visit.violations.values() for fault in found
    ]
    heaviest = max(VISITS, key=lambda name: VISITS[name].bytes_without_figures)
    fullest = max(VISITS, key=lambda name: VISITS[name].bytes_with_figures)
    images = [path for kind in ("svg", "png", "jpg", "webp") for path in HTML.rglob(f"*.{kind}")]
    image = max(images, key=lambda path: path.stat().st_size)
    files = [path.stat().st_size for path in HTML.rglob("*") if path.is_file()]
    checks = sum(len(terminalreporter.stats.get(key, [])) for key in ("passed", "failed"))
    write = terminalreporter.write_line
    terminalreporter.section("the site in the browser")
    write(f"{len(VISITS)} pages, {checks} checks, {len(rules)} rules of axe-core in two themes")
    write(
        f"{len(violations)} violations, {sum(len(v.foreign) for v in visits)} third-party requests"
    )
    write(f"heaviest page: {VISITS[heaviest].bytes_without_figures / 1000:.0f} kB, {heaviest}")
    write(f"  with figures: {VISITS[fullest].bytes_with_figures / 1000:.0f} kB, {fullest}")
    shares = [100 * visit.open_code for visit in visits if visit.open_code]
    if shares:
        write(f"open code: {median(shares):.0f} % of the median page, at most {max(shares):.0f} %")
    write(f"largest image file: {image.stat().st_size / 1000:.0f} kB, {image.relative_to(HTML)}")
    write(f"site: {sum(files) / 1e6:.1f} MB in {len(files)} files")
