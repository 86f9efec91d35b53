"""The rooms of the library: an import leads to a room of lower rank, and no module to itself."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# CONTRIBUTING draws these floors. A room that is not here has no place yet.
RANKS = {
    "saebook._checks": 0,
    "saebook._checkpoints": 0,
    "saebook._files": 0,
    "saebook._running": 0,
    "saebook.smollm2": 0.5,
    "bookkit": 0,
    "saebook.worlds": 1,
    "saebook.metrics": 1,
    "saebook.saes": 1,
    "saebook.plots": 1,
    "saebook.toy_models": 3,
    "saebook.language": 1,
    "saebook.evaluation": 2,
    "saebook.training": 2,
    "saebook.baselines": 3,
    "saebook.true_l0": 3,
    "saebook": 4,
    "saebook.__main__": 5,
}
# Arrays go in: these rooms know no models.
ARRAYS_ONLY = ("saebook.metrics", "saebook.plots")
# An estimate must not see the truth, nor a baseline how its data were made.
BLIND = {"saebook.true_l0": "saebook.worlds", "saebook.baselines": "saebook.worlds"}
LARGEST = 12  # modules in a folder


def imports(source):
    """The dotted names that a module's source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module):
    """The room that a module lies in: the longest name in the table that it begins with."""
    rooms = [room for room in RANKS if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def modules():
    """The sources of all modules by their dotted names."""
    files = [file for file in SOURCE.rglob("*.py") if "egg-info" not in str(file)]
    names = [file.relative_to(SOURCE).with_suffix("").parts for file in files]
    return {
        ".".join(name).removesuffix(".__init__"): file.read_text(encoding="utf-8")
        for name, file in zip(names, files, strict=True)
    }


SOURCES = modules()


def targets_of(source):
    """The modules that a source imports; a package only where it takes a name from its face."""
    found = imports(source) & set(SOURCES)
    packages = {name.rpartition(".")[0] for name in found}
    return found - packages


GRAPH = {name: targets_of(source) - {name} for name, source in SOURCES.items()}


def reachable(graph, start):
    """Every module that importing `start` also imports."""
    seen, waiting = set(), [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def climbs(name, targets):
    """The imports of a module that do not lead to a lower floor."""
    own = room_of(name)
    return [t for t in sorted(targets) if room_of(t) != own and RANKS[room_of(t)] >= RANKS[own]]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_lead_down(name):
    assert not climbs(name, GRAPH[name])


def test_no_module_imports_itself_through_others():
    assert not [name for name in GRAPH if name in reachable(GRAPH, name)]


@pytest.mark.parametrize("room", ARRAYS_ONLY)
def test_metrics_and_plots_know_no_models(room):
    found = {top for name in SOURCES if room_of(name) == room for top in imports(SOURCES[name])}
    assert not {each for each in found if each.split(".")[0] in {"sae_lens", "transformer_lens"}}


@pytest.mark.parametrize(("room", "hidden"), BLIND.items())
def test_what_judges_data_does_not_see_their_making(room, hidden):
    own = {target for name in GRAPH if room_of(name) == room for target in GRAPH[name]}
    assert not {target for target in own if room_of(target) == hidden}


def test_no_folder_is_too_full():
    folders = [file.parent for file in SOURCE.rglob("*.py") if file.stem != "__init__"]
    assert not {str(folder) for folder in folders if folders.count(folder) > LARGEST}


def test_a_planted_import_is_found():
    body = ("from saebook.worlds.base import World", "import sae_lens.saes")
    source = "def f():\n" + "".join(f"    {line}\n" for line in body)
    assert {"saebook.worlds.base", "sae_lens.saes"} <= imports(source)
    assert climbs("saebook.metrics.hedging", {"saebook.training.log", "saebook._checks"}) == [
        "saebook.training.log"
    ]


def test_reaching_goes_through_other_modules():
    graph = {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"d"}}
    assert reachable(graph, "a") == {"b", "c"}
    assert reachable(graph, "d") == {"d"}
