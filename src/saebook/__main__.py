"""`python -m saebook`: what lies where in the library. Nothing else is imported for it."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

from saebook import __version__

READ_ON = "The book's pages and commands: README.md of its repository, and `make help` there."


def rooms(package: Path = Path(__file__).parent) -> list[tuple[str, str]]:
    """The name and the first line of the docstring of each public module and package."""
    files = [*package.glob("[!_]*.py"), *package.glob("[!_]*/__init__.py")]
    named = {(file.parent if file.stem == "__init__" else file).stem: file for file in files}
    trees = {name: ast.parse(file.read_text("utf-8")) for name, file in sorted(named.items())}
    return [(name, (ast.get_docstring(t) or "").partition("\n")[0]) for name, t in trees.items()]


def main() -> None:
    """Print the rooms, or the version."""
    lines = [f"  saebook.{name:12}  {text}" for name, text in rooms()]
    parser = argparse.ArgumentParser(
        prog="python -m saebook",
        description="The library behind Sparse but Right, an executable book on SAEs.",
        epilog="\n".join([*lines, "", READ_ON]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saebook {__version__}")
    parser.parse_args()
    parser.print_help()


if __name__ == "__main__":
    main()
