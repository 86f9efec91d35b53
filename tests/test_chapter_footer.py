"""A page's footer reads seeds and versions from the page's code, and tells what it ran on."""

import ast
import importlib
from importlib.metadata import version
from pathlib import Path

import pytest

import saebook

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return importlib.import_module


@pytest.mark.parametrize(
    ("code", "numbers", "texts"),
    [
        ("g = torch.Generator().manual_seed(3)", [3], []),
        ("train(cfgs, seeds=range(2, 5))", [2, 3, 4], []),
        ("train(cfgs, seeds=[0] * 4)", [0], []),
        ("train(cfgs, seeds=[*range(2)] * 3)", [0, 1], []),
        ("train(cfgs, seeds=3)", [0, 1, 2], []),
        ("widened(sae, 8, seed=3)", [3], []),
        ("l0s, seeds = (8, 16), (1, 5)\ntrain(cfgs, seeds=seeds)", [1, 5], []),
        ("seeds = range(2)\nfor s in seeds:\n    fit(s)", [0, 1], []),
        ("for s in range(2):\n    torch.manual_seed(20 + s)", [20, 21], []),
        ("[train(seed) for seed in range(3)]", [0, 1, 2], []),
        ("train(cfgs, seeds=[seed for _, seed in grid])", [], []),
        ("train(cfgs, seeds=range(len(saes)))", [], ["range(len(saes))"]),
        ("torch.manual_seed(n)\nn = 1\nn = 2", [], ["n"]),
        ("proceed = 4", [], []),
    ],
)
def test_seeds_are_read_from_the_code(extension, code, numbers, texts):
    assert extension("seeds").seeds_of(ast.parse(code)) == (numbers, texts)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([4], "4"), ([0, 1, 2, 3, 7], "0–3, 7"), ([0, 1, 5, 6, 7], "0, 1, 5–7")],
)
def test_runs_of_seeds_are_written_short(extension, numbers, text):
    assert extension("seeds").compact(numbers) == text


def facts(extension, code, seconds=73.4):
    tree = ast.parse(code)
    footer = extension("chapter_footer").footer(tree, seconds, "058d1c6b77aa0000")
    return footer.astext().split(" · ")


def test_a_footer_tells_time_code_seeds_and_versions(extension):
    time, code, seeds, versions = facts(
        extension, "import os\nimport scipy.linalg\nx.manual_seed(0)"
    )
    assert time == "Run time 73 s"
    assert code == f"saebook {saebook.__version__}, code digest 058d1c6b"
    assert seeds == "Seed 0"
    assert f"numpy {version('numpy')}, scipy {version('scipy')}, Python 3." in versions
    assert "+" not in versions


def test_a_page_without_randomness_has_no_seeds_and_a_short_time_a_decimal(extension):
    time, _, seeds, _ = facts(extension, "1 + 1", seconds=2.44)
    assert (time, seeds) == ("Run time 2.4 s", "No seeds")


def test_seeds_that_only_a_run_would_tell_are_shown_as_source(extension):
    _, _, seeds, _ = facts(extension, "x.manual_seed(5)\nx.manual_seed(len(y))")
    assert seeds == "Seeds 5, len(y)"
