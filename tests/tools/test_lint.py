"""`make lint` reads what belongs to the book: new chapters too, and no environment among them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "# A chapter\n\n```{code-cell}\nx = 1\n```\n"
TYPO = "teh"  # codespell:ignore
OF_OTHERS = f"# {TYPO} package\n\n```{{code-cell}}\nnot closed\n"
TOC = "format: jb-book\nroot: book/intro\nchapters: [{file: book/part/one}, {file: genindex}]\n"


@pytest.fixture
def project(tmp_path):
    """A repository with two pages and this one's lint; an environment lies among the pages."""
    files = {"_toc.yml": TOC, "book/intro.md": CHAPTER, "book/part/one.md": CHAPTER}
    files["src/bookkit/sphinx/extension.py"] = '"""An extension."""\n'
    for name in ("Makefile", "pyproject.toml", "tools/chapters.py"):
        files[name] = (ROOT / name).read_text(encoding="utf-8")
    write(tmp_path, files)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    packages = "book/mine/lib/python3.11/site-packages"
    write(tmp_path, {
        "book/mine/pyvenv.cfg": "",
        "book/mine/bin/activate_this.py": f"import os;x=( '{TYPO}' )\n",
        f"{packages}/package/README.md": OF_OTHERS,
        f"{packages}/package/__init__.py": f"import os;x=( '{TYPO}' )\n",
    })  # fmt: skip
    return tmp_path


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def lint(project):
    """What the commands of `make lint` say that read the book; nothing where all is well."""
    make = ["make", "--dry-run", "--no-print-directory", "--old-file=setup", "lint"]
    told = subprocess.run(
        [*make, f'RUN="{sys.executable}"'],
        env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"},
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = [
        line for line in told.splitlines() if "mypy" not in line and "jactionlint" not in line
    ]
    assert len(commands) == 4
    runs = [
        subprocess.run(c, shell=True, cwd=project, capture_output=True, text=True, check=False)
        for c in commands
    ]
    return [run.stdout + run.stderr for run in runs if run.returncode]


def test_an_environment_among_the_pages_is_not_read(project):
    assert lint(project) == []


@pytest.mark.parametrize("page", ["book/new.md", "book/part/one.md"])
def test_pages_are_read_where_they_are_listed_or_new(project, page):
    write(project, {page: CHAPTER.replace("x = 1", f"x=1  # {TYPO}")})
    cells, spelling = lint(project)
    assert f"{page}: would be reformatted" in cells
    assert f"{page}:4: {TYPO} ==> the" in spelling


def test_an_extension_of_the_site_is_read(project):
    write(project, {"src/bookkit/sphinx/extension.py": "import os\nx=1\n"})
    rules, form = lint(project)
    assert "F401" in rules and "would be reformatted" in form
