"""Move the images and tables that pages hold as data into files of the site.

A figure of `bookkit.style` holds its drawings and its data as `data:` addresses, so that it works
in any notebook. On the site a browser would then fetch both inks of every figure, and every frame
of a slider, before it shows a page. Here each address becomes a file: named by its content, so that
equal drawings are one file and a rebuild of one page does not touch the files of another. Tables
are named by their page and figure. Once the site is built, files that no page names are removed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import urllib.parse
from pathlib import Path

from PIL import Image

IMAGES, DATA = "_images", "_data"
PREFIX = "fig-"  # tells these files from images that Sphinx copies
KINDS = {"image/svg+xml": "svg", "image/png": "png", "text/csv": "csv"}
_PLACES = re.compile(
    r'<figure\b[^>]*?\bid="(?P<figure>[^"]+)"|(?P<end></figure>)'
    r'|(?P<download>\bdownload="figure\.csv" )?'
    r'\b(?P<name>src|data-light|data-dark|href)="data:(?P<kind>image/svg\+xml|image/png|text/csv)'
    r'(?P<options>[^",]*),(?P<data>[^"]*)"'
)
_NAMED = re.compile(rf'(?:{IMAGES}/{PREFIX}|{DATA}/)[^"?#]+')


def decoded(kind: str, options: str, data: str) -> bytes:
    """The content of a data address."""
    if options.endswith(";base64"):
        content = base64.b64decode(data)
        return small_png(content) if kind == "image/png" else content
    content = urllib.parse.unquote(data)
    if kind == "image/svg+xml":
        # Inside HTML an attribute of an SVG takes single quotes; as a file it is XML either way.
        return b'<?xml version="1.0" encoding="utf-8"?>\n' + content.encode()
    return content.encode()


def small_png(content: bytes) -> bytes:
    """The same pixels in fewer bytes: with a palette if there are few colours."""
    image, buffer = Image.open(io.BytesIO(content)), io.BytesIO()
    if image.mode == "RGBA" and image.getcolors(256):
        image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        if image.convert("RGBA").tobytes() != Image.open(io.BytesIO(content)).tobytes():
            image = Image.open(io.BytesIO(content))
    image.save(buffer, format="PNG", optimize=True)
    return min(content, buffer.getvalue(), key=len)


def with_files(body: str, page: str, address, write) -> str:
    """The body with files in the place of data.

    Args:
        body: HTML.
        page: the page's name, such as "book/true_l0".
        address: gives the address of a file of the site as seen from the page.
        write: takes a file's path within the site, and its content.
    """
    figure, taken = "", set()

    def replace(match):
        nonlocal figure
        if match["name"] is None:
            figure = match["figure"] or ""
            return match[0]
        content = decoded(match["kind"], match["options"], match["data"])
        digest = hashlib.sha256(content).hexdigest()[:16]
        path = f"{IMAGES}/{PREFIX}{digest}.{KINDS[match['kind']]}"
        download = ""
        if match["kind"] == "text/csv":
            name = f"{Path(page).name}-{figure or digest}"
            name = f"{name}-{digest}" if name in taken else name
            taken.add(name)
            path, download = f"{DATA}/{name}.csv", f'download="{name}.csv" '
        write(path, content)
        return f'{download}{match["name"]}="{address(path)}"'

    return _PLACES.sub(replace, body)


def _move(app, pagename, templatename, context, doctree):
    def write(path, content):
        file = Path(app.outdir) / path
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    if "body" in context:
        pathto = context["pathto"]
        context["body"] = with_files(context["body"], pagename, lambda p: pathto(p, 1), write)


def remove_unnamed(site: Path) -> None:
    """Remove files of ours that no page of the site names."""
    named = set()
    for page in site.rglob("*.html"):
        named |= set(_NAMED.findall(page.read_text(encoding="utf-8")))
    for file in (*site.glob(f"{IMAGES}/{PREFIX}*"), *site.glob(f"{DATA}/*")):
        if file.relative_to(site).as_posix() not in named:
            file.unlink()


def _clean(app, exception):
    if exception is None and app.builder.format == "html":
        remove_unnamed(Path(app.outdir))


def setup(app):
    app.connect("html-page-context", _move, priority=800)
    app.connect("build-finished", _clean)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
