"""Docstrings are read from files, split by file, and the same on every call."""

import sys

import pytest

from saebook.language import read_docstrings


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of forty modules, each with two docstrings, one of which all modules share."""
    root = tmp_path / "paper"
    root.mkdir()
    (root / "__init__.py").write_text('"""' + "The package itself. " * 20 + '"""\n')
    for i in range(40):
        text = f'"""Module {i} explains itself at length. {"word " * 60}"""\n'
        shared = '    """' + "The same in every module. " * 12 + '"""\n'
        (root / f"m{i}.py").write_text(f"{text}\nclass Thing:\n{shared}\n\ndef short():\n    'x'\n")
    (root / "broken.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "paper"
    sys.modules.pop("paper", None)


def test_a_document_starts_with_the_dotted_name_of_what_it_documents(package):
    documents = read_docstrings("train", packages=[package])
    names = {document.split("\n\n")[0] for document in documents}
    assert names <= {"paper", *(f"paper.m{i}" for i in range(40)), "paper.m0.Thing"} | {
        name for name in names if name.endswith(".Thing")
    }
    assert any(document.startswith("paper.m7\n\nModule 7 explains") for document in documents)


def test_short_and_repeated_docstrings_are_left_out(package):
    documents = read_docstrings("train", packages=[package])
    assert sum("The same in every module" in document for document in documents) == 1
    assert not any("short" in document for document in documents)


def test_the_splits_share_no_file_and_cover_all(package):
    train = read_docstrings("train", packages=[package])
    held_out = read_docstrings("held-out", packages=[package])
    modules = [{d.split("\n\n")[0].removesuffix(".Thing") for d in s} for s in (train, held_out)]
    assert not modules[0] & modules[1]
    assert {f"paper.m{i}" for i in range(40)} <= modules[0] | modules[1]
    assert held_out


def test_a_share_of_the_files_is_a_part_of_the_whole(package):
    whole = set(read_docstrings("train", packages=[package]))
    half = read_docstrings("train", packages=[package], share=0.5)
    own = {d for d in half if "The same in every module" not in d}
    assert own < whole
    assert len(own) > 5


def test_two_calls_give_the_same_order(package):
    assert read_docstrings("train", packages=[package]) == read_docstrings(
        "train", packages=[package]
    )


def test_installed_packages_hold_documents_of_both_splits():
    for split in ("train", "held-out"):
        documents = read_docstrings(split, packages=["nltk"])
        assert len(documents) > 10
        assert all(document.startswith("nltk") for document in documents)


@pytest.mark.parametrize("bad", ["no_such_package_here", "not a name", "ast"])
def test_a_package_that_is_not_there_is_named(bad):
    with pytest.raises(ValueError, match=f"packages must name installed packages, got '{bad}'"):
        read_docstrings("train", packages=[bad])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "split must be one of"),
        ({"split": "train", "share": 0.0}, "share must be in"),
        ({"split": "train", "share": 1.5}, "share must be in"),
        ({"split": "train", "min_chars": 0}, "min_chars must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        read_docstrings(**arguments)
