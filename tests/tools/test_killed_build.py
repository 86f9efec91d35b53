"""A build of a tiny book: killed, torn, failing, or after a change of its library."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
---

"""
# The second chapter says that it runs, and by which process. Then it waits for a file.
QUICK = """# Quick

```{code-cell}
import sys
from pathlib import Path

sys.path.insert(0, "../src/saebook")
from value import VALUE

with Path("../runs").open("a") as runs:
    runs.write("quick ")
print("the value is", VALUE)
```
"""
SLOW = """# Slow

```{code-cell}
import os, time
from pathlib import Path

Path("../kernel").write_text(str(os.getpid()))
while not Path("../gate").exists():
    time.sleep(0.02)
with Path("../runs").open("a") as runs:
    runs.write("slow ")
print("came to its end")
```
"""
INTRO = "# A tiny book\n\nTwo chapters.\n"
NEEDED = "bookkit.*(execution|claims|replicated)"  # extensions
FALSE = """
```{code-cell}
from bookkit import claims

claims.check("%s-false", "A half is more", claims.at_least(0.5, 0.75))
```

```{code-cell}
print("and then")
```
"""
PATIENCE = 120  # seconds until a test gives up


class Book:
    """A book of two chapters in `root`, with the tools and extensions of the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "tools" / "build_book.py", root / "tools")
        real = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
        extensions = real["sphinx"]["extra_extensions"]
        self.write("_config.yml", yaml.safe_dump({
            "title": "A tiny book",
            "only_build_toc_files": True,
            "execute": real["execute"],
            "sphinx": {
                "extra_extensions": [name for name in extensions if re.search(NEEDED, name)],
                "config": {"nb_execution_raise_on_error": True, "nb_ipywidgets_js": {}},
            },
        }))  # fmt: skip
        self.write("_toc.yml", yaml.safe_dump({
            "format": "jb-book",
            "root": "book/intro",
            "chapters": [{"file": "book/quick"}, {"file": "book/slow"}],
        }))  # fmt: skip
        self.write("src/saebook/value.py", "VALUE = 1\n")
        self.write("requirements.txt", "torch\n")
        self.write("book/intro.md", INTRO)
        self.write("book/quick.md", HEADER + QUICK)
        self.write("book/slow.md", HEADER + SLOW)
        self.write("gate", "")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def start(self, **settings: str) -> subprocess.Popen:
        """A build in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, self.root / "tools" / "build_book.py"],
            env={**os.environ, "CI": "", "STRICT": "", "JOBS": "2", **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def build(self, **settings: str) -> tuple[int, str]:
        """Exit status and messages of a build."""
        process = self.start(**settings)
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    def kill_while_executing(self) -> None:
        """Kill a build whose first chapter is done and whose second runs.

        The kernel is in no group of the build's; it ends by itself when it has lost its parent.
        """
        for name in ("gate", "kernel"):
            (self.root / name).unlink(missing_ok=True)
        before = self.cached()
        process = self.start()
        wait_for(lambda: (self.root / "kernel").exists() and self.cached() - before, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        kernel = int((self.root / "kernel").read_text())
        wait_for(lambda: has_ended(kernel))
        self.write("gate", "")

    def cached(self) -> set[Path]:
        """The outputs kept of chapters that ran to their end."""
        return set(self.root.glob("_build/.jupyter_cache/*/executed/*/base.ipynb"))

    def runs(self) -> str:
        return (self.root / "runs").read_text().strip()

    def pages(self) -> dict[str, str]:
        """The published pages by name, each of them whole."""
        pages = {p.name: p.read_text() for p in self.root.glob("_build/html/book/*.html")}
        for name, text in pages.items():
            assert text.rstrip().endswith("</html>"), name
        return pages

    def outputs(self) -> list[str]:
        """What the chapters on the published pages print."""
        cells = [
            BeautifulSoup(self.pages()[f"{name}.html"], "html.parser").select(".cell_output")
            for name in ("quick", "slow")
        ]
        return [cell.get_text().strip() for page in cells for cell in page]


def wait_for(event, process=None) -> None:
    """Return when `event()` is true. Fails when `process` ends before, or after a long time."""
    end = time.monotonic() + PATIENCE
    while not event():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the event did not come"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A tiny book, built; tests take copies."""
    book = Book(tmp_path_factory.mktemp("complete"))
    status, output = book.build()
    assert status == 0, output
    assert book.outputs() == ["the value is 1", "came to its end"]
    return book.root


@pytest.fixture
def book(complete, tmp_path):
    copy = Book.__new__(Book)
    copy.root = shutil.copytree(complete, tmp_path / "book")
    return copy


def test_a_killed_build_publishes_nothing_and_the_next_one_completes(book, tmp_path):
    book.write("src/saebook/value.py", "VALUE = 22\n")
    book.kill_while_executing()
    assert not (book.root / "_build" / "html").exists()
    status, output = book.build()
    assert status == 0, output
    assert book.outputs() == ["the value is 22", "came to its end"]
    assert sorted(book.runs().split()) == ["quick", "quick", "slow", "slow"]  # done once, kept

    never_killed = Book(tmp_path / "other")
    never_killed.write("src/saebook/value.py", "VALUE = 22\n")
    assert never_killed.build()[0] == 0
    assert book.pages() == never_killed.pages()


def test_a_failed_cell_is_told_and_fails_the_next_build_too(book):
    book.write("book/quick.md", HEADER + QUICK.replace('"the value is"', '"half of it", 1 / 0'))
    for _ in range(2):
        status, output = book.build()
        assert status == 1
        assert "error: a cell of" in output and "book/quick.md failed" in output
        assert "ZeroDivisionError" in output
        assert not (book.root / "_build" / "html").exists()


def test_only_a_changed_chapter_runs_again_and_two_builds_at_a_time_are_refused(book):
    book.write("book/slow.md", HEADER + SLOW.replace("came to", "went to"))
    (book.root / "gate").unlink()
    (book.root / "kernel").unlink()
    first = book.start()
    wait_for((book.root / "kernel").exists, first)
    status, output = book.build()
    assert status == 1
    assert output.splitlines() == [
        "error: another build of this book is running. Wait for it, or stop it."
    ]
    book.write("gate", "")
    assert first.communicate(timeout=PATIENCE) and first.returncode == 0
    assert book.outputs() == ["the value is 1", "went to its end"]
    assert sorted(book.runs().split()) == ["quick", "slow", "slow"]


def test_a_tag_for_the_eye_changes_the_page_and_runs_nothing(book):
    book.write("book/quick.md", HEADER + QUICK.replace("}\n", "}\n:tags: [hide-input]\n"))
    status, output = book.build()
    assert status == 0, output
    assert "tag_hide-input" in book.pages()["quick.html"]
    assert book.outputs() == ["the value is 1", "came to its end"]
    assert sorted(book.runs().split()) == ["quick", "slow"]


def test_a_text_on_stderr_is_told_and_the_build_passes_when_its_cause_is_gone(book):
    noisy = "if Path('../noise').exists():\n    print('a warning', file=sys.stderr)\nprint("
    book.write("book/quick.md", HEADER + QUICK.replace("print(", noisy))
    book.write("noise", "")
    status, output = book.build()
    assert status == 1
    assert "book/quick.md wrote to stderr" in output
    assert "The cell on line 13:" in output and "\n\na warning\n" in output
    (book.root / "noise").unlink()
    status, output = book.build()
    assert status == 0, output
    assert book.outputs() == ["the value is 1", "came to its end"]


def test_a_false_claim_marks_its_page_and_is_listed_and_the_site_is_published(book):
    book.write("book/quick.md", HEADER + QUICK + FALSE % "quick")
    status, output = book.build()
    assert status == 0, output
    assert "warning: 1 claim does not hold here:\n  book/quick, quick-false: A half is m" in output
    page = BeautifulSoup(book.pages()["quick.html"], "html.parser")
    claim = page.select_one("#claim-quick-false.claim-false")
    told = "✗ Does not hold here. A half is more 0.5 ≥ 0.75"
    assert claim.get_text(" ", strip=True) == told
    assert page.select_one(".claims-false a")["href"] == "#claim-quick-false"
    assert book.outputs() == ["the value is 1", told, "and then", "came to its end"]


@pytest.mark.parametrize("settings", [{"STRICT": "1"}, {"CI": "true"}])
def test_where_false_claims_fail_the_build_all_are_listed_at_once(book, settings):
    book.write("book/quick.md", HEADER + QUICK + FALSE % "quick")
    book.write("book/slow.md", HEADER + SLOW + FALSE % "slow")
    status, output = book.build(**settings)
    assert status == 1
    assert "error: 2 claims do not hold here:" in output
    assert "book/quick, quick-false" in output and "book/slow, slow-false" in output
    assert not (book.root / "_build" / "html").exists()
    status, output = book.build(STRICT="0", CI="true")
    assert status == 0, output
    assert sorted(book.runs().split()) == ["quick", "quick", "slow", "slow"]  # once more, kept


def test_another_value_of_strict_is_named(book):
    status, output = book.build(STRICT="yes")
    assert status == 1
    assert output.strip() == "error: STRICT must be 0 or 1, got 'yes'"


@pytest.mark.parametrize(
    ("sources", "pages", "kept"),
    [(["a", "b"], ["a"], True), (["a"], ["a", "renamed"], False), (["a"], None, False)],
    ids=["a page is new", "a page is gone", "the last build did not finish"],
)
def test_a_build_goes_on_from_a_whole_site_only(tmp_path, monkeypatch, sources, pages, kept):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("build_book")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    for name in ("SITE", "DRAFT", "DRAFT_SITE"):
        place = tmp_path / getattr(tool, name).relative_to(ROOT)
        monkeypatch.setattr(tool, name, place)
    files = [f"book/{name}.md" for name in sources]
    files += ["_build/draft/html/torn.html"] if pages is None else []
    files += [f"_build/html/book/{name}.html" for name in pages or []]
    for file in map(tmp_path.joinpath, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    tool.begin()
    left = {path.name for path in (tmp_path / "_build").rglob("*.html")}
    assert left == ({f"{name}.html" for name in pages} if kept else set())
    assert not tool.SITE.exists()
