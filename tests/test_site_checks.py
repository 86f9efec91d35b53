"""Each check on the built site passes a sound page and catches its own fault."""

from pathlib import Path

import nbformat
import pytest
import site_checks
from nbformat.v4 import new_markdown_cell, new_notebook
from site_checks import Page, Site

SOUND = """<!DOCTYPE html>
<html lang="en">
<head>
  <title>Superposition</title>
  <link rel="stylesheet" href="theme.css">
  <link rel="canonical" href="https://example.org/page.html">
  <script src="theme.js"></script>
  <script>window.theme = "dark";</script>
</head>
<body>
  <a href="other.html"><img src="logo.svg" alt=""> Sparse but Right</a>
  <div class="onlyprint"><h1>Superposition</h1></div>
  <article>
    <h1 id="top-of-page">Superposition</h1>
    <a class="btn notebook-button" href="page.ipynb" download></a>
    <p><a href="#top-of-page">Up</a> <a href="other.html#there">on</a>
       <a href="https://example.org/paper">paper</a> <a href="mailto:a@example.org">mail</a></p>
    <img src="plot.png" alt="Error falls as k grows.">
    <img src="data:image/png;base64,AAAA" alt="Four points on a circle.">
    <div class="cell tag_raises-exception"><div class="cell_output">
      <div class="output traceback"><pre>Traceback (most recent call last)</pre></div></div></div>
    <div class="cell_output"><div class="output"><pre>0.97</pre></div></div>
    <pre>{glue:text}`shown.as.code`</pre>
    <span class="math">\\(\\langle a \\rangle\\)</span>
  </article>
</body>
</html>"""

OTHER = (
    '<html lang="en"><head><title>Other</title></head><body><h1 id="there">Other</h1></body></html>'
)


@pytest.fixture
def build(tmp_path: Path):
    """Return a function that writes a site whose page has one text replaced, and reads the page."""

    def write(old: str = "", new: str = "") -> Page:
        assert old in SOUND
        (tmp_path / "page.html").write_text(SOUND.replace(old, new), encoding="utf-8")
        (tmp_path / "other.html").write_text(OTHER, encoding="utf-8")
        for name in ("plot.png", "logo.svg", "theme.css", "theme.js"):
            (tmp_path / name).write_bytes(b"0123456789")
        cells = [new_markdown_cell("The error is 0.97; `{x}` is code.", id="a")]
        nbformat.write(new_notebook(cells=cells), tmp_path / "page.ipynb")
        site = Site(tmp_path)
        return site.pages[tmp_path / "page.html"]

    return write


@pytest.mark.parametrize("check", site_checks.PAGE_CHECKS, ids=lambda check: check.__name__)
def test_a_sound_page_passes(check, build) -> None:
    assert check(build()) == []


PLOT = '<img src="plot.png" alt="Error falls as k grows.">'
FAULTS = [
    ("failed_cells", "tag_raises-exception", "", "Traceback"),
    (
        "failed_cells",
        "<pre>0.97</pre>",
        "<pre>Traceback (most recent call last)</pre>",
        "Traceback",
    ),
    (
        "failed_cells",
        '<div class="output"><pre>0.97',
        '<div class="output stderr"><pre>noise',
        "noise",
    ),
    ("missing_images", "plot.png", "gone.png", "gone.png"),
    ("missing_images", 'src="plot.png"', "", "without src"),
    (
        "missing_images",
        "<p><a",
        '<li data-light="plot.png" data-dark="gone.svg"></li><p><a',
        "gone.svg",
    ),
    ("images_without_text", 'alt="Error falls as k grows."', "", "no alternative text"),
    ("images_without_text", "Error falls as k grows.", " ", "no alternative text"),
    ("images_without_text", "Error falls as k grows.", "_images/3f2a.png", "tells nothing"),
    ("images_without_text", "Error falls as k grows.", "Figure", "tells nothing"),
    ("broken_links", "other.html#there", "gone.html", "leads to no file"),
    ("broken_links", "other.html#there", "other.html#gone", "fragment"),
    ("broken_links", "#top-of-page", "#gone", "fragment"),
    ("heading_faults", "<title>Superposition</title>", "", "no title"),
    (
        "heading_faults",
        '<h1 id="top-of-page">Superposition</h1>',
        '<p id="top-of-page"></p>',
        "0 main",
    ),
    ("heading_faults", PLOT, "<h1>Again</h1>", "2 main headings"),
    ("language_faults", ' lang="en"', "", "lang"),
    (
        "external_resources",
        'src="theme.js"',
        'src="https://cdn.example.org/x.js"',
        "cdn.example.org",
    ),
    ("external_resources", 'href="theme.css"', 'href="//cdn.example.org/x.css"', "cdn.example.org"),
    (
        "external_resources",
        'src="plot.png"',
        'src="https://example.org/x.png"',
        "example.org/x.png",
    ),
    ("external_resources", '"dark"', '"https://cdn.example.org/x.js"', "cdn.example.org"),
    (
        "external_resources",
        "<p>",
        '<p style="background: url(https://example.org/x)">',
        "example.org/x",
    ),
    (
        "external_resources",
        "<title>",
        "<style>@import 'https://example.org/x.css';</style><title>",
        "x.css",
    ),
    ("missing_resources", "theme.css", "gone.css", "gone.css"),
    ("missing_resources", "theme.js", "gone.js", "gone.js"),
    ("unresolved_markup", "<p><a", "<p>{glue:text}`loss:.2f` <a", "glue"),
    ("unresolved_markup", "<p><a", r"<p>change: $\langle a, b \rangle <a", "langle"),
    (
        "negative_zeros",
        "<p><a",
        "<table><tr><td>-0.000</td><td>0.0</td></tr></table><p><a",
        "-0.000",
    ),
    ("notebook_faults", "page.ipynb", "gone.ipynb", "gone.ipynb has no file"),
    ("notebook_faults", " download>", ">", "does not link its notebook"),
]


@pytest.mark.parametrize(("check", "old", "new", "told"), FAULTS)
def test_a_check_catches_its_fault(check: str, old: str, new: str, told: str, build) -> None:
    faults = getattr(site_checks, check)(build(old, new))
    assert len(faults) == 1
    assert told in faults[0]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.97", "{glue:text}`loss:.2f`", "raw markup: {glue:text}`loss:.2f`"),
        ("The error", "```{note}\\nThe error", "raw markup: ```{note}"),
        ('"markdown"', '"picture"', "is not valid"),
        ('"cells"', "cells", "is not valid"),
        (
            '"markdown"',
            '"code", "execution_count": null, "outputs": '
            '[{"output_type": "stream", "name": "stdout", "text": "0.97"}]',
            "holds outputs",
        ),
    ],
)
def test_a_faulty_notebook_is_reported(old, new, told, build) -> None:
    page = build()
    file = page.site.root / "page.ipynb"
    assert old in file.read_text(encoding="utf-8")
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    faults = site_checks.notebook_faults(page)
    assert len(faults) == 1
    assert told in faults[0]


def test_a_large_image_is_reported(build) -> None:
    faults = site_checks.large_images(build('<img src="logo.svg" alt="">', ""), limit=9)
    assert len(faults) == 1
    assert "plot.png has 10 bytes" in faults[0]


def test_a_large_embedded_image_is_reported(build) -> None:
    page = build("base64,AAAA", "base64," + "AAAA" * 100)
    assert "300 bytes" in site_checks.large_images(page, limit=299)[0]


def test_a_redirect_to_nowhere_is_reported(build) -> None:
    page = build("<title>", '<meta http-equiv="Refresh" content="0; url=gone.html"><title>')
    assert site_checks.broken_links(page) == ["link gone.html leads to no file"]


def test_a_style_sheet_with_a_foreign_font_is_reported(tmp_path: Path) -> None:
    sheet = tmp_path / "theme.css"
    sheet.write_text(
        "@font-face { src: url('https://fonts.example.org/x.woff2') }", encoding="utf-8"
    )
    assert "fonts.example.org" in site_checks.external_style_resources(sheet)[0]
    sheet.write_text("@font-face { src: url('x.woff2') }", encoding="utf-8")
    assert site_checks.external_style_resources(sheet) == []


TOC = """
format: jb-book
root: page
parts:
  - caption: One
    chapters:
      - file: other
        sections:
          - file: {nested}
"""


def test_a_chapter_without_a_page_is_reported_however_deep_it_is_nested(
    build, tmp_path: Path
) -> None:
    site = build().site
    toc = tmp_path / "_toc.yml"
    toc.write_text(TOC.format(nested="other.md"), encoding="utf-8")
    assert site_checks.missing_toctree_pages(site, toc) == []
    toc.write_text(TOC.format(nested="book/gone"), encoding="utf-8")
    assert site_checks.missing_toctree_pages(site, toc) == ["book/gone.html was not built"]


def test_an_empty_table_of_contents_is_reported(build, tmp_path: Path) -> None:
    toc = tmp_path / "_toc.yml"
    toc.write_text("format: jb-book", encoding="utf-8")
    assert site_checks.missing_toctree_pages(build().site, toc) == ["_toc.yml lists no chapter"]
