"""Lighten the built site: pages fetch the styles, the icons and the mathematics they use.

The theme brings 2,000 icons in 156 kB of fonts for a dozen in use, style sheets of which most rules
fit no page, and MathJax in one file for all its parts. What no page can ask for is left out.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

# MathJax without its menu and its speech engine: 100 kB for every page with a formula.
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

LARGE_SHEETS = ("_static/styles/*.css", "_static/sphinx-design.min.css")

RULE = re.compile(r"([^{};]+)(\{[^{}]*\})")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
NO_DEMAND = re.compile(r""":[\w-]+\([^()]*\)|"[^"]*"|'[^']*'""")  # :not(…), :is(…); quoted values
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
COMPOSED = "bs-"  # Bootstrap's script puts these names together
# A style sheet writes an icon as "\\f002" or as the character itself.
ICON_CODE = re.compile(r'"\\([0-9a-f]{4})"|([\ue000-\uf8ff])')
FONT_FACE = re.compile(
    r"url\((\S*?)(fa-[\w-]+)\.woff2\) format\(\"woff2\"\),url\([^)]*\) format\(\"truetype\"\)"
)


def keep_rules(css: str, used: set[str]) -> str:
    """A style sheet with those selectors whose classes are all among the words in `used`."""

    def lives(selector: str) -> bool:
        while (plain := NO_DEMAND.sub("", selector)) != selector:
            selector = plain
        names = CLASS.findall(plain)
        return "\\" in plain or all(name in used or name.startswith(COMPOSED) for name in names)

    def kept(match: re.Match) -> str:
        selectors = re.split(r",(?![^()]*\))", match[1])
        if any(one.count("(") != one.count(")") for one in selectors):  # nested: leave it
            return match[0]
        live = [one for one in selectors if lives(one)]
        return ",".join(live) + match[2] if live else ""

    notices = "".join(found for found in COMMENT.findall(css) if found.startswith("/*!"))
    return notices + RULE.sub(kept, COMMENT.sub("", css))


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


def lighten_styles(site: Path) -> None:
    """Leave the rules and the icons whose classes a page or a script names."""
    sources = [
        *site.rglob("*.html"),
        *site.glob("_static/*.js"),
        *site.glob("_static/scripts/*.js"),
    ]
    used = {word for file in sources for word in re.findall(r"[\w-]+", file.read_text("utf-8"))}
    for pattern in LARGE_SHEETS:
        for file in site.glob(pattern):
            css = keep_rules(file.read_text("utf-8"), used)
            file.write_text(FONT_FACE.sub(r'url(\1\2.woff) format("woff")', css), "utf-8")
    sheets = [file.read_text("utf-8") for file in site.glob("_static/**/*.css")]
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
        lighten_styles(site)
        lighten_mathjax(site / "_static" / "mathjax")


def _load_parts_of_mathjax(app, config):
    config.mathjax_path = "mathematics.js"  # which fetches MathJax
    config.mathjax3_config = {"loader": {"load": MATHJAX_PARTS}}


def setup(app):
    app.connect("config-inited", _load_parts_of_mathjax, priority=400)  # myst-parser adds to it
    app.connect("build-finished", _lighten, priority=900)  # after the files are there
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
