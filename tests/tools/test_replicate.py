"""`make replicate` on a tiny book: killed and started again, with failing cells, false claims."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_killed_build import HEADER, ROOT, has_ended, wait_for

# Each chapter says what it drew. The second waits for a file, and says by which process.
DRAW = """
import os
from pathlib import Path

import torch
from bookkit import claims

drawn = torch.rand(100, generator=torch.Generator().manual_seed(0))
"""
QUICK = """# Quick

```{code-cell}
%s
claims.check("quick-mean", "The mean is near a half", claims.between(drawn.mean(), 0.2, 0.8))
```
"""
SLOW = """# Slow

```{code-cell}
%s
Path("../kernel").write_text(str(os.getpid()))
while not Path("../gate").exists():
    pass
claims.check("slow-seconds", "Fewer are above a half than below", (drawn > 0.5).sum() < 50)
```
"""
PATIENCE = 240


class Book:
    """A book of two chapters with the real tools, extensions and library."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "tools", root / "tools")
        shutil.copy(ROOT / "requirements.txt", root)
        config = {"slow_chapters": [], "pages_without_notebook": []}
        self.write("_config.yml", yaml.safe_dump({"sphinx": {"config": config}}))
        self.write("src/saebook/note.py", "x = 1\n")
        self.write("book/quick.md", HEADER + QUICK % DRAW.strip())
        self.write("book/slow.md", HEADER + SLOW % DRAW.strip())
        self.write("gate", "")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def start(self, *options: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, self.root / "tools" / "replicate.py", *options],
            env={**os.environ, "JOBS": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def replicate(self, *options: str) -> tuple[int, str]:
        process = self.start(*options)
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output

    def table(self, name: str) -> dict[str, list[str]]:
        lines = (self.root / "replications" / f"{name}.csv").read_text().splitlines()
        return {key: rest for key, *rest in (line.split(",") for line in lines if '"' not in line)}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A tiny book with two replications of each chapter; tests take copies."""
    book = Book(tmp_path_factory.mktemp("complete"))
    status, output = book.replicate("--runs", "2")
    assert status == 0, output
    return book.root, output


@pytest.fixture
def book(complete, tmp_path):
    copy = Book.__new__(Book)
    copy.root = shutil.copytree(complete[0], tmp_path / "book")
    return copy


def test_every_replication_is_kept_with_what_made_it(book, complete):
    quick = book.table("quick")
    assert quick["quantity"] == ["0 machine", "10000 machine", "20000 avx2"]
    assert quick["run/shift"] == ["0", "10000", "20000"]
    assert len(set(quick["claim/quick-mean/1/value"])) == 3  # the seeds were shifted
    assert len(set(quick["run/code"])) == 1
    assert "2 claims, " in complete[1]


def test_fresh_replications_have_seeds_of_their_own(book):
    status, output = book.replicate("--runs", "1", "--first", "3", "quick")
    assert status == 0, output
    quick = book.table("quick")
    assert quick["quantity"] == ["0 machine", "10000 machine", "20000 avx2", "30000 machine"]
    assert len(set(quick["claim/quick-mean/1/value"])) == 4


def test_what_is_there_is_not_run_again(book):
    (book.root / "kernel").unlink()
    status, output = book.replicate("--runs", "2")
    assert status == 0, output
    assert not (book.root / "kernel").exists()


def test_killed_and_started_again_nothing_is_lost_and_nothing_counted_twice(book):
    (book.root / "gate").unlink()
    (book.root / "kernel").unlink()
    before = book.table("quick")
    process = book.start("--runs", "4")
    wait_for(
        lambda: (book.root / "kernel").exists() and len(book.table("quick")["quantity"]) > 3,
        process,
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    kernel = int((book.root / "kernel").read_text())
    wait_for(lambda: has_ended(kernel))
    left = book.table("quick")
    book.write("gate", "")
    status, output = book.replicate("--runs", "4")
    assert status == 0, output
    assert "quick 30000" not in output or len(left["quantity"]) == 4  # the one that had ended stays
    for name in ("quick", "slow"):
        now = book.table(name)
        assert now["run/shift"] == ["0", "10000", "20000", "30000", "40000"]
        assert now["run/environment"] == ["machine", "machine", "avx2", "default", "threads"]
    assert book.table("quick")["claim/quick-mean/1/value"][:3] == before["claim/quick-mean/1/value"]


def test_a_change_that_moves_no_number_makes_nothing_stale_and_one_that_does_makes_it_so(book):
    text = (book.root / "book" / "quick.md").read_text()
    book.write("book/quick.md", text.replace("0.2, 0.8", "0.1, 0.9"))
    status, output = book.replicate("--runs", "2", "quick")  # the own draw tells
    assert status == 0, output
    assert "quick 10000" not in output
    book.write("book/quick.md", text.replace("rand(100", "rand(101"))
    assert "quick 10000 machine" in book.replicate("--runs", "2", "quick")[1]


def test_a_claim_that_fell_in_a_replication_fails_the_check(book):
    text = (book.root / "book" / "quick.md").read_text()
    status, output = book.replicate("--check", "quick")
    assert status == 0, output
    assert "1 have fewer live replications than the 8 promised" in output
    assert book.replicate("--check", "--complete", "quick")[0] == 1
    own, *others = map(float, book.table("quick")["claim/quick-mean/1/value"])
    bound = (own + min(others)) / 2 if min(others) < own else (own + max(others)) / 2
    bounds = f"{bound:.4f}, 1" if min(others) < own else f"0, {bound:.4f}"
    book.write("book/quick.md", text.replace("0.2, 0.8", bounds))
    assert book.replicate("--runs", "2", "quick")[0] == 0
    status, output = book.replicate("--check", "quick")
    assert status == 1
    assert "FELL: quick quick-mean held in" in output


def test_a_cell_that_raises_is_told_and_fails(book):
    text = (book.root / "book" / "quick.md").read_text()
    book.write("book/quick.md", text.replace("claims.check", "1 / 0\nclaims.check"))
    status, output = book.replicate("--runs", "1", "quick")
    assert status == 1
    assert "ZeroDivisionError: division by zero" in output
    assert "raised/1" in book.table("quick")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--first", "0"], "--first: must be a positive whole number, got '0'"),
        (["nothing"], "error: no chapter nothing. NAME must be one of: quick, slow"),
        (["--runs", "0"], "--runs: must be a positive whole number, got '0'"),
        (["--runs", "two"], "--runs: must be a positive whole number, got 'two'"),
        (["--environment", "arm"], "invalid choice: 'arm'"),
    ],
)
def test_bad_input_is_named(book, options, fault):
    status, output = book.replicate(*options)
    assert status == 2
    assert fault in output


def test_a_torn_table_is_named(book):
    book.write("replications/quick.csv", "quantity,0 machine\n")
    status, output = book.replicate("--check")
    assert status == 2
    assert "error: quick.csv must have the rows run/shift" in output
