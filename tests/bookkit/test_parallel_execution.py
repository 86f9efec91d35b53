"""Chapters run several at once: in which order, with which failures, and what is kept of them."""

import gc
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from myst_nb.core.config import NbParserConfig
from myst_nb.core.execute import ExecutionError
from myst_parser.config.main import MdParserConfig

from bookkit.sphinx import parallel_execution

# nbclient leaves the event loops of its threads to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

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
    monkeypatch.delenv("JOBS", raising=False)
    monkeypatch.delenv("CHAPTER", raising=False)
    module = parallel_execution
    for name in (*module.KERNEL_SETTINGS, *module.KERNEL_FOLDERS):
        monkeypatch.setenv(name, "")  # so that it is put back
    yield module
    gc.collect()  # here, where the warnings of those loops are ignored


@pytest.fixture
def book(tmp_path, parallel):
    """A book of two pages; `write` adds one with a single cell."""
    env = SimpleNamespace(
        myst_config=MdParserConfig(),
        mystnb_config=NbParserConfig(),
        config=SimpleNamespace(slow_chapters=[]),
        doc2path=lambda name: str(tmp_path / f"{name}.md"),
    )
    config = SimpleNamespace(nb_execution_cache_path=str(tmp_path / "cache"))
    config.nb_execution_timeout = 90
    app = SimpleNamespace(config=config, srcdir=str(tmp_path))

    def write(name, code):
        (tmp_path / f"{name}.md").write_text(f"{HEAD}\n```{{code-cell}} python\n{code}\n```\n")

    cache = parallel.ChapterCache(tmp_path / "cache")
    return SimpleNamespace(app=app, env=env, write=write, cache=cache)


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


FONTS = """
import os, pathlib
here = pathlib.Path(os.environ["MPLCONFIGDIR"])
found = {file.name: file.stat().st_mtime_ns for file in here.glob("fontlist*")}
import matplotlib.pyplot
assert found == {file.name: file.stat().st_mtime_ns for file in here.glob("fontlist*")} != {}
assert here.parents[1] == pathlib.Path("_build").resolve()
assert pathlib.Path(get_ipython().ipython_dir) == here.parent / "ipython"
"""


def test_a_home_that_cannot_be_written_disturbs_no_kernel_and_fonts_are_found_before(
    parallel, book, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))  # not even for root
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    book.env.mystnb_config = NbParserConfig(output_stderr="remove-warn")
    book.write("a", FONTS)
    parallel._execute(book.app, book.env, ["a"])
    assert cached(book) == {"a"}


def test_a_folder_that_the_reader_names_stays(parallel, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setenv("IPYTHONDIR", "mine")
    parallel._prepare(tmp_path)
    assert os.environ["IPYTHONDIR"] == "mine"
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "matplotlib")
    assert [path.name for path in tmp_path.iterdir()] == ["matplotlib"]


NOISE = "import os, sys\nprint('noise', file=sys.stderr if os.environ['NOISY'] else sys.stdout)"


def test_a_chapter_that_writes_to_stderr_is_told_and_runs_again_when_that_is_mended(
    parallel, book, monkeypatch
):
    monkeypatch.setenv("NOISY", "yes")
    book.env.mystnb_config = NbParserConfig(output_stderr="remove-warn")
    book.write("good", "assert True")
    book.write("noisy", NOISE)
    with pytest.raises(ExecutionError, match="noisy") as told:
        parallel._execute(book.app, book.env, ["noisy", "good"])
    rule, line = "-" * 18, len(HEAD.splitlines()) + 2
    code = f"{rule}\n{NOISE}\n{rule}"
    assert str(told.value.__cause__) == f"The cell on line {line}:\n{code}\n\nnoise"
    assert cached(book) == {"good"}
    monkeypatch.setenv("NOISY", "")
    parallel._execute(book.app, book.env, ["noisy", "good"])
    assert cached(book) == {"good", "noisy"}


@pytest.mark.parametrize(
    ("setting", "tag"), [("remove-warn", ":tags: [remove-stderr]\n"), ("show", "")]
)
def test_a_chapter_that_may_write_to_stderr_is_kept(parallel, book, monkeypatch, setting, tag):
    monkeypatch.setenv("NOISY", "yes")
    book.env.mystnb_config = NbParserConfig(output_stderr=setting)
    book.write("noisy", tag + NOISE)
    parallel._execute(book.app, book.env, ["noisy"])
    assert cached(book) == {"noisy"}


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
