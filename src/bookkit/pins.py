"""Which pinned versions stand behind code: those of what it imports, and of all that pulls in."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pinned(requirements: str, packages: Iterable[str], *, without: Collection[str] = ()) -> str:
    """The lines of a requirements file for some packages and what they require, sorted by name.

    Args:
        requirements: the text of the file.
        packages: names of distributions.
        without: names that are left out, with what only they require.
    """
    lines = {}
    for line in requirements.splitlines():
        pin = line.partition("#")[0].strip()
        if "==" in pin:
            lines[canonicalize_name(Requirement(pin).name)] = pin
    outside = {canonicalize_name(name) for name in without}
    wanted, seen = list(packages), set(outside)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in seen:
            seen.add(name)
            wanted += [found for found in _needs(name) if canonicalize_name(found) in lines]
    kept = sorted(seen & set(lines) - outside)
    return "".join(f"{lines[name]}\n" for name in kept)


def imported(trees: Iterable[ast.AST]) -> set[str]:
    """The distributions that code imports from."""
    modules = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return {package for module in modules for package in _distributions().get(module, ())}


@cache
def _distributions() -> dict[str, list[str]]:
    """The distributions of each module; looking takes half a second."""
    return dict(packages_distributions())


@cache
def _needs(name: str) -> tuple[str, ...]:
    """What an installed package requires, for any system; the pins say what holds on which."""
    try:
        found = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:  # a package of another system
        return ()
    return tuple(need.name for need in found if "extra" not in str(need.marker))
