"""What a library offers, and who uses it: read from the sources alone, nothing is imported.

A package of the library offers the names in its `__all__`, and any other public module of the top
floor the functions and classes that it defines. What lies deeper is offered through its package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bookkit.chapters import code_of

Name = tuple[str, str]  # of a module and of what it defines


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A public function or class: where it is offered, and where it is defined."""

    module: str
    name: str
    is_class: bool
    origin: Name

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


class Library:
    """The modules of all packages in a source folder, parsed, by their dotted names."""

    def __init__(self, folder: Path):
        files = {dotted(folder, file): file for file in sorted(folder.rglob("*.py"))}
        self.packages = {name for name, file in files.items() if file.stem == "__init__"}
        self.trees = {name: ast.parse(_read(file)) for name, file in files.items()}
        self.definitions = {name: _definitions(tree) for name, tree in self.trees.items()}
        self.bindings = {name: self.bindings_of(tree) for name, tree in self.trees.items()}

    def bindings_of(self, tree: ast.AST) -> dict[str, tuple[str, str | None]]:
        """What imports of the library bind: a local name to a module, or to a name in a module."""
        found: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in self.trees:
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    target = (module, None) if module in self.trees else (node.module, alias.name)
                    found[alias.asname or alias.name] = target
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.trees:
                        found[alias.asname or alias.name] = (alias.name, None)
        return found

    def origin(self, module: str, name: str) -> Name:
        """The module that defines what `module` calls `name`, and its name there."""
        while name not in self.definitions.get(module, {}):
            bound = self.bindings.get(module, {}).get(name)
            if bound is None or bound[1] is None:
                break
            module, name = bound
        return module, name

    def entries(self) -> dict[str, list[Entry]]:
        """The public functions and classes of each public module."""
        found = {}
        for module in self.trees:
            _, _, last = module.partition(".")
            if last and "." not in last and not last.startswith("_"):
                kept = [e for name in self._offered(module) if (e := self._entry(module, name))]
                found |= {module: kept} if kept else {}
        return found

    def _offered(self, module: str) -> list[str]:
        own = [name for name in self.definitions[module] if not name.startswith("_")]
        listed = _all(self.trees[module])
        return listed or ([] if module in self.packages else own)

    def _entry(self, module: str, name: str) -> Entry | None:
        origin = self.origin(module, name)
        node = self.definitions.get(origin[0], {}).get(origin[1])
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            return None
        is_class = isinstance(node, ast.ClassDef)
        return Entry(module=module, name=name, is_class=is_class, origin=origin)

    def uses(self, tree: ast.AST, bindings: dict[str, tuple[str, str | None]]) -> set[Name]:
        """The library's definitions that code names, given what its imports bind."""
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and bindings.get(node.id, ("", None))[1]:
                module, name = bindings[node.id]
                found.add(self.origin(module, str(name)))
            elif isinstance(node, ast.Attribute):
                module, inner = self._module_of(node.value, bindings)
                if module and not inner:
                    found.add(self.origin(module, node.attr))
        return found

    def _module_of(self, node: ast.AST, bindings) -> tuple[str, str | None]:
        """The module that an expression such as `plots` or `kit.plots` means."""
        if isinstance(node, ast.Name):
            return bindings.get(node.id, ("", None))
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        return (name, None) if name in self.trees else ("", None)

    def users(self) -> dict[Name, set[Name]]:
        """For each definition that others in the library name: which ones do."""
        found: dict[Name, set[Name]] = {}
        for module, definitions in self.definitions.items():
            bindings = self.bindings[module] | {name: (module, name) for name in definitions}
            for name, statement in definitions.items():
                if name != "__all__":
                    for used in self.uses(statement, bindings) - {(module, name)}:
                        found.setdefault(used, set()).add((module, name))
        return found


def _targets(statement: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def dotted(folder: Path, file: Path) -> str:
    """The name of a module in a source folder."""
    return ".".join(file.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """The functions, classes and constants that a module defines, in the order of its source."""
    return {name: statement for statement in tree.body for name in _targets(statement)}


def _all(tree: ast.Module) -> list[str] | None:
    """The names in `__all__`, or None without one."""
    statement = _definitions(tree).get("__all__")
    return ast.literal_eval(statement.value) if isinstance(statement, ast.Assign) else None


def used_by_page(library: Library, page: str) -> set[Name]:
    """The library's definitions that a page's code names."""
    tree = code_of(page)
    return library.uses(tree, library.bindings_of(tree))


def tests_of(library: Library, source: str) -> dict[Name, list[str]]:
    """The tests in a file for each of the library's definitions, helpers and fixtures followed."""
    tree = ast.parse(source)
    bindings, definitions = library.bindings_of(tree), _definitions(tree)
    always = [name for name, node in definitions.items() if _is_autouse(node)]
    found: dict[Name, list[str]] = {}
    for test in (name for name in definitions if name.startswith("test_")):
        reached, waiting = set(), [test, *always]
        while waiting:
            name = waiting.pop()
            if name in definitions and name not in reached:
                reached.add(name)
                waiting += _names(definitions[name])
        used = {use for name in reached for use in library.uses(definitions[name], bindings)}
        for use in used:
            found.setdefault(use, []).append(test)
    return found


def _is_autouse(node: ast.stmt) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any("autouse=True" in ast.unparse(decorator) for decorator in decorators)


def _names(tree: ast.AST) -> Iterator[str]:
    """Names read, and arguments: those of a test are fixtures."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where an entry is used.

    Attributes:
        used: the pages that use it, in reading order.
        tests: by file, the tests that reach it.
    """

    used: list[str]
    tests: dict[str, list[str]]


def links(root: Path, pages: list[str]) -> dict[Entry, Links]:
    """The links of every public function and class, by a book's root and pages without suffix.

    A class that no page (or test) names is used where the functions that name it are used: those
    that return it, and the classes that extend it.
    """
    library = Library(root / "src")
    users = library.users()
    on_pages = {page: used_by_page(library, _read(root / f"{page}.md")) for page in pages}
    in_tests = {
        file.relative_to(root).as_posix(): tests_of(library, _read(file))
        for file in sorted((root / "tests").rglob("test_*.py"))
    }

    def pages_of(names: set[Name]) -> list[str]:
        return [page for page, used in on_pages.items() if used & names]

    def tests_by_file(names: set[Name]) -> dict[str, list[str]]:
        found = {
            file: sorted({test for name in names for test in tests.get(name, [])})
            for file, tests in in_tests.items()
        }
        return {file: tests for file, tests in found.items() if tests}

    found = {}
    for entry in (entry for entries in library.entries().values() for entry in entries):
        own, through = {entry.origin}, users.get(entry.origin, set()) if entry.is_class else set()
        found[entry] = Links(
            used=pages_of(own) or pages_of(through),
            tests=tests_by_file(own) or tests_by_file(through),
        )
    return found


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")
