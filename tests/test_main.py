"""`python -m saebook` lists chapters, modules and commands, and imports nothing heavy for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import saebook
from saebook import __main__ as overview

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, cwd=ROOT, code=None, **environment):
    command = ["-c", code] if code else ["-m", "saebook", *arguments]
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def book(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "root: book/intro\nchapters:\n  - file: book/one\n  - file: book/gone\n  - file: index\n"
    )
    (tmp_path / "index.md").write_text("% No prose.\n\n# Index\n")
    (tmp_path / "Makefile").write_text("book: setup ## Build it\nhidden:\n\techo ## no\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# A book\n\nIt has 1.5 parts. And more.\n")
    (tmp_path / "book" / "one.md").write_text(
        "---\nx: y\n---\n\n(label)=\n# The first\n\n*You need:* this.\n\n"
        "```{code-cell}\nimport os\n```\n\n"
        "The book {doc}`intro` asks\n*what* {setting}`3` is?  No.\n\n# Another\n"
    )
    return tmp_path


def test_help_lists_the_chapters_the_modules_and_the_commands_of_the_checkout():
    text = run("--help")
    assert "Finding the true L0  (book/true_l0.md)" in text
    assert "saebook.worlds " in text and "saebook._checks" not in text
    assert "make test " in text


def test_no_arguments_are_taken_for_help():
    assert run() == run("--help")


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1"])
def test_a_terminal_that_lacks_letters_shows_marks_in_their_place(encoding):
    text = run("--help", PYTHONIOENCODING=encoding)
    whole = run("--help", PYTHONIOENCODING="utf-8")
    name = encoding.split(":")[0]
    assert text == whole.encode(name, "replace").decode(name)


def test_the_version_is_printed():
    assert run("--version") == f"saebook {saebook.__version__}\n"


def test_nothing_heavy_is_imported_for_help():
    code = (
        "import sys; from saebook import __main__; __main__.overview();"
        "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    assert run(code=code) == "set()\n"


def test_a_chapter_is_told_by_its_title_and_first_sentence(book):
    assert overview.chapters(book) == [
        ("book/intro.md", "A book", "It has 1.5 parts."),
        ("book/one.md", "The first", 'The book "A book" asks what 3 is?'),
    ]


def test_commands_are_the_targets_that_say_what_they_do(book):
    assert overview.commands(book) == [("book", "Build it")]


def test_every_chapter_of_the_book_has_a_sentence():
    told = {file for file, _, _ in overview.chapters(ROOT)}
    assert told >= {f"book/{file.name}" for file in ROOT.glob("book/*.md")} - {
        "book/bibliography.md"
    }


def test_every_module_says_what_it_is_for():
    assert all(text.endswith(".") for _, text in overview.modules())


def test_outside_of_the_repository_the_modules_and_where_the_chapters_are_is_told(tmp_path):
    shutil.copytree(
        ROOT / "src" / "saebook",
        tmp_path / "lib" / "site" / "saebook",
        ignore=shutil.ignore_patterns("data", "__pycache__"),
    )
    text = run("--help", cwd=tmp_path / "lib" / "site")
    assert overview.ELSEWHERE.split(":")[0] in text.replace("\n", " ")
    assert "saebook.worlds " in text
    assert "chapters:" not in text and "make " not in text
