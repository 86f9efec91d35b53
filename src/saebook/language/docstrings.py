"""Technical English that every reader of the book already has: docstrings of installed packages.

The packages are pinned, so the text is the same everywhere, and no network is needed. Docstrings
are read from source files with `ast`; nothing is imported or run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from saebook._checks import check_in_range, check_one_of, check_positive_int

PACKAGES = (
    "huggingface_hub",
    "matplotlib",
    "networkx",
    "nltk",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "statsmodels",
    "sympy",
    "torch",
)
SPLITS = ("train", "held-out")
HELD_OUT = 0.05  # the share of files that no model is trained on


def read_docstrings(
    split: str,
    *,
    share: float = 1.0,
    packages: Sequence[str] = PACKAGES,
    min_chars: int = 200,
) -> list[str]:
    """The docstrings of a split, each below the dotted name of what it documents, shuffled.

    A whole file belongs to one split, by a hash of its path. So a class and its methods, which
    often share sentences, are never torn apart. Of equal docstrings the first is kept.

    Args:
        split: "train" or "held-out", the latter a twentieth of the files.
        share: which part of the split's files to read, picked by another hash; reading all of them
            takes about a minute.
        packages: names of installed packages.
        min_chars: shorter docstrings are left out.

    Raises:
        ValueError: for an unknown split, a share outside (0, 1], or a package that is not there.
    """
    check_one_of("split", split, SPLITS)
    check_in_range("share", share, 0, 1, open_minimum=True)
    check_positive_int("min_chars", min_chars)
    documents: dict[str, str] = {}
    for package in packages:
        for path, module in _files(package):
            is_held_out = _hash(f"split {module}") < HELD_OUT
            if is_held_out == (split == "held-out") and _hash(f"share {module}") <= share:
                for name, text in _docstrings(path, module):
                    if len(text) >= min_chars:
                        documents.setdefault(text, f"{name}\n\n{text}")
    return sorted(documents.values(), key=_hash)


def _files(package: str) -> Iterator[tuple[Path, str]]:
    """Source files of an installed package with their dotted names, sorted by name."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"packages must name installed packages, got {package!r}")
    root = Path(found.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        yield path, ".".join([package, *path.relative_to(root).with_suffix("").parts])


def _hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str]]:
    """The dotted name and the cleaned docstring of all that a file documents."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return  # templates and files for other versions of Python
    waiting: list[tuple[ast.AST, str]] = [(tree, module.removesuffix(".__init__"))]
    while waiting:
        node, name = waiting.pop(0)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield name, text
            inner = (each for each in node.body if hasattr(each, "name"))
            waiting += [(each, f"{name}.{each.name}") for each in inner]
