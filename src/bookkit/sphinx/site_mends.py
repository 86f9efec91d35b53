"""Mend what the theme and its extensions leave faulty in the built pages.

Each mend names the fault. Templates under `book/_templates` and `book/_static` hold
the others.
"""

from __future__ import annotations

import html
import os
import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes

ADDRESS = "BOOK_BASEURL"


def _signature_lines(match: re.Match) -> str:
    lines = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


_MENDS = (
    # A list's children must be list items: bibliography entries call themselves doc-biblioentry.
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # A hidden cell's summary has a visible text; a different label hides it from voice control.
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # Every theorem and every proof has the same two ids; an id belongs to one element.
    (re.compile(r'(<(?:div|section) class="[^"]*") id="proof(?:-content)?"'), r"\1"),
    # An empty header cell announces nothing; the corner of a DataFrame is one.
    (re.compile(r"<th></th>"), "<td></td>"),
    # Wide tables scroll on a phone, and what scrolls must take the keyboard's focus.
    (re.compile(r'<table border="1" class="dataframe">'), '<table class="dataframe">'),
    (
        re.compile(r'(<table class="dataframe">.*?</table>)', re.DOTALL),
        r'<div class="pst-scrollable-table-container" tabindex="0">\1</div>',
    ),
    # Row and column headers of DataFrames say which they are.
    (re.compile(r"(<tr>\s*)<th>"), r'\1<th scope="row">'),
    # Rounding leaves the sign of a small negative number, and a zero with a sign says nothing.
    (re.compile(r'(<span class="pasted-text">|<td>)-(?=0(?:\.0*)?<)'), r"\1"),
    # A number takes a minus, not a hyphen, in a sentence and in a DataFrame.
    (re.compile(r'(<span class="pasted-text">|<td>)-(?=\d)'), "\\1\N{MINUS SIGN}"),
    # A line may break after a formula, but not before the comma that follows it.
    (
        re.compile(r'(<span class="math notranslate nohighlight">[^<]*</span>)([,.;:?!)]+)'),
        r'<span class="unbroken">\1\2</span>',
    ),
    # What folds a list of uses is a button, and may hold no link.
    (re.compile(r"<summary>Expand for references to .*?</summary>"), "<summary>Used in</summary>"),
    # Sphinx sets long signatures as lists of definitions without a term.
    (re.compile(r'<dl>\s*(<dd><em class="sig-param">.*?)</dl>', re.DOTALL), _signature_lines),
)

# The theme gives the button that opens a part of the table of contents no name.
_UNNAMED_PART = re.compile(r'(>([^<]+)</a><details[^>]*><summary)(?=><span class="toctree-toggle")')

# The system's theme shows until the theme's script has run: "auto" has no colours.
_AUTO = 'localStorage.getItem("theme") || "auto"'
_SYSTEMS = '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'

# Scripts can wait until the page shows, but for the settings that inline scripts add to.
_AT_ONCE = re.compile(r"<script(?=[^>]* src=)(?![^>]*(?: defer|documentation_options\.js))")


def _describe(app, pagename, templatename, context, doctree):
    """Tell search engines, and where a page is shared, how its text begins, or else its title."""
    paragraphs = doctree.findall(nodes.paragraph) if doctree else ()
    texts = (paragraph.astext() for paragraph in paragraphs)
    title = context.get("pagetitle") or context.get("title") or pagename.capitalize()
    first = next((text for text in texts if not text.startswith("You need:")), "")
    about = textwrap.shorten(first or f"{title}: {app.config.html_title}", 160, placeholder=" …")
    tag = f'<meta name="description" content="{html.escape(about)}"/>'
    context["metatags"] = (context.get("metatags") or "") + tag
    context["meta"] = {**(context.get("meta") or {}), "og:description": about}


def _is_thebe(script) -> bool:
    text = f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}"
    return "thebe" in text


def _mend_page(app, pagename, templatename, context, doctree):
    """Drop thebe's files, which fail without a kernel server, and mend the page's body."""
    # The heading of the printed copy is empty on pages without a document, such as 404.
    context["pagetitle"] = context.get("pagetitle") or context.get("title", "")
    for name in ("script_files", "css_files"):
        if name in context:
            context[name] = [entry for entry in context[name] if not _is_thebe(entry)]
    if "body" in context:
        for pattern, replacement in _MENDS:
            context["body"] = pattern.sub(replacement, context["body"])


def _drop_thebe_nodes(app, doctree, docname):
    """The book has no kernel server: no configuration scripts for one in its pages."""
    for node in list(doctree.findall(nodes.raw)):
        if "text/x-thebe-config" in node.astext():
            node.parent.remove(node)


def _place_site(app, config):
    """The address of the published site, where one is given, sets the links that need it."""
    address = os.environ.get(ADDRESS, "")
    config.html_baseurl = address or config.html_baseurl
    config.notfound_urls_prefix = urlsplit(config.html_baseurl).path or "/"
    if not config.notfound_urls_prefix.endswith("/"):
        config.notfound_urls_prefix += "/"
    if address:
        config.ogp_site_url, config.ogp_site_name = address, config.html_title
        config.ogp_social_cards = {"enable": False}
        config.sitemap_url_scheme = "{link}"


def _mend_files(app, exception):
    """Give pages a theme before any script runs ("auto" has no colours), and parts their names."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            mended = text.replace('data-theme="auto"', 'data-theme="light"', 1)
            mended = mended.replace(_AUTO, _AUTO.replace('"auto"', _SYSTEMS), 1)
            mended = _AT_ONCE.sub("<script defer", mended)
            mended = _UNNAMED_PART.sub(r'\1 aria-label="Pages of: \2"', mended)
            if mended != text:
                page.write_text(mended, encoding="utf-8")


def setup(app):
    if os.environ.get(ADDRESS):  # what these write begins with the address
        app.setup_extension("sphinxext.opengraph")
        app.setup_extension("sphinx_sitemap")
    app.connect("build-finished", _mend_files)
    app.connect("config-inited", _place_site)
    app.connect("doctree-resolved", _drop_thebe_nodes, priority=900)
    app.connect("html-page-context", _describe, priority=400)  # before opengraph
    app.connect("html-page-context", _mend_page, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
