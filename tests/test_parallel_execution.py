"""Chapters run several at once: in which order, with which failures, and what is kept of them."""

import gc
import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_cache import get_cache
from myst_nb.core.config import NbParserConfig
from myst_nb.core.execute import ExecutionError
from myst_parser.config.main import MdParserConfig

# nbclient leaves the event loops of its threads to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

EXTENSIONS = Path(__file__).resolve().parents[1] / "book" / "_ext"
HEAD = (
    "---\njupytext:\n  text_representation:\n    format_name: myst\n"
    "kernelspec:\n  display_name: Python 3\n  name: python3\n---\n"
)
WAIT = """
import pathlib, time
pathlib.Path("{own}").touch()
deadline = time.monotonic() + 60
while not pathlib.Path("{other}").exists():
    assert time.monotonic() < deadline, "the other chapter never ran"
    time.sleep(0.01)
"""


@pytest.fixture
def parallel(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    monkeypatch.delenv("JOBS", raising=False)
    monkeypatch.delenv("CHAPTER", raising=False)
    module = importlib.import_module("parallel_execution")
    for name in module.KERNEL_SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back
    yield module
    gc.collect()  # here, where the warnings of those loops are ignored
    sys.modules.pop("parallel_execution", None)


@pytest.fixture
def book(tmp_path):
    """A book of two pages; `write` adds one with a single cell."""
    env = SimpleNamespace(
        myst_config=MdParserConfig(),
        mystnb_config=NbParserConfig(),
        config=SimpleNamespace(slow_chapters=[]),
        doc2path=lambda name: str(tmp_path / f"{name}.md"),
    )
    config = SimpleNamespace(nb_execution_cache_path=str(tmp_path / "cache"))
    config.nb_execution_timeout = 90
    app = SimpleNamespace(config=config)

    def write(name, code):
        (tmp_path / f"{name}.md").write_text(f"{HEAD}\n```{{code-cell}} python\n{code}\n```\n")

    return SimpleNamespace(app=app, env=env, write=write, cache=get_cache(tmp_path / "cache"))


def cached(book):
    return {Path(record.uri).stem for record in book.cache.list_cache_records()}


def test_two_chapters_run_at_the_same_time(parallel, book, monkeypatch):
    monkeypatch.setenv("JOBS", "2")
    book.write("a", WAIT.format(own="a-runs", other="b-runs"))
    book.write("b", WAIT.format(own="b-runs", other="a-runs"))
    parallel._execute(book.app, book.env, ["a", "b"])
    assert cached(book) == {"a", "b"}


def test_a_failing_chapter_is_named_and_the_others_are_kept(parallel, book):
    book.write("good", "assert True")
    book.write("bad", "assert 1 == 2")
    with pytest.raises(ExecutionError, match="bad"):
        parallel._execute(book.app, book.env, ["bad", "good"])
    assert cached(book) == {"good"}


def test_a_cached_chapter_does_not_run_again(parallel, book, tmp_path):
    book.write("a", "open('runs.txt', 'a').write('x')")
    for _ in range(2):
        parallel._execute(book.app, book.env, ["a"])
    assert (tmp_path / "runs.txt").read_text() == "x"


def test_a_kernel_computes_on_one_thread(parallel, book):
    book.write("a", "import os\nassert os.environ['OMP_NUM_THREADS'] == '1'")
    parallel._execute(book.app, book.env, ["a"])
    assert cached(book) == {"a"}


def test_slow_chapters_start_first_in_the_order_given(parallel, book):
    for name in "abcd":
        book.write(name, f"{name} = 1")
    book.env.config.slow_chapters = ["d", "b"]
    assert list(parallel._missing(book.env, book.cache, ["a", "b", "c", "d"])) == [*"dbac"]


def test_a_page_without_code_is_not_run(parallel, book, tmp_path):
    (tmp_path / "plain.md").write_text("# Words\n")
    assert parallel._missing(book.env, book.cache, ["plain"]) == {}


def test_one_named_chapter_runs_and_the_others_do_not(parallel, book, monkeypatch):
    monkeypatch.setenv("CHAPTER", "a")
    book.write("a", "assert True")
    book.write("b", "raise RuntimeError")
    parallel._execute(book.app, book.env, ["a", "b"])
    assert cached(book) == {"a"}
    assert book.env.mystnb_config.execution_excludepatterns == [book.env.doc2path("b")]


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_jobs_is_refused(parallel, monkeypatch, given):
    monkeypatch.setenv("JOBS", given)
    with pytest.raises(ValueError, match="JOBS is .*expected a positive whole number"):
        parallel.jobs()


def test_as_many_jobs_as_asked_for(parallel, monkeypatch):
    monkeypatch.setenv("JOBS", "7")
    assert parallel.jobs() == 7
    monkeypatch.setenv("JOBS", "")
    assert 1 <= parallel.jobs() <= os.cpu_count()
