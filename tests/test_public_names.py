"""What is public has a test, a use, and a place in the reference."""

import ast
import re
from pathlib import Path

import pytest

import public_names

ROOT = Path(__file__).resolve().parents[1]

SOURCES = {
    "src/lib/__init__.py": "",
    "src/lib/worlds/__init__.py": """
from lib._hidden import helper
from lib.worlds.trees import Tree, World, make_tree as make_tree
__all__ = ["Tree", "World", "make_tree", "helper"]
""",
    "src/lib/worlds/trees.py": """
class Tree: ...
class World: ...
def make_tree() -> Tree:
    '''Grow one. Taught in "The
    second".'''
def prune(tree: Tree): ...
""",
    "src/lib/_hidden.py": "def helper(): ...\ndef other(): ...",
    "src/lib/plots.py": "def plot(): ...\ndef _axes(): ...\ndef lonely(): ...",
    "book/one.md": """
# The first
```{code-cell} python
:tags: [hide-input]
%matplotlib inline
from lib import plots as p, worlds
worlds.make_tree()
```
```python
p.lonely()
```
""",
    "book/two.md": "# The second\n```{code-cell}\nfrom lib.plots import plot\nplot()\n```",
    "tests/worlds/test_trees.py": """
import pytest

from lib import plots
from lib.worlds.trees import make_tree
@pytest.fixture(autouse=True)
def figure(): plots.plot()
@pytest.fixture
def tree(): return grow()
def grow(): return make_tree()
def test_with_a_fixture(tree): ...
def test_with_a_helper(): grow()
def test_without(): ...
""",
}


@pytest.fixture
def project(tmp_path):
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


@pytest.fixture
def found(project):
    links = public_names.links(project, ["book/one", "book/two"])
    return {entry.path.removeprefix("lib."): where for entry, where in links.items()}


@pytest.fixture
def library():
    return public_names.Library(ROOT / "src")


def test_a_module_offers_what_it_lists_else_what_it_defines(found):
    assert {path for path in found if path.startswith("worlds.")} == {
        "worlds.Tree",
        "worlds.World",
        "worlds.make_tree",
        "worlds.helper",
    }
    assert {path for path in found if path.startswith("plots.")} == {"plots.plot", "plots.lonely"}


def test_what_lies_deeper_is_offered_by_its_package_only(found):
    assert not [path for path in found if "trees." in path or "prune" in path]


def test_pages_are_found_by_the_names_in_their_code_cells(found):
    assert found["plots.plot"].used == ["book/two"]
    assert found["plots.lonely"].used == []


def test_tests_are_found_through_helpers_and_fixtures(found):
    assert found["worlds.make_tree"].tests == {
        "tests/worlds/test_trees.py": ["test_with_a_fixture", "test_with_a_helper"]
    }
    assert len(found["plots.plot"].tests["tests/worlds/test_trees.py"]) == 3
    assert found["plots.lonely"].tests == found["worlds.helper"].tests == {}


def test_a_class_is_used_where_what_returns_it_is_used(found):
    assert found["worlds.Tree"].used == ["book/one"]
    assert found["worlds.Tree"].tests == found["worlds.make_tree"].tests
    assert found["worlds.World"].tests == {}


def test_every_public_function_and_class_is_reached_by_a_test():
    untested = [
        entry.path for entry, where in public_names.links(ROOT, []).items() if not where.tests
    ]
    assert not untested, "name them in a test, or leave them out of __all__"


def test_every_public_function_serves_a_chapter_a_tool_or_the_library(library):
    pages = [path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("book/*.md")]
    used = set(library.users())
    for tool in [*ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")]:
        tree = ast.parse(tool.read_text(encoding="utf-8"))
        used |= library.uses(tree, library.bindings_of(tree))
    idle = [
        entry.path
        for entry, where in public_names.links(ROOT, pages).items()
        if not where.used and entry.origin not in used
    ]
    assert not idle, "no one needs them: remove them"


def test_the_library_speaks_of_itself_and_not_of_the_book(library):
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    nodes = [node for tree in library.trees.values() for node in ast.walk(tree)]
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    assert not [text for text in docstrings if re.search(r"[Tt]aught in|[Cc]hapters?:? \"", text)]


def test_every_public_module_stands_on_one_page_of_the_reference(library):
    pages = [path.read_text(encoding="utf-8") for path in ROOT.glob("book/library/*.md")]
    shown = [name for page in pages for name in re.findall(r"automodule:: (\S+)", page)]
    overview = re.findall(r"(?m)^   (\S+)$", (ROOT / "book/library.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(library.entries()) == sorted(overview)
