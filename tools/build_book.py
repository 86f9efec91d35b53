"""Build the book with warnings as errors: `.venv/bin/python tools/build_book.py`.

Sphinx repeats a page's warnings only when it reads the page again, so an identical second run of a
failed build would pass. A marker tells an unfinished build: the next one reads every page again.
The outputs of chapters that ran stay cached.
"""

import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
UNFINISHED = BUILD / "unfinished"
ADVICE = (
    "Mend the chapter or the library and run the same command again: only what changed runs anew."
)
COMMAND = ["build", ".", "-W", "--keep-going", "-n"]


def prepare():
    """Start from the root, with this environment's kernels and packages only."""
    os.chdir(ROOT)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYTHONNOUSERSITE"] = "1"
    for name in ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND"):
        os.environ.pop(name, None)
    if UNFINISHED.exists():
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    UNFINISHED.touch()


def causes(error):
    """The error and what led to it, the first cause first."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return reversed(chain)


def explain(error):
    """A failed cell in a few lines; Sphinx and Jupyter Book have told of other faults already."""
    told = {type(cause).__name__: str(cause).strip() for cause in causes(error)}
    chapter = told.get("ExecutionError", "a chapter")
    for kind, verb in {"CellExecutionError": "failed", "CellTimeoutError": "took too long"}.items():
        if kind in told:
            return f"a cell of {chapter} {verb}.\n\n{told[kind]}"
    return "the book was not built: its warnings and errors, all of them faults, are above."


def main():
    prepare()
    started = time.monotonic()
    from jupyter_book.cli.main import main as jupyter_book

    try:
        jupyter_book(COMMAND, standalone_mode=False)
    except (Exception, SystemExit) as error:
        print(f"\nerror: {explain(error)}\n\n{ADVICE}", file=sys.stderr)
        return 1
    UNFINISHED.unlink()
    seconds = time.monotonic() - started
    print(f"Built in {seconds:.0f} s. Open: {BUILD / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
