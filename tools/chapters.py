"""Lint or format the code of the chapters with the rules of the rest of the code.

    python tools/chapters.py check [chapter.md …]
    python tools/chapters.py format [chapter.md …]

Chapters are MyST Markdown notebooks. Their code cells are handed to ruff as notebooks, so that it
sees the names of earlier cells, and its findings come back with the lines of the chapter. Prose and
cell options stay as they are.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
OPENING = re.compile(r"^(?P<fence>`{3,}|~{3,})\{code-cell\}")


@dataclass
class Cell:
    """The code of one cell: lines first to last (exclusive, from 0) of a chapter."""

    first: int
    last: int


def find_cells(lines):
    """Locate the code of every cell, past its options."""
    cells, number = [], 0
    while number < len(lines):
        opening = OPENING.match(lines[number])
        number += 1
        if not opening:
            continue
        closing = next(
            (i for i in range(number, len(lines)) if lines[i].rstrip() == opening["fence"]), None
        )
        if closing is None:
            raise ValueError(f"the cell that opens on line {number} is not closed")
        cells.append(Cell(_past_options(lines, number, closing), closing))
        number = closing + 1
    return cells


def _past_options(lines, first, last):
    if first < last and lines[first].strip() == "---":
        ending = (i + 1 for i in range(first + 1, last) if lines[i].strip() == "---")
        return next(ending, first)
    while first < last and re.match(r"^:[\w-]+:", lines[first]):
        first += 1
    return first


def as_notebook(lines, cells):
    """A notebook of the cells alone, as ruff reads it."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    kernel["language_info"] = {"name": "python"}
    entries = [
        {
            "cell_type": "code",
            "id": f"cell-{index}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "\n".join(lines[cell.first : cell.last]),
        }
        for index, cell in enumerate(cells)
    ]
    return {"cells": entries, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def find_chapters(root):
    """The pages that the table of contents lists, and those that lie in `book/` itself.

    Other folders in there, such as an environment, hold Markdown of others.
    """
    listed = (root / f"{name}.md" for name in parse_toc_yaml(root / "_toc.yml"))
    return sorted({*(root / "book").glob("*.md"), *filter(Path.exists, listed)})


def ruff(*arguments):
    command = [sys.executable, "-m", "ruff", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"error: {' '.join(command[1:])} failed:\n{done.stderr}")
    return done


class Workbench:
    """The chapters as notebooks in a folder that ruff takes for the book's."""

    def __init__(self, folder, chapters):
        self.folder = Path(folder)
        self.chapters = {}
        for chapter in chapters:
            lines = chapter.read_text(encoding="utf-8").split("\n")
            try:
                cells = find_cells(lines)
            except ValueError as error:
                sys.exit(f"error: {chapter.relative_to(ROOT)}: {error}")
            if cells:
                notebook = (self.folder / chapter.relative_to(ROOT)).with_suffix(".ipynb")
                notebook.parent.mkdir(parents=True, exist_ok=True)
                notebook.write_text(json.dumps(as_notebook(lines, cells)), encoding="utf-8")
                self.chapters[notebook.resolve()] = (chapter, lines, cells)
        # Rules that depend on the path (book/**) have to see it from this folder.
        (self.folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())

    def findings(self):
        """Ruff's findings as `chapter.md:line:column: code message`."""
        done = ruff("check", "--no-cache", "--output-format", "json", str(self.folder))
        for finding in json.loads(done.stdout):
            chapter, _, cells = self.chapters[Path(finding["filename"]).resolve()]
            row, column = finding["location"]["row"], finding["location"]["column"]
            line = cells[(finding.get("cell") or 1) - 1].first + row
            name = chapter.relative_to(ROOT)
            yield f"{name}:{line}:{column}: {finding['code']} {finding['message']}"

    def unformatted(self):
        """The chapters whose cells ruff would write in another way, with their new text."""
        ruff("format", "--no-cache", "--quiet", str(self.folder))
        for notebook, (chapter, lines, cells) in self.chapters.items():
            entries = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            formatted = list(lines)
            for cell, entry in reversed(list(zip(cells, entries, strict=True))):
                source = "".join(entry["source"])
                formatted[cell.first : cell.last] = source.split("\n") if source else []
            if formatted != lines:
                yield chapter, "\n".join(formatted)

    def fix(self):
        ruff("check", "--no-cache", "--quiet", "--fix-only", str(self.folder))


def main(arguments):
    if not arguments or arguments[0] not in ("check", "format"):
        sys.exit(__doc__)
    chapters = [Path(name).resolve() for name in arguments[1:]] or find_chapters(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(folder, chapters)
        if arguments[0] == "format":
            bench.fix()
            for chapter, text in bench.unformatted():
                chapter.write_text(text, encoding="utf-8")
                print(f"formatted {chapter.relative_to(ROOT)}")
            return 0
        faults = list(bench.findings())
        faults += [
            f"{path.relative_to(ROOT)}: would be reformatted" for path, _ in bench.unformatted()
        ]
        print("\n".join(faults) or f"{len(bench.chapters)} chapters pass")
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
