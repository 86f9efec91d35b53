"""Copy the figure that README.md shows out of the built site: `python tools/readme_figure.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "_build/html/book/true_l0.html"
FIGURE = "fig-find"
TARGET = ROOT / "book/_static/readme_figure.svg"


def main() -> None:
    if not PAGE.exists():
        sys.exit(f"error: no page at {PAGE.relative_to(ROOT)}. Run 'make book' first.")
    soup = BeautifulSoup(PAGE.read_text(encoding="utf-8"), "html.parser")
    image = soup.select_one(f"#{FIGURE} img.only-light")
    if image is None:
        sys.exit(f"error: the page holds no figure {FIGURE}.")
    picture = (PAGE.parent / str(image["src"])).read_bytes()
    start = picture.index(b">", picture.index(b"<svg")) + 1
    paper = b'<rect width="100%" height="100%" fill="#fff"/>'  # readable on a dark page too
    picture = picture[:start] + paper + picture[start:]
    TARGET.write_bytes(picture)
    print(f"wrote {TARGET.relative_to(ROOT)}, {len(picture)} bytes")


if __name__ == "__main__":
    main()
