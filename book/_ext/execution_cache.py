"""Key the cache of executed chapters by everything that a chapter's outputs depend on.

jupyter-cache compares code cells only: a change of the library would leave stale outputs in the
book. This extension keeps one cache for each state of the inputs. An unchanged rebuild executes
nothing, an edit of the library executes every chapter, and reverting the edit finds the earlier
cache again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.cache.db import NbCacheRecord

INPUTS = ("src/**/*.py", "src/saebook/data/**/*", "requirements.txt", "pyproject.toml")
SITE_PARTS = ("book/_static/**/*", "book/_templates/**/*", "book/_ext/*.py", "replications/*.csv")
SETTINGS = ("SAEBOOK_MODEL", "SAEBOOK_TEXT")  # which model and text the chapters read
KEPT = 5


def _digest(root: Path, patterns: tuple[str, ...], *others: str) -> str:
    digest = hashlib.sha256("\0".join(others).encode())
    files = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    for path in files:
        if "__pycache__" in path.parts or ".egg-info" in str(path):
            continue
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def inputs_digest(root: Path) -> str:
    """Hex digest of all input files under `root`, of the settings, and of Python's version."""
    settings = [os.environ.get(name, "") for name in SETTINGS]
    return _digest(root, INPUTS, platform.python_version(), *settings)


def site_digest(root: Path) -> str:
    """Hex digest of what makes pages of the chapters: styles, extensions, replications, …"""
    return _digest(root, SITE_PARTS)


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
    store = get_cache(cache)
    for record in store.list_cache_records():
        outputs = cache / "executed" / record.hashkey / "base.ipynb"
        try:
            json.loads(outputs.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(outputs.parent, ignore_errors=True)
            NbCacheRecord.remove_record(record.pk, store.db)


def _use_cache_of_inputs(app, config) -> None:
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
    app.add_config_value("execution_inputs_digest", "", "env")
    app.add_config_value("site_digest", "", "env")
    app.connect("config-inited", _use_cache_of_inputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
