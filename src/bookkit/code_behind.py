"""The code behind a chapter: its cells, the modules that they rest on, data and pinned versions.

Pins count of the packages that all this code imports, and of what these require. A tool of the
book, or a package that another chapter needs, may change.

Comments, docstrings and layout are no code. Nor are claims: a chapter's numbers do not follow from
what it says of them. What a claim asks is told apart from its words and its bounds.

Modules are found in imports. A package's `__init__.py` that only passes names on counts for
nothing: of each name that is used, the module that defines it counts, and so do the modules that
this one imports. So a new function in a module of its own leaves the code behind a chapter that
does not use it as it was.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from bookkit.chapters import code_of
from bookkit.pins import imported, pinned

SOURCES = "src"
OURS = ("saebook", "bookkit")
LIBRARY = "saebook"  # what both are installed as
DATA = (".json", ".safetensors")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
BOUNDED = ("at_least", "at_most", "between")
SAID = ("published", "source")  # keywords of `claims.check`, beside the statement
PARSING = threading.Lock()  # Python 3.11 may fail where two threads build syntax trees (gh-106905)


def code_digest(root: Path, chapter: Path) -> str:
    """Digest of all code behind a chapter."""
    with PARSING:
        tree = code_of(chapter.read_text(encoding="utf-8"))
        packages = imported([tree])
        digest = hashlib.sha256(ast.dump(_Claims().visit(tree)).encode())
        for path in files_behind(root, tree):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
            if path.suffix == ".py":
                module = ast.parse(path.read_bytes())
                packages |= imported([module])
                digest.update(_dumped(module))
            else:
                digest.update(path.read_bytes())
        pins = (root / "requirements.txt").read_text(encoding="utf-8")
        digest.update(pinned(pins, packages, without=[LIBRARY]).encode())  # it parses markers
    return digest.hexdigest()[:12]


def said_and_asked(chapter: Path) -> dict[str, str]:
    """The digest of a chapter with all that its claims say, and of what each claim asks.

    The keys are `run/said` and `claim/<id>/asks`.
    """
    with PARSING:
        tree = code_of(chapter.read_text(encoding="utf-8"))
        said = _digest(tree)
        claims = _Claims()
        claims.visit(tree)
    return {"run/said": said} | {f"claim/{name}/asks": asks for name, asks in claims.asks.items()}


def _digest(tree: ast.AST) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


class _Claims(ast.NodeTransformer):
    """Takes the claims out of a chapter's code; `asks` has the digest of each, by its id."""

    def __init__(self) -> None:
        self.asks: dict[str, str] = {}

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        self.generic_visit(node)
        match node.value:
            case ast.Call(
                func=ast.Attribute(value=ast.Name("claims"), attr="check"),
                args=[ast.Constant(str(name)), *_],
            ):
                self.asks[name] = _digest(node.value)
                return None
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Without statements, sources and constant bounds."""
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(value=ast.Name("claims"), attr="check"):
                node.args[1:2] = []
                node.keywords = [key for key in node.keywords if key.arg not in SAID]
            case ast.Attribute(value=ast.Name("claims"), attr=name) if name in BOUNDED:
                node.args[1:] = [arg for arg in node.args[1:] if not _is_literal(arg)]
        return node


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def files_behind(root: Path, tree: ast.Module) -> list[Path]:
    """The modules that code needs, and the data files of their packages, sorted.

    Args:
        root: the folder of the repository.
        tree: the code.
    """
    found: set[Path] = set()
    waiting = [tree]
    parsed = cache(lambda path: ast.parse(path.read_text(encoding="utf-8")))
    while waiting:
        for path in _needed(root, waiting.pop(), parsed):
            if path not in found:
                found.add(path)
                waiting.append(parsed(path))
    folders = {path.parent for path in found if path.parent.name not in OURS}
    data = {path for folder in folders for path in folder.rglob("*") if path.suffix in DATA}
    return sorted(found | data)


def _needed(root: Path, tree: ast.Module, parsed: Callable[[Path], ast.Module]) -> Iterator[Path]:
    """The modules that a tree's own imports name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if path := _file_of(root, alias.name):
                    yield path
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                used = _attributes(tree, alias.asname or alias.name)
                yield from _defining(root, parsed, node.module, alias.name, used)


def _defining(
    root: Path,
    parsed: Callable[[Path], ast.Module],
    module: str,
    name: str,
    used: set[str] | None,
) -> Iterator[Path]:
    """The modules behind a name that is imported from a module.

    Args:
        used: the attributes that are taken from it; None where it is used in another way too.
    """
    if inner := _file_of(root, f"{module}.{name}"):
        if inner.name == "__init__.py" and used is not None:
            for attribute in used:
                yield from _defining(root, parsed, f"{module}.{name}", attribute, None)
        else:
            yield inner
    elif home := _file_of(root, module):
        if passed_on := home.name == "__init__.py" and _passed_on(parsed(home), name):
            yield from _defining(root, parsed, *passed_on, None)
        else:
            yield home


def _file_of(root: Path, module: str) -> Path | None:
    if module.partition(".")[0] not in OURS:
        return None
    place = root.joinpath(SOURCES, *module.split("."))
    places = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in places if path.is_file()), None)


def _passed_on(init: ast.Module, name: str) -> tuple[str, str] | None:
    """Whence an `__init__.py` imports a name, and what it is called there."""
    for node in ast.walk(init):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return None


def _attributes(tree: ast.Module, name: str) -> set[str] | None:
    """The attributes that code takes from a name; None where it does something else with it."""
    of_name = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name]
    taken = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    ]
    return set(taken) if len(taken) == len(of_name) else None


def meaning(path: Path) -> bytes:
    """What a module does: its code without comments, docstrings and layout."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except SyntaxError:  # half an edit
        return content
    return _dumped(tree)


def _dumped(tree: ast.Module) -> bytes:
    """A module's code as text; its docstrings are taken out of the tree."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree).encode()
