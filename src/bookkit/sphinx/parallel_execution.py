"""Execute the chapters several at once, before Sphinx reads them one after another.

Small SAEs keep one core busy, whatever the number of threads. So each chapter gets one thread, and
as many chapters run at a time as there are cores. Outputs go into the cache that MyST-NB looks into
when it reads a page; a chapter enters it only when it has run to its end, and wrote nothing to
stderr where that is a fault: kept, it would fail every later build, whatever was mended.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import joblib
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.execute import ExecutionError
from myst_nb.core.read import create_nb_reader
from sphinx.util import logging

from bookkit.sphinx.execution_cache import ChapterCache

LOGGER = logging.getLogger(__name__)

# A kernel inherits these. One thread: chapters share the cores, and sums are taken in one order on
# every machine. With the other two, glibc keeps the memory of a training step for the next one.
KERNEL_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}
# What Matplotlib and IPython keep in the reader's home, which may be read-only or hold settings of
# the reader's own. No other library writes there, and Hugging Face's downloads belong there.
KERNEL_FOLDERS = {"MPLCONFIGDIR": "matplotlib", "IPYTHONDIR": "ipython"}
RULE = "-" * 18


class StderrError(Exception):
    """A cell wrote to stderr: a library's warning or a progress bar."""


def jobs() -> int:
    """How many chapters run at a time: the setting JOBS, else one for each core.

    Raises:
        ValueError: JOBS is set and is not a positive whole number.
    """
    given = os.environ.get("JOBS") or str(joblib.cpu_count())
    if not given.isdigit() or int(given) < 1:
        raise ValueError(f"JOBS is {given!r}; expected a positive whole number")
    return int(given)


def _notebook(env, docname: str):
    """The page as a notebook, or None where it has no code to run."""
    path = env.doc2path(docname)
    reader = create_nb_reader(
        path, env.myst_config, env.mystnb_config, text := Path(path).read_text(encoding="utf-8")
    )
    notebook = reader and reader.read(text)
    has_code = notebook and any(cell.cell_type == "code" for cell in notebook.cells)
    return notebook if has_code else None


def _is_cached(cache, notebook) -> bool:
    try:
        return cache.match_cache_notebook(notebook) is not None
    except KeyError:
        return False


def slowest_first(names, slow) -> list[str]:
    """Names in the order in which they should start: those in `slow` as there, then the others."""
    places = {name: place for place, name in enumerate(slow)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def _missing(env, cache, docnames) -> dict:
    """The pages whose outputs are not cached, those named in `slow_chapters` first."""
    notebooks = {name: _notebook(env, name) for name in docnames}
    return {
        name: notebooks[name]
        for name in slowest_first(notebooks, env.config.slow_chapters)
        if notebooks[name] is not None and not _is_cached(cache, notebooks[name])
    }


def _only(env, missing: dict, chapter: str) -> dict:
    """What is left of `missing` for one chapter; MyST-NB leaves the others unexecuted."""
    others = [str(env.doc2path(name)) for name in missing if name != chapter]
    env.mystnb_config = dataclasses.replace(env.mystnb_config, execution_excludepatterns=others)
    return {name: notebook for name, notebook in missing.items() if name == chapter}


def _prepare(kernels: Path) -> None:
    """Set the variables that kernels inherit, and fill the folders that they share.

    A folder that the reader's own variable names stays. Matplotlib looks for fonts the first time,
    and warns on stderr where that takes long: better here than in a cell.
    """
    os.environ.update(KERNEL_SETTINGS)
    for name, folder in KERNEL_FOLDERS.items():
        if not os.environ.get(name):
            os.environ[name] = str(kernels / folder)
            (kernels / folder).mkdir(parents=True, exist_ok=True)
    find_fonts = [sys.executable, "-c", "import matplotlib.font_manager"]
    subprocess.run(find_fonts, capture_output=True, check=False)  # a chapter tells of a failure


def stderr_fault(notebook) -> StderrError | None:
    """The first cell that wrote to stderr and has no tag `remove-stderr`: place, code and text."""
    lines = notebook.metadata.get("source_map") or [0] * len(notebook.cells)
    for line, cell in zip(lines, notebook.cells, strict=True):
        written = [out.text for out in cell.get("outputs", ()) if out.get("name") == "stderr"]
        if written and "remove-stderr" not in cell.metadata.get("tags", ()):
            code = f"{RULE}\n{cell.source}\n{RULE}"
            return StderrError(f"The cell on line {line}:\n{code}\n\n{''.join(written).rstrip()}")
    return None


def _execute(app, env, docnames) -> None:
    cache = ChapterCache(app.config.nb_execution_cache_path)
    missing = _missing(env, cache, docnames)
    if chapter := os.environ.get("CHAPTER"):
        missing = _only(env, missing, chapter)
    if not missing:
        return
    _prepare(Path(app.srcdir) / "_build" / "kernels")
    may_write = env.mystnb_config.output_stderr in ("show", "remove")
    failures = {}
    with ThreadPoolExecutor(min(jobs(), len(missing))) as pool:
        execute = functools.partial(
            single_nb_execution,
            timeout=app.config.nb_execution_timeout,
            allow_errors=False,
            extra_arguments=["--log-level=ERROR"],  # it warns of unencrypted TCP, each time
        )
        runs = {
            pool.submit(execute, notebook, cwd=str(Path(env.doc2path(name)).parent)): name
            for name, notebook in missing.items()
        }
        for number, run in enumerate(as_completed(runs), start=1):
            name, result = runs[run], run.result()
            fault = result.err or (None if may_write else stderr_fault(result.nb))
            if fault:
                failures[name] = fault
            else:
                _keep(cache, env.doc2path(name), missing[name], result.time)
            ended = "failed after" if fault else "ran in"
            LOGGER.info(f"[{number}/{len(runs)}] {name} {ended} {result.time:.0f} s")
    for name, error in failures.items():
        raise ExecutionError(env.doc2path(name)) from error


def _keep(cache, path, notebook, seconds) -> None:
    bundle = CacheBundleIn(notebook, path, data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def setup(app):
    app.add_config_value("slow_chapters", [], "")
    app.connect("env-before-read-docs", _execute)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
