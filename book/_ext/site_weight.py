"""Lighten the built site: pages fetch the icons, the mathematics and the search they use.

The theme brings 2,000 icons in 156 kB of fonts and 20 kB of style sheet for a dozen in use, and
MathJax one file for all its parts. What no page can ask for is left out of the site.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

# MathJax without its menu and its speech engine, whose 100 kB every page with a formula would fetch.
MATHJAX_PARTS = ["input/tex", "output/chtml", "a11y/assistive-mml"]
MATHJAX_KEPT = (
    "startup.js",
    "core.js",
    "input/tex.js",
    "input/tex/",
    "output/chtml.js",
    "output/chtml/",
    "a11y/assistive-mml.js",
)

UNUSED = ("_static/scripts/*.map", "_static/styles/*.map", "_static/scripts/fontawesome.js*")

ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"[^"]*"\}')
# A style sheet writes an icon as "\\f002" or as the character itself.
ICON_CODE = re.compile(r'"\\([0-9a-f]{4})"|([\ue000-\uf8ff])')
FONT_FACE = re.compile(
    r"url\((\S*?)(fa-[\w-]+)\.woff2\) format\(\"woff2\"\),url\([^)]*\) format\(\"truetype\"\)"
)


def keep_icons(css: str, used: set[str]) -> str:
    """The theme's style sheet with the rules of the icons in `used`, and fonts in WOFF."""

    def kept(match: re.Match) -> str:
        names = {name.removesuffix(":before").lstrip(".") for name in match[1].split(",")}
        return match[0] if names & used else ""

    return FONT_FACE.sub(r'url(\1\2.woff) format("woff")', ICON_RULE.sub(kept, css))


def subset_font(font: Path, code_points: set[int]) -> None:
    """Replace a TrueType file by a WOFF file with these characters only."""
    drawn = TTFont(font, recalcTimestamp=False)
    subsetter = subset.Subsetter(subset.Options(notdef_outline=True))
    subsetter.populate(unicodes=code_points)
    subsetter.subset(drawn)
    drawn.flavor = "woff"
    drawn.save(font.with_suffix(".woff"))
    font.unlink()
    font.with_suffix(".woff2").unlink(missing_ok=True)


def lighten_icons(site: Path) -> None:
    """Leave the icons that a page or a script names."""
    style_sheet = site / "_static" / "styles" / "pydata-sphinx-theme.css"
    sources = [
        *site.rglob("*.html"),
        *site.glob("_static/*.js"),
        *site.glob("_static/scripts/*.js"),
    ]
    used = {
        name for file in sources for name in re.findall(r"\bfa-[\w-]+", file.read_text("utf-8"))
    }
    css = keep_icons(style_sheet.read_text("utf-8"), used)
    style_sheet.write_text(css, "utf-8")
    sheets = [css, *(file.read_text("utf-8") for file in site.glob("_static/**/*.css"))]
    code_points = {
        int(code, 16) if code else ord(character)
        for sheet in sheets
        for code, character in ICON_CODE.findall(sheet)
    }
    for font in (site / "_static" / "vendor" / "fontawesome" / "webfonts").glob("*.ttf"):
        subset_font(font, code_points)


def lighten_mathjax(mathjax: Path) -> None:
    """Leave the parts of MathJax that a page loads, or that a macro of TeX loads by itself."""
    for path in sorted(mathjax.rglob("*"), reverse=True):
        if path.is_file() and not path.relative_to(mathjax).as_posix().startswith(MATHJAX_KEPT):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _lighten(app, exception):
    if exception is None and app.builder.format == "html":
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports each table
        site = Path(app.outdir)
        for pattern in UNUSED:
            for file in site.glob(pattern):
                file.unlink()
        lighten_icons(site)
        lighten_mathjax(site / "_static" / "mathjax")


def _load_parts_of_mathjax(app, config):
    config.mathjax_path = "mathematics.js"  # which fetches MathJax
    config.mathjax3_config = {"loader": {"load": MATHJAX_PARTS}}


def setup(app):
    app.connect("config-inited", _load_parts_of_mathjax, priority=400)  # myst-parser adds to it
    app.connect("build-finished", _lighten, priority=900)  # after the files are there
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
