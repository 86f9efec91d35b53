"""Open the pages of the built site in headless Chromium, and note what each does."""

import functools
import gzip
import importlib.resources
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Response

AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}

READY = """async () => {
    await window.mathematicsReady;
    await document.fonts.ready;
}"""
# Pictures are lazy: fetch those that a reader who scrolls to the end would see.
FETCH_PICTURES = """() => Promise.all([...document.images]
    .filter(image => image.checkVisibility())
    .map(image => { image.loading = "eager"; return image.decode(); }))"""
WIDER_THAN_SCREEN = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll("body *")]
        .filter(element => element.getBoundingClientRect().right > innerWidth)
        .filter(element => !element.parentElement.closest("pre, mjx-container"))
        .slice(0, 5).map(element => element.outerHTML.slice(0, 150))"""
UNFIT_IMAGES = """() => [...document.querySelectorAll("main img")].flatMap((image, place) => [
    ...["width", "height"].filter(name => !image.getAttribute(name)),
    ...(place && image.loading !== "lazy" ? ["loading=lazy"] : []),
].map(missing => `no ${missing}: ${image.alt || image.outerHTML.slice(0, 150)}`))"""
SHOWN_IN_PRINT = """() => [...document.querySelectorAll(
    ".bd-sidebar, .bd-header-article, .prev-next-area, .copybtn, .search-button-field"
)]
    .filter(element => element.checkVisibility()).map(element => element.className)"""
OPEN_CODE = """() => [...document.querySelectorAll(".cell_input")]
    .filter(cell => cell.checkVisibility({visibilityProperty: true}))
    .reduce((sum, cell) => sum + cell.offsetHeight, 0)
    / document.querySelector("main").scrollHeight"""
# The contrast of thousands of code tokens takes axe minutes: one block of each mix of tokens does.
THIN_CODE = """() => {
    const seen = new Set();
    for (const block of document.querySelectorAll("pre")) {
        const box = block.closest("[class*=output], .cell_input")?.className;
        const kinds = [...block.querySelectorAll("*"), block].map(token => box + token.className);
        if (kinds.every(kind => seen.has(kind))) block.remove();
        kinds.forEach(kind => seen.add(kind));
    }
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder: Path):
    """Serve a folder on a free port of this machine; gives the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@dataclass
class Watched:
    """A page with what it reported, asked of other hosts and fetched, as sentences."""

    page: Page
    faults: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def weight(self, *, figures: bool) -> int:
        """Bytes fetched so far, each file as gzip; figures are images, also those in the HTML."""
        total = 0
        for response in self.responses:
            kind = response.request.resource_type
            if figures or kind != "image":
                body = response.body()
                if kind == "document" and not figures:
                    body = re.sub(rb'"data:image[^"]*"', b'""', body)
                total += len(gzip.compress(body))
        return total


@contextmanager
def watched(context: BrowserContext, site: str):
    """A new page that reaches no other host."""
    page = context.new_page()
    seen = Watched(page)

    def only_this_site(route):
        if route.request.url.startswith(site):
            route.continue_()
        else:
            seen.foreign.append(route.request.url)
            route.abort()

    def note_response(response):
        if response.status >= 400:
            seen.faults.append(f"status {response.status}: {response.url}")
        elif response.url.startswith(site):
            seen.responses.append(response)

    def note_message(message):
        if message.type in ("error", "warning"):
            seen.faults.append(f"console {message.type}: {message.text}")

    def note_failure(request):
        if request.failure != "net::ERR_ABORTED":  # the page or its reader went on to another
            seen.faults.append(f"failed request ({request.failure}): {request.url}")

    page.route(lambda url: not url.startswith("data:"), only_this_site)
    page.on("response", note_response)
    page.on("console", note_message)
    page.on("pageerror", lambda error: seen.faults.append(f"script error: {error}"))
    page.on("requestfailed", note_failure)
    try:
        yield seen
    finally:
        page.close()


@dataclass(frozen=True)
class Visit:
    """What was found on one page, on a phone in light and on a desk in dark."""

    faults: list[str]
    foreign: list[str]
    too_wide: list[str]
    unfit_images: list[str]
    printed_navigation: list[str]
    violations: dict[str, list[str]]
    """Of axe-core, by theme."""
    rules: set[str]
    """Rules of axe-core that found something to look at."""
    bytes_without_figures: int
    bytes_with_figures: int
    open_code: float
    """Share of the page's height on a desk that is input code not folded away."""


def contexts(browser: Browser) -> list[BrowserContext]:
    """A phone in light and a desk in dark, without animations."""
    return [
        browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
        for size, theme in ((PHONE, "light"), (DESK, "dark"))
    ]


def _start_axe(page: Page, options: str) -> None:
    """Begin, and return at once, so that pages can work at the same time."""
    run = f"setTimeout(() => done(axe.run(document, {options})))"
    page.evaluate(f"() => {{ window.found = new Promise(done => {run}); }}")


def _violations(page: Page, rules: set[str]) -> list[str]:
    found = page.evaluate("() => window.found")
    rules |= {rule["id"] for kind in ("passes", "violations") for rule in found[kind]}
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def _axe(pages: list[Page], rules: set[str]) -> dict[str, list[str]]:
    """All rules on each page in its own theme; then contrast in each theme on both."""
    violations: dict[str, list[str]] = {"light": [], "dark": []}
    for page in pages:
        page.evaluate(AXE)

    def run(themes, options):
        for page in pages:  # each works in a process of its own
            _start_axe(page, "{preload: false, resultTypes: ['violations'], " + options + "}")
        for page, theme in zip(pages, themes, strict=True):
            violations[theme] += _violations(page, rules)

    run(("light", "dark"), "rules: {'color-contrast': {enabled: false}}")
    for page in pages:
        page.evaluate(THIN_CODE)
    for themes in (("light", "dark"), ("dark", "light")):
        for page, theme in zip(pages, themes, strict=True):
            page.emulate_media(color_scheme=theme)
            page.wait_for_selector(f"html[data-theme={theme}]")
        run(themes, "runOnly: ['color-contrast']")
    return {theme: list(dict.fromkeys(found)) for theme, found in violations.items()}


def visit(site: str, name: str, phone: BrowserContext, desk: BrowserContext) -> Visit:
    """Read one page to its end on both screens, run axe-core, and print it."""
    with watched(phone, site) as small, watched(desk, site) as large:
        for seen in (small, large):
            seen.page.goto(site + name)
        for seen in (small, large):
            seen.page.evaluate(READY)
        without = small.weight(figures=False)
        unfit = small.page.evaluate(UNFIT_IMAGES)
        for seen in (small, large):
            seen.page.evaluate(FETCH_PICTURES)
        too_wide = small.page.evaluate(WIDER_THAN_SCREEN)
        with_figures = small.weight(figures=True)
        open_code = large.page.evaluate(OPEN_CODE)
        large.page.emulate_media(media="print")
        printed = large.page.evaluate(SHOWN_IN_PRINT)
        large.page.emulate_media(media="screen")
        rules: set[str] = set()
        return Visit(
            violations=_axe([small.page, large.page], rules),
            rules=rules,
            faults=small.faults + large.faults,
            foreign=small.foreign + large.foreign,
            too_wide=too_wide,
            unfit_images=unfit,
            printed_navigation=printed,
            bytes_without_figures=without,
            bytes_with_figures=with_figures,
            open_code=open_code,
        )
