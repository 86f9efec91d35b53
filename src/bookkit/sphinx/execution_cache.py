"""Key the cache of executed chapters by everything that a chapter's outputs depend on.

jupyter-cache compares code cells only: a change of the library would leave stale outputs in the
book. This extension keeps one cache for each state of the inputs. An unchanged rebuild executes
nothing, and so does an edit of comments and docstrings; any other edit of the library executes
every chapter, and reverting it finds the earlier cache again. Within a cache, code and the tags
that matter to it find a chapter's outputs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import shutil
from fnmatch import fnmatch
from pathlib import Path

import jupytext
import myst_nb.core.execute.cache
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.cache.main import JupyterCacheBase

from bookkit.code_behind import meaning

INPUTS = ("src/saebook/**/*", "src/bookkit/*", "requirements.txt", "pyproject.toml")
SITE_PARTS = ("book/_static/**/*", "book/_templates/**/*", "src/bookkit/*/**/*")
SITE_PARTS += ("replications/*.csv",)
SETTINGS = ("SAEBOOK_MODEL", "SAEBOOK_TEXT")  # which model and text the chapters read
# What systems, editors, git and Python leave beside the files that somebody wrote.
LITTER = (".*", "*~", "#*#", "*.bak", "*.orig", "*.rej", "*.pyc", "__pycache__", "*.egg-info")
LITTER += ("Thumbs.db", "desktop.ini")
# The first two decide what runs, the third whether text on stderr is a fault.
TAGS_OF_OUTPUTS = {"raises-exception", "skip-execution", "remove-stderr"}
KEPT = 5


def _files(root: Path, *patterns: str) -> dict[str, Path]:
    """The files under `root` that fit a pattern and are no litter, by their sorted names."""
    found = {path.relative_to(root): path for pattern in patterns for path in root.glob(pattern)}
    return {
        name.as_posix(): path
        for name, path in sorted(found.items())
        if path.is_file() and not any(fnmatch(part, p) for part in name.parts for p in LITTER)
    }


def _content(path: Path) -> str:
    if path.suffix == ".py":
        return hashlib.sha256(meaning(path)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: dict[str, Path], *others: str) -> str:
    digest = hashlib.sha256("\0".join(others).encode())
    for name, path in files.items():
        digest.update(f"\0{name}\0{_content(path)}".encode())
    return digest.hexdigest()[:16]


def place_of(root: Path, setting: str) -> Path | None:
    """The folder or file that a setting names, from `root` on, or None where it names neither."""
    given = os.environ.get(setting)
    place = Path(os.path.abspath(root / given)) if given else None
    return place if place and place.exists() else None


def _meaning(root: Path, setting: str) -> str:
    """A setting's text; of a folder or file its content too. A name on a hub stands for itself.

    All of the content is read, about a second for each gigabyte: names, sizes and times of files do
    not tell a model that was trained anew.
    """
    place = place_of(root, setting)
    if place is None:
        return os.environ.get(setting, "")
    files = _files(place, "**/*") if place.is_dir() else {place.name: place}
    return f"{place} {_digest(files)}"


def inputs_digest(root: Path) -> str:
    """Hex digest of all input files under `root`, of the settings, and of Python's version."""
    settings = [_meaning(root, setting) for setting in SETTINGS]
    return _digest(_files(root, *INPUTS), platform.python_version(), *settings)


def site_digest(root: Path) -> str:
    """Hex digest of what makes pages of the chapters: styles, extensions, replications, …"""
    return _digest(_files(root, *SITE_PARTS))


class ChapterCache(JupyterCacheBase):
    """Finds a chapter's outputs by its code and the tags that change them.

    jupyter-cache compares all that is set for a cell, such as whether the page folds it.
    """

    def create_hashed_notebook(self, nb, *arguments, **options):
        """The notebook's cells as they are stored, and their key."""
        stored, _ = super().create_hashed_notebook(nb, *arguments, **options)
        plain = copy.deepcopy(stored)
        for cell in plain.cells:
            cell.metadata = {
                "tags": sorted(TAGS_OF_OUTPUTS.intersection(cell.metadata.get("tags", ())))
            }
        return stored, super().create_hashed_notebook(plain)[1]

    def merge_match_into_notebook(self, nb, *arguments, **options):
        """The record and the notebook with its stored outputs; metadata is the notebook's own."""
        return super().merge_match_into_notebook(nb, *arguments, **{"cell_meta": (), **options})


def executed(root: Path, page: Path):
    """A page's notebook as its book ran it, and the seconds that this took.

    Raises:
        KeyError: the page has not run in its present state.
    """
    cache = ChapterCache(root / "_build" / ".jupyter_cache" / inputs_digest(root))
    record = cache.match_cache_notebook(jupytext.read(page))
    return cache.get_cache_bundle(record.pk).nb, (record.data or {}).get("execution_seconds", 0)


def prune(caches: Path, *, keep: int = KEPT) -> None:
    """Remove all but the `keep` most recently used caches."""
    folders = sorted(
        (p for p in caches.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True
    )
    for folder in folders[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def drop_torn(cache: Path) -> None:
    """Forget chapters whose outputs were not wholly written when a build was killed.

    jupyter-cache records a chapter before it writes the file, and would fail on it ever after.
    """
    store = ChapterCache(cache)
    for record in store.list_cache_records():
        outputs = cache / "executed" / record.hashkey / "base.ipynb"
        try:
            json.loads(outputs.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(outputs.parent, ignore_errors=True)
            NbCacheRecord.remove_record(record.pk, store.db)


def _fix_places(root: Path) -> None:
    """Make settings that name a folder absolute: a chapter runs in a folder of its own."""
    for setting in SETTINGS:
        if place := place_of(root, setting):
            os.environ[setting] = str(place)


def _use_cache_of_inputs(app, config) -> None:
    _fix_places(Path(app.srcdir))
    config.execution_inputs_digest = inputs_digest(Path(app.srcdir))
    config.site_digest = site_digest(Path(app.srcdir))  # Sphinx watches pages only
    caches = Path(app.srcdir) / "_build" / ".jupyter_cache"
    cache = caches / config.execution_inputs_digest
    cache.mkdir(parents=True, exist_ok=True)
    cache.touch()
    prune(caches)
    drop_torn(cache)
    config.nb_execution_cache_path = str(cache)


def setup(app):
    myst_nb.core.execute.cache.get_cache = ChapterCache  # no setting chooses the class
    app.add_config_value("execution_inputs_digest", "", "env")
    app.add_config_value("site_digest", "", "env")
    app.connect("config-inited", _use_cache_of_inputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
