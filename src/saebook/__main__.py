"""`python -m saebook`: the chapters of the book, the modules of the library, and the commands.

Everything is read from the files themselves, and no module is imported.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from saebook import __version__

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent.parent  # of the book, when the package lies in its repository
ELSEWHERE = (
    "The chapters are not part of the installed package: they are in `book/` of its repository."
)
SENTENCE = re.compile(r".+?[.?!](?=\s|$)", re.DOTALL)
ROLE = re.compile(r"\{[\w:]+\}`([^`]*)`")
NO_PROSE = ("```", ":::", "%", "(", "#", "|", "<", "!", "*You need:*")
COMMAND = re.compile(r"^([a-z-]+):.*?## (.*)$", re.MULTILINE)


def chapters(root: Path) -> list[tuple[str, str, str]]:
    """The file, title and first sentence of each page with prose in a book's contents, in order."""
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"^[\s-]*(?:root|file): (\S+?)(?:\.md)?$", toc, re.MULTILINE)
    files = [file for file in (root / f"{name}.md" for name in names) if file.is_file()]
    bodies = {}
    for file in files:
        text = "\n" + file.read_text(encoding="utf-8")
        title, _, body = text.partition("\n# ")[2].partition("\n")
        bodies[file] = title, body
    titles = {file.stem: f'"{title}"' for file, (title, _) in bodies.items()}
    pages = [
        (file.relative_to(root).as_posix(), title, _first_sentence(body, titles))
        for file, (title, body) in bodies.items()
    ]
    return [page for page in pages if page[2]]


def _first_sentence(body: str, titles: dict[str, str]) -> str:
    """The first sentence of the first paragraph of prose; roles become titles or plain text."""
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", body))
    prose = next((part for part in paragraphs if part and not part.startswith(NO_PROSE)), "")
    prose = ROLE.sub(lambda role: titles.get(role[1], role[1]), prose)
    sentence = SENTENCE.match(re.sub(r"[*$`]", "", prose))
    return " ".join(sentence[0].split()) if sentence else ""


def modules() -> list[tuple[str, str]]:
    """The name and the first line of the docstring of each public module."""
    trees = {
        file.stem: ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.glob("[!_]*.py"))
    }
    return [(name, (ast.get_docstring(t) or "").partition("\n")[0]) for name, t in trees.items()]


def commands(root: Path) -> list[tuple[str, str]]:
    """The targets of the Makefile that say what they do."""
    return COMMAND.findall((root / "Makefile").read_text(encoding="utf-8"))


def overview(root: Path = ROOT) -> str:
    """What there is, as text: chapters and commands in the book's repository, modules anywhere."""
    lines: list[str] = []
    in_book = (root / "_toc.yml").is_file() and (root / "Makefile").is_file()
    if in_book:
        lines += ["chapters:"]
        for file, title, sentence in chapters(root):
            lines += [f"  {title}  ({file})", *_wrapped(sentence, "      ")]
    lines += ["", "modules:"]
    lines += _table((f"saebook.{name}", text) for name, text in modules())
    if in_book:
        lines += ["", "commands:", *_table((f"make {name}", text) for name, text in commands(root))]
    else:
        lines += ["", *_wrapped(ELSEWHERE, "")]
    return "\n".join(lines).strip()


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)


def _table(rows: Iterator[tuple[str, str]]) -> list[str]:
    entries = list(rows)
    width = max(len(name) for name, _ in entries)
    return [f"  {name:{width}}  {text}" for name, text in entries]


def main() -> None:
    """Print the overview, or the version."""
    parser = argparse.ArgumentParser(
        prog="python -m saebook",
        description="The library behind Sparse but Right, an executable book on SAEs.",
        epilog=overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saebook {__version__}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack letters of the titles
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
