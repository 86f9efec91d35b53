"""`python -m saebook` lists the rooms of the library, and imports nothing heavy for it."""

import os
import subprocess
import sys

import pytest

import saebook
from saebook.__main__ import rooms


def run(*arguments, code=None, **environment):
    command = ["-c", code] if code else ["-m", "saebook", *arguments]
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_help_lists_every_room_with_what_it_is_for():
    text = run("--help")
    assert "saebook.worlds " in text and "saebook._checks" not in text
    assert all(name in text and line.endswith(".") and line in text for name, line in rooms())


def test_no_arguments_are_taken_for_help():
    assert run() == run("--help")


def test_an_ascii_terminal_will_do():
    assert run("--help", PYTHONIOENCODING="ascii") == run("--help")


def test_the_version_is_told():
    assert run("--version") == f"saebook {saebook.__version__}\n"


def test_the_face_imports_nothing_until_a_name_is_used():
    code = "import sys, saebook; dir(saebook); print({'torch', 'sae_lens'} & set(sys.modules))"
    assert run(code=code) == "set()\n"


@pytest.mark.parametrize("name", [*saebook.__all__, "worlds", "plots", "training"])
def test_every_name_of_the_face_leads_somewhere(name):
    assert name in dir(saebook)
    assert getattr(saebook, name).__name__.endswith(name)


def test_another_name_is_told_to_be_missing():
    with pytest.raises(AttributeError, match="module 'saebook' has no attribute 'wordls'"):
        _ = saebook.wordls
