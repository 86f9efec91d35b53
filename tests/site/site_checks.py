"""Checks on the built site, as functions: each returns the faults it finds, as sentences.

`test_site.py` runs them on `_build/html`; `tests/test_site_checks.py` runs them on a broken page
written by hand, to show that each check catches its fault.
"""

import base64
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup, Tag

MAX_IMAGE_BYTES = 1_000_000

# Folders of the site that hold no pages.
NO_PAGES = {"_static", "_sources", "_images", "_downloads", "reports"}

# Tags that load something when a page is read, the attribute that names it, and for `link` which
# relations load: the others (canonical, next, license, …) only name an address.
LOADING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
    "link": "href",
}
LOADING_LINKS = {"stylesheet", "icon", "shortcut", "apple-touch-icon", "preload", "prefetch"}
LOADING_LINKS |= {"modulepreload", "preconnect", "dns-prefetch", "manifest"}

NO_NOTEBOOK = {"book/environment.html"}  # it tells of the machine that built the book
NEGATIVE_ZERO = re.compile(r"[-−]0(\.0*)?(e[-+]\d+)?")
RAW_ROLE = re.compile(r"\{[a-z:]+\}`[^`]*`|^`{3,}\{.*", re.MULTILINE)

FILE_NAME = re.compile(r"\.(png|jpe?g|svg|gif|webp|avif)\b|_images/|^[0-9a-f]{16,}$", re.IGNORECASE)
SAYS_NOTHING = {"image", "figure", "plot", "picture", "chart", "graph", "logo image", "alt"}
STYLE_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s;]+)""")
SCRIPT_ADDRESS = re.compile(
    r"""["']((?:https?:)?//[^"'\s]+?\.(?:m?js|css|json|wasm)(?:\?[^"']*)?)["']"""
)


def built_site() -> Path:
    """The folder of the built site: SITE, else `_build/html`.

    Raises:
        pytest.UsageError: it is missing; tests must not skip then. One whose build did not finish
            is not in this place.
    """
    html = Path(os.environ.get("SITE") or Path(__file__).resolve().parents[2] / "_build" / "html")
    if not (html / "index.html").is_file():
        raise pytest.UsageError(
            f"no built site: {html / 'index.html'} is missing. Run `make book`."
        )
    return html


def listed(faults: list[str]) -> str:
    """Faults as a list, a line each, for the message of a failed test."""
    return "\n".join(["", *(f"  - {fault}" for fault in faults)])


@dataclass(frozen=True, eq=False)
class Page:
    """One HTML file of a built site."""

    path: Path
    site: "Site" = field(repr=False)

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.path.read_text(encoding="utf-8"), "html.parser")

    @cached_property
    def anchors(self) -> set[str]:
        """Everything a fragment can point to."""
        named = {str(tag["name"]) for tag in self.soup.find_all("a", attrs={"name": True})}
        return named | {str(tag["id"]) for tag in self.soup.find_all(id=True)}

    @property
    def name(self) -> str:
        return self.path.relative_to(self.site.root).as_posix()

    @property
    def redirect(self) -> str | None:
        """Where a page that only forwards points to."""
        meta = self.soup.find("meta", attrs={"http-equiv": re.compile("^refresh$", re.IGNORECASE)})
        content = str(meta.get("content", "")) if isinstance(meta, Tag) else ""
        return content.partition("url=")[2].strip("'\" ") or None

    def attribute(self, tag_name: str, attribute: str) -> list[str]:
        found = self.soup.find_all(tag_name, attrs={attribute: True})
        return [str(tag[attribute]).strip() for tag in found]


class Site:
    """A built site: a folder of pages."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        files = sorted(self.root.rglob("*.html"))
        kept = [file for file in files if NO_PAGES.isdisjoint(file.relative_to(self.root).parts)]
        self.pages = {file: Page(file, self) for file in kept}

    def target(self, page: Page, address: str) -> Path | None:
        """The file that a local address on a page means; None for an address on another host."""
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            return None
        path = unquote(parts.path)
        if not path:
            return page.path
        base = self.root / path.lstrip("/") if path.startswith("/") else page.path.parent / path
        file = base.resolve()
        return file / "index.html" if file.is_dir() else file


def is_external(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme in {"http", "https"}


def missing_toctree_pages(site: Site, toc_file: Path) -> list[str]:
    """Chapters of the table of contents that have no page."""
    toc = yaml.safe_load(toc_file.read_text(encoding="utf-8"))
    chapters = [Path(name) for name in _toctree_files(toc)]
    pages = [
        chapter if chapter.suffix == ".html" else Path(f"{chapter}.html") for chapter in chapters
    ]
    if not pages:
        return [f"{toc_file.name} lists no chapter"]
    return [f"{page} was not built" for page in pages if not (site.root / page).is_file()]


def _toctree_files(node: object) -> list[str]:
    if isinstance(node, list):
        return [name for child in node for name in _toctree_files(child)]
    if not isinstance(node, dict):
        return []
    own = [str(node[key]).removesuffix(".md") for key in ("root", "file") if key in node]
    return own + [name for child in node.values() for name in _toctree_files(child)]


def failed_cells(page: Page) -> list[str]:
    """Tracebacks and error output, save in cells that are meant to raise."""
    marks = page.soup.select(".traceback, .output.stderr, .output.error, .cell_output .stderr")
    shown = page.soup.select(".cell_output pre, .output pre")
    marks += [pre for pre in shown if "Traceback (most recent call last)" in pre.get_text()]
    wrong = [mark for mark in marks if not mark.find_parent(class_="tag_raises-exception")]
    texts = dict.fromkeys(mark.get_text(" ", strip=True)[-200:] for mark in wrong)
    return [f"error output: {text}" for text in texts]


def missing_images(page: Page) -> list[str]:
    """Images, frames of a slider among them, whose file is not in the site."""
    faults = []
    addresses = [str(tag.get("src", "")).strip() for tag in page.soup.find_all("img")]
    for address in (
        addresses + page.attribute("li", "data-light") + page.attribute("li", "data-dark")
    ):
        if address.startswith("data:") or is_external(address):
            continue  # external_resources reports the latter
        file = page.site.target(page, address) if address else None
        if file is None or not file.is_file() or file == page.path:
            faults.append(f"image {address or 'without src'} has no file")
    return faults


def large_images(page: Page, limit: int = MAX_IMAGE_BYTES) -> list[str]:
    """Images of more bytes than a phone should fetch."""
    faults = []
    for address in page.attribute("img", "src"):
        size = _image_bytes(page, address)
        if size > limit:
            faults.append(f"image {address[:80]} has {size:,} bytes, more than {limit:,}")
    return faults


def _image_bytes(page: Page, address: str) -> int:
    if address.startswith("data:"):
        head, _, data = address.partition(",")
        return len(base64.b64decode(data)) if head.endswith("base64") else len(data)
    file = page.site.target(page, address)
    return file.stat().st_size if file is not None and file.is_file() else 0


def images_without_text(page: Page) -> list[str]:
    """Images whose alternative text is absent, empty, a file name or a mere "figure"."""
    faults = []
    for tag in page.soup.find_all("img"):
        if tag.get("aria-hidden") == "true" or tag.get("role") in {"presentation", "none"}:
            continue
        if tag.get("alt") == "" and _is_beside_its_text(tag):
            continue
        text = str(tag.get("alt") or "").strip()
        source = str(tag.get("src", ""))[:80]
        if not text:
            faults.append(f"image {source} has no alternative text")
        elif FILE_NAME.search(text) or text.lower().rstrip(".") in SAYS_NOTHING:
            faults.append(f"image {source} has the alternative text {text!r}, which tells nothing")
    return faults


def _is_beside_its_text(tag: Tag) -> bool:
    """A logo in a link that also says where it leads: its own text would be read out twice."""
    link = tag.find_parent("a")
    return link is not None and bool(link.get_text(strip=True)) and not tag.find_parent("article")


def broken_links(page: Page) -> list[str]:
    """Links within the site to a file or a fragment that does not exist."""
    addresses = page.attribute("a", "href") + page.attribute("area", "href")
    addresses += [page.redirect] if page.redirect else []
    return [fault for address in dict.fromkeys(addresses) if (fault := _link_fault(page, address))]


def _link_fault(page: Page, address: str) -> str | None:
    file = page.site.target(page, address)
    if file is None:
        return None
    if not file.is_file():
        return f"link {address} leads to no file"
    fragment = unquote(urlsplit(address).fragment)
    target = page.site.pages.get(file)
    if fragment and fragment != "top" and target is not None and fragment not in target.anchors:
        return f"link {address} names a fragment that {target.name} does not have"
    return None


def heading_faults(page: Page) -> list[str]:
    """A page has a title, and one main heading apart from the copy that is only printed."""
    if page.redirect:
        return []
    faults = []
    if page.soup.title is None or not page.soup.title.get_text(strip=True):
        faults.append("the page has no title")
    headings = page.soup.find_all("h1")
    shown = [tag for tag in headings if not tag.find_parent(class_="onlyprint")]
    if len(shown) != 1:
        texts = [tag.get_text(" ", strip=True) for tag in shown]
        faults.append(f"the page has {len(shown)} main headings (h1) instead of one: {texts}")
    return faults


def language_faults(page: Page) -> list[str]:
    """A page says which language it is in."""
    html = page.soup.html
    if page.redirect or (html is not None and str(html.get("lang") or "").strip()):
        return []
    return ["the html element has no lang attribute"]


def external_resources(page: Page) -> list[str]:
    """What a page would fetch from another host while it is read."""
    found = [address for tag in page.soup.find_all(list(LOADING)) for address in _loaded_by(tag)]
    for style in page.soup.find_all("style"):
        found += STYLE_ADDRESS.findall(style.get_text())
    for script in page.soup.find_all("script", src=False):
        if script.get("type") not in {"application/ld+json"}:
            found += SCRIPT_ADDRESS.findall(script.get_text())
    for tag in page.soup.find_all(style=True):
        found += STYLE_ADDRESS.findall(str(tag["style"]))
    return [f"fetches {address} from another host" for address in dict.fromkeys(found)]


def _loaded_by(tag: Tag) -> list[str]:
    relations = {str(relation).lower() for relation in tag.get_attribute_list("rel")}
    if tag.name == "link" and LOADING_LINKS.isdisjoint(relations):
        return []
    candidates = [str(tag.get(LOADING[tag.name]) or "")]
    candidates += [
        entry.split()[0] for entry in str(tag.get("srcset") or "").split(",") if entry.strip()
    ]
    return [address for address in candidates if is_external(address)]


def external_style_resources(style_sheet: Path) -> list[str]:
    """What a style sheet would fetch from another host."""
    text = style_sheet.read_text(encoding="utf-8", errors="replace")
    return [f"fetches {address} from another host" for address in STYLE_ADDRESS.findall(text)]


def missing_resources(page: Page) -> list[str]:
    """Scripts and style sheets of the site itself that are not there."""
    addresses = page.attribute("script", "src")
    for tag in page.soup.find_all("link", href=True):
        if {"stylesheet", "icon"} & {str(relation) for relation in tag.get_attribute_list("rel")}:
            addresses.append(str(tag["href"]))
    faults = []
    for address in dict.fromkeys(addresses):
        file = page.site.target(page, address)
        if file is not None and not file.is_file():
            faults.append(f"{address} has no file")
    return faults


def unresolved_markup(page: Page) -> list[str]:
    """Roles, directives, glue keys and formulas that were left as raw text."""
    prose = page.soup.find("article") or page.soup
    raw = re.compile(
        r"\{(?:glue|cite|ref|eq|numref|doc|math)(?::\w+)?\}`|glue:\w+\}|\[\?\]|\\[a-zA-Z]{2,}"
    )
    texts = [
        text
        for text in prose.find_all(string=raw)
        if not text.find_parent(["pre", "code", "script"])
        and not text.find_parent(class_=["math", "cell_output"])
    ]
    return [f"raw markup in the text: {str(text).strip()[:120]!r}" for text in texts]


def negative_zeros(page: Page) -> list[str]:
    """Cells of tables with a zero that has a sign: rounding left it, and it says nothing."""
    cells = [" ".join(cell.get_text().split()) for cell in page.soup.find_all("td")]
    return [f"{page.name}: a table has {c!r}" for c in cells if NEGATIVE_ZERO.fullmatch(c)]


def notebook_faults(page: Page) -> list[str]:
    """A page with executed cells links its notebook: valid, no outputs, no role left as it was."""
    links = [str(tag["href"]) for tag in page.soup.select("a.notebook-button[download]")]
    if len(links) != 1:
        executed = page.soup.select_one(".cell_output") and page.name not in NO_NOTEBOOK
        return ["the page does not link its notebook once"] if executed or links else []
    file = page.site.target(page, links[0])
    if file is None or not file.is_file():
        return [f"the notebook {links[0]} has no file"]
    try:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # not JSON, not a notebook, …
        return [f"the notebook {links[0]} is not valid: {error}"]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    faults = [f"the notebook has raw markup: {raw}" for raw in RAW_ROLE.findall(prose)]
    if any(cell.get("outputs") for cell in notebook.cells):
        faults.append("the notebook holds outputs")
    return faults


PAGE_CHECKS = (
    failed_cells,
    missing_images,
    large_images,
    images_without_text,
    broken_links,
    heading_faults,
    language_faults,
    external_resources,
    missing_resources,
    unresolved_markup,
    negative_zeros,
    notebook_faults,
)
