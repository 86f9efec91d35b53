"""The library's imports point one way, as DESIGN says: no cycle, and each arrow only forwards."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "saebook"

TRAINING = {
    "_auxiliary",
    "_buffers",
    "_checkpoints",
    "_ensemble_run",
    "_gate",
    "_gates",
    "_initial",
    "_nesting",
    "_running",
    "_schedules",
    "_selection",
    "_shards",
    "_stacked",
    "_stationarity",
    "_support",
    "_threshold_gates",
    "_topk_gates",
    "ensembles",
    "matched_l0",
    "population",
    "resampling",
    "training_log",
}
WORLDS = {
    "_forest",
    "copula",
    "directions",
    "finite_worlds",
    "toy_world",
    "tree_worlds",
    "worlds",
}
METRICS = {"_decoders", "absorption", "hedging", "metrics", "true_dictionary"}
STEPS = {"_stacked", "_ensemble_run", "_shards", "ensembles", "population"}
TOY_MODELS = {
    "_superposition_models",
    "_superposition_pairs",
    "_superposition_steps",
    "_superposition_task",
    "superposition",
}
BASELINES = {
    "_accounting",
    "_baseline",
    "_baseline_atoms",
    "_baseline_clusters",
    "_baseline_linear",
    "_baseline_sae",
    "_frozen_sae",
    "_pursuit",
    "baselines",
}
LANGUAGE_MODELS = {"activations", "interventions", "language_model", "splicing"}
# What only chapters and plots use.
READERS = {"claims", "exercises", "figure_data", "style", "touch"}
ON_TEXT = {"examples", "monosemanticity", "ngrams"}  # of tokens and activations only

NO_TOY_MODELS = (
    WORLDS | (TRAINING - {"_running"}) | METRICS | READERS | {"architectures", "true_l0"}
)

# A module may not reach any of these modules, directly or through others.
FORBIDDEN = {
    "__main__": {"*"},  # it reads the other modules' files, and imports none
    "_checks": {"*"},
    "_checkpoints": {"*"},
    "_running": {"*"},
    "_selection": {"*"},
    "_findings": {"*"},
    "claims": {path.stem for path in PACKAGE.glob("*.py")} - {"_findings"},
    "plots": WORLDS | TRAINING | {"architectures", "true_l0", "claims", "touch"},
    "_sweep_plots": WORLDS | TRAINING | {"architectures", "true_l0", "claims", "plots"},
    "metrics": WORLDS | TRAINING | READERS | {"architectures", "true_l0"},
    "true_dictionary": WORLDS | TRAINING | READERS | {"architectures", "true_l0", "metrics"},
    "absorption": WORLDS
    | TRAINING
    | READERS
    | {"architectures", "true_l0"}
    | (METRICS - {"absorption"}),
    "hedging": WORLDS
    | TRAINING
    | READERS
    | {"architectures", "true_l0"}
    | (METRICS - {"hedging", "_decoders"}),
    "_decoders": WORLDS
    | TRAINING
    | READERS
    | {"architectures", "true_l0"}
    | (METRICS - {"_decoders"}),
    "worlds": {"architectures", "true_l0"} | TRAINING | METRICS | READERS,
    "copula": (WORLDS - {"copula"}) | {"architectures", "true_l0"} | TRAINING | METRICS | READERS,
    "directions": (WORLDS - {"directions"})
    | {"architectures", "true_l0"}
    | TRAINING
    | METRICS
    | READERS,
    "toy_world": (WORLDS - {"toy_world"})
    | {"architectures", "true_l0"}
    | TRAINING
    | METRICS
    | READERS,
    "_forest": (WORLDS - {"_forest", "toy_world"})
    | {"architectures", "true_l0"}
    | TRAINING
    | METRICS
    | READERS,
    "finite_worlds": {"_forest", "copula", "tree_worlds", "worlds"}
    | {"architectures", "true_l0"}
    | TRAINING
    | METRICS
    | READERS,
    "tree_worlds": {"copula", "finite_worlds", "worlds"}
    | {"architectures", "true_l0"}
    | TRAINING
    | METRICS
    | READERS,
    "_support": METRICS
    | READERS
    | (WORLDS - {"toy_world"})
    | (TRAINING - {"_support"})
    | {"architectures", "true_l0"},
    "_stationarity": METRICS | READERS | {"ensembles", "population", "true_l0", "worlds"},
    "population": METRICS | READERS | {"ensembles", "true_l0", "worlds"},  # needs only a support
    "architectures": WORLDS | TRAINING | READERS | {"true_l0"},
    "matryoshka": WORLDS | TRAINING | METRICS | READERS | {"architectures", "true_l0"},
    "_nesting": WORLDS | METRICS | READERS | {"_gates", "_stacked", "ensembles", "true_l0"},
    "_schedules": WORLDS | METRICS | READERS | (TRAINING - {"_schedules"}) | {"true_l0"},
    "resampling": WORLDS
    | METRICS
    | READERS
    | {"true_l0", "_ensemble_run", "_shards", "ensembles", "population"},
    "training_log": WORLDS | READERS | (TRAINING - {"_schedules", "training_log"}) | {"true_l0"},
    "_initial": WORLDS | METRICS | READERS | {"_stacked", "_ensemble_run", "_shards", "ensembles"},
    "_gate": WORLDS | METRICS | READERS | (TRAINING - {"_gate"}) | {"true_l0"},
    "_topk_gates": WORLDS | METRICS | READERS | STEPS | {"true_l0", "_gates"},
    "_threshold_gates": WORLDS | METRICS | READERS | STEPS | {"true_l0", "_gates"},
    "_gates": WORLDS | METRICS | READERS | STEPS | {"true_l0"},
    "_auxiliary": WORLDS | METRICS | READERS | STEPS | {"true_l0"},
    "_buffers": WORLDS | METRICS | READERS | STEPS | {"true_l0"},
    "_stacked": WORLDS | METRICS | READERS | {"true_l0", "_ensemble_run", "_shards", "ensembles"},
    "_ensemble_run": WORLDS | READERS | {"true_l0", "_shards", "ensembles"},
    "_shards": WORLDS | READERS | {"true_l0", "ensembles"},
    "ensembles": WORLDS | READERS | {"true_l0"},
    "evaluation": WORLDS | TRAINING | READERS | {"architectures", "true_l0"},
    "matched_l0": WORLDS | READERS | {"true_l0"},
    "true_l0": WORLDS | READERS,  # an estimate must not see the truth
    # A toy model of superposition needs nothing but checks and a progress bar.
    "_superposition_models": TOY_MODELS | NO_TOY_MODELS | {"_running"},
    "_superposition_pairs": {"_superposition_models", "superposition"} | NO_TOY_MODELS,
    "_superposition_steps": (TOY_MODELS - {"_superposition_steps"}) | NO_TOY_MODELS,
    "_superposition_task": TOY_MODELS | NO_TOY_MODELS | {"_running"},
    "superposition": NO_TOY_MODELS,
}
# What measures and shows activations on text needs nothing but checks.
FORBIDDEN |= {name: ON_TEXT | TOY_MODELS | NO_TOY_MODELS | {"_running"} for name in ON_TEXT}
FORBIDDEN["exercises"] = ON_TEXT | TOY_MODELS | NO_TOY_MODELS | {"_running"}
# Baselines see data, never how it was made; of training, a frozen SAE takes learning rates only.
FORBIDDEN |= {
    name: WORLDS
    | (TRAINING - {"_schedules"})
    | READERS
    | TOY_MODELS
    | {"architectures", "true_l0"}
    | (BASELINES if name in {"_accounting", "_pursuit"} else set())
    for name in BASELINES
}
# A language model is read without worlds, and only its own trainer trains.
FORBIDDEN |= {
    name: WORLDS
    | METRICS
    | READERS
    | TOY_MODELS
    | BASELINES
    | {"architectures", "true_l0"}
    | trains
    for name, trains in {
        "docstrings": TRAINING | LANGUAGE_MODELS,
        "tokens": TRAINING | LANGUAGE_MODELS,
        "language_model_training": TRAINING - {"_checkpoints", "_running"},
        "language_model": TRAINING,
        "activations": TRAINING,
        "splicing": TRAINING,
        "interventions": TRAINING,
    }.items()
}
FORBIDDEN["student"] = ON_TEXT | LANGUAGE_MODELS | BASELINES | TOY_MODELS | NO_TOY_MODELS
# A figure reads its own data, and what one can touch is made of figures. Nothing else is needed.
FORBIDDEN["figure_data"] = {"*"}
FORBIDDEN["style"] = (set(FORBIDDEN) | {"touch"}) - {"figure_data"}
FORBIDDEN["touch"] = set(FORBIDDEN) - {"figure_data", "style"}
PLOTS = {"plots", "_sweep_plots"}
ARRAYS_ONLY = {"plots", "_sweep_plots", "metrics"} | ON_TEXT


def imports(source):
    """The dotted names that a module's source imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["saebook" if node.level else "", node.module or ""]))
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def siblings(source, modules):
    """The modules of the library among a source's imports."""
    parts = [name.split(".") for name in imports(source)]
    return {part[1] for part in parts if part[0] == "saebook" and len(part) > 1} & set(modules)


def reachable(graph, start):
    """Every module that importing `start` also imports."""
    seen, waiting = set(), [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def sources():
    files = [file for file in PACKAGE.glob("*.py") if file.stem != "__init__"]
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


SOURCES = sources()
GRAPH = {name: siblings(source, SOURCES) for name, source in SOURCES.items()}


def test_every_module_has_its_place():
    assert set(SOURCES) <= set(FORBIDDEN), "say in FORBIDDEN what a new module may not reach"


def test_no_module_imports_itself_through_others():
    assert not [name for name in GRAPH if name in reachable(GRAPH, name)]


@pytest.mark.parametrize("name", sorted(set(FORBIDDEN) & set(SOURCES)))
def test_arrows_point_forward_from(name):
    reached = reachable(GRAPH, name)
    forbidden = reached if "*" in FORBIDDEN[name] else reached & FORBIDDEN[name]
    assert not forbidden


@pytest.mark.parametrize("name", sorted(set(SOURCES) - PLOTS))
def test_nothing_in_the_library_draws_save_the_plots(name):
    assert not reachable(GRAPH, name) & PLOTS


@pytest.mark.parametrize("name", sorted(ARRAYS_ONLY & set(SOURCES)))
def test_plots_and_metrics_know_arrays_only(name):
    modules = {name} | reachable(GRAPH, name)
    found = {top for module in modules for top in imports(SOURCES[module])}
    assert not {
        dotted for dotted in found if dotted.split(".")[0] in {"sae_lens", "transformer_lens"}
    }


def test_a_planted_import_is_found():
    body = ("from saebook.worlds import CopulaWorld", "from . import plots", "import sae_lens.saes")
    source = "def f():\n" + "".join(f"    {line}\n" for line in body)
    assert siblings(source, {"worlds", "plots", "style"}) == {"worlds", "plots"}
    assert "sae_lens.saes" in imports(source)


def test_reaching_goes_through_other_modules():
    graph = {"a": {"b"}, "b": {"c"}, "c": set(), "d": {"d"}}
    assert reachable(graph, "a") == {"b", "c"}
    assert reachable(graph, "d") == {"d"}
