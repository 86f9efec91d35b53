"""Build the book with warnings as errors: `.venv/bin/python tools/build_book.py`.

With the name of a chapter, execute that chapter only and build a preview in `_build/chapter`, where
chapters that never ran have no outputs.

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
PREVIEW = ["build", ".", "--path-output", "_build/chapter"]


def choose(chapter):
    """Let only one chapter run.

    Raises:
        SystemExit: the book has no such chapter.
    """
    names = sorted(path.stem for path in (ROOT / "book").glob("*.md"))
    if chapter not in names:
        sys.exit(f"error: no chapter {chapter!r}. NAME is one of: {', '.join(names)}")
    os.environ["CHAPTER"] = f"book/{chapter}"


def isolate():
    """Start from the root, with this environment's kernels and packages only."""
    os.chdir(ROOT)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYTHONNOUSERSITE"] = "1"
    for name in ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND"):
        os.environ.pop(name, None)


def mark_unfinished():
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


def main(chapter=None):
    isolate()
    if chapter:
        choose(chapter)
    else:
        mark_unfinished()
    started = time.monotonic()
    from jupyter_book.cli.main import main as jupyter_book

    try:
        jupyter_book(PREVIEW if chapter else COMMAND, standalone_mode=False)
    except (Exception, SystemExit) as error:
        print(f"\nerror: {explain(error)}\n\n{ADVICE}", file=sys.stderr)
        return 1
    page = BUILD / "html" / "index.html"
    if chapter:
        page = BUILD / "chapter" / "_build" / "html" / "book" / f"{chapter}.html"
    else:
        UNFINISHED.unlink()
    print(f"Built in {time.monotonic() - started:.0f} s. Open: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
