"""Run the published notebooks as a reader would, and compare what they give with the book.

    python tools/run_notebooks.py [--keep FOLDER] [notebook …]

Copies `_build/html/notebooks` to a new folder outside the repository, makes a new environment there
and lets the notebooks' own first cell fill it. Then every notebook runs, several at a time. Each
output must be what the book's run of the same cell gave, to the last bit: glued numbers, claims and
their verdicts, tables, figures. Left out are stderr, progress bars, and what a clock says: the
outputs of cells with the tag `clock`, which glue nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml

from bookkit.sphinx.claims.ledger import MIME as CLAIM
from bookkit.sphinx.execution_cache import executed
from bookkit.sphinx.parallel_execution import KERNEL_SETTINGS, jobs, slowest_first
from setup_env import REQUIREMENTS, ROOT, environment

PUBLISHED = ROOT / "_build" / "html" / "notebooks"
HIDDEN = "application/papermill.record/"  # what glue puts before the kind of an undisplayed value
WIDGET = "application/vnd.jupyter.widget-view+json"
LONGEST = 160


class RunError(Exception):
    """A notebook or the environment failed; the text says how."""


def results(notebook):
    """What the book's own cells put out: a dictionary with a name for each, such as "glue 'x'"."""
    found = {}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own = [cell for cell in cells if "install" not in cell.metadata.get("tags", ())]
    for number, cell in enumerate(own, start=1):
        timed = "clock" in cell.metadata.get("tags", ())
        shown = [output for output in cell.outputs if not (timed or _is_noise(output))]
        for place, output in enumerate(shown, start=1):
            name, value = f"output {place} of code cell {number}", output.get("text")
            if output.output_type == "error":
                value = f"{output.ename}: {output.evalue}"
            if "data" in output:
                value = {kind.removeprefix(HIDDEN): part for kind, part in output.data.items()}
                name = _name(output, value) or name
            while name in found:  # glued a second time
                name += " again"
            found[name] = value
    return found


def _is_noise(output):
    """Whether an output is no result: stderr, or a progress bar, whose widget has a random name."""
    return output.get("name") == "stderr" or WIDGET in output.get("data", ())


def _name(output, value):
    glued = output.metadata.get("scrapbook", {}).get("name")
    if glued:
        return f"glue {glued!r}"
    return f"claim {value[CLAIM]['id']!r}" if CLAIM in value else None


def differences(book, run):
    """A sentence for each result of the book that the run does not give, and the other way."""
    faults = [f"{name}: in the book only" for name in book if name not in run]
    faults += [f"{name}: in the notebook only" for name in run if name not in book]
    for name in book.keys() & run.keys():
        faults += [f"{name}{part}" for part in _parts(book[name], run[name])]
    return sorted(faults)


def _parts(book, run):
    if isinstance(book, dict) and isinstance(run, dict):
        for key in sorted(book.keys() | run.keys()):
            rest = _parts(book.get(key), run.get(key))
            yield from (f", {key}{part}" for part in rest)
    elif book != run:
        yield f": {_shown(book)} in the book, {_shown(run)} in the notebook"


def _shown(value):
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def count(found, kind):
    return sum(name.startswith(f"{kind} ") for name in found)


def choose(names):
    """The notebooks to run, those that take longest first.

    Raises:
        RunError: there is no built site, or no such notebook.
    """
    published = sorted(path.stem for path in PUBLISHED.glob("*.ipynb"))
    if not published:
        raise RunError(f"no notebooks in {PUBLISHED}. Run `make book` first.")
    unknown = sorted(set(names) - set(published))
    if unknown:
        raise RunError(
            f"no notebook {', '.join(unknown)}; expected some of: {', '.join(published)}"
        )
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    slow = [Path(page).name for page in config["sphinx"]["config"]["slow_chapters"]]
    return slowest_first(names or published, slow)


def outside(folder):
    """The variables of a reader's shell: nothing that leads to the repository."""
    kept = {name: value for name, value in environment().items() if name != "MPLBACKEND"}
    own = {"JUPYTER_PREFER_ENV_PATH": "1", "IPYTHONDIR": str(folder / "ipython")}
    return kept | KERNEL_SETTINGS | own


def call(command, folder):
    """Run a command in a folder of the reader.

    Raises:
        RunError: it failed.
    """
    done = subprocess.run(
        command, cwd=folder, env=outside(folder), capture_output=True, text=True, check=False
    )
    if done.returncode:
        told = (done.stdout + done.stderr)[-4000:]
        raise RunError(f"{' '.join(map(str, command))[:200]}:\n{told}")
    return done.stdout


def prepare(folder, names):
    """Copy the notebooks, make an environment with a kernel, and run the first cell in it.

    Returns:
        The environment's Python.
    """
    shutil.copytree(PUBLISHED, folder, dirs_exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        call([sys.executable, "-m", "venv", "venv"], folder)
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        kernel = [line for line in lines if line.startswith("ipykernel==")]
        call([python, "-m", "pip", "install", "--quiet", *kernel], folder)
    first = nbformat.read(folder / f"{names[0]}.ipynb", as_version=4)
    cell = next(cell for cell in first.cells if "install" in cell.metadata.get("tags", ()))
    call([python, "-c", cell.source], folder)
    where = call([python, "-c", "import saebook; print(saebook.__file__)"], folder).strip()
    if not Path(where).is_relative_to(folder):
        raise RunError(f"saebook comes from {where}; expected it in {folder}")
    return python


def execute(python, folder, name):
    """Run a notebook in place and return the seconds it took."""
    started = time.monotonic()
    program = python.parent / "jupyter-execute"
    call([program, "--inplace", "--timeout=1200", "--kernel_name=python3", f"{name}.ipynb"], folder)
    return time.monotonic() - started


def of_book(name):
    """The book's own run of a page, from the cache of executed chapters.

    Raises:
        RunError: it is not there.
    """
    try:
        return executed(ROOT, ROOT / "book" / f"{name}.md")[0]
    except KeyError as error:
        raise RunError(f"the book has not run {name} in its present state: `make book`") from error


def run_all(folder, names):
    """Run notebooks, tell of each as it ends, and print a table; how many differ or fail."""
    started = time.monotonic()
    books = {name: results(of_book(name)) for name in names}  # first, so that a fault shows at once
    print(f"Installing what the notebooks need in {folder}", flush=True)
    python = prepare(folder, names)
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)
    rows, wrong = {}, 0
    with ThreadPoolExecutor(min(jobs(), len(names))) as pool:
        runs = {pool.submit(execute, python, folder, name): name for name in names}
        for number, run in enumerate(as_completed(runs), start=1):
            name = runs[run]
            try:
                seconds = run.result()
                found = results(nbformat.read(folder / f"{name}.ipynb", as_version=4))
                faults = differences(books[name], found)
            except RunError as error:
                found, faults, seconds = {}, [f"failed: {error}"], float("nan")
            rows[name] = (seconds, found, faults)
            wrong += bool(faults)
            print(f"[{number}/{len(runs)}] {name}: {seconds:.0f} s, differences: {len(faults)}")
            print("".join(f"  {name}: {fault}\n" for fault in faults), end="", flush=True)
    print(f"\n{'notebook':16} seconds  glued  claims  other  differences")
    for name in names:
        seconds, found, faults = rows[name]
        glued, claims = count(found, "glue"), count(found, "claim")
        rest = len(found) - glued - claims
        print(f"{name:16} {seconds:7.0f} {glued:6} {claims:7} {rest:6} {len(faults):12}")
    print(f"\nAll of it took {time.monotonic() - started:.0f} s.")
    return wrong


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="notebook", help="such as intro; default: all")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="work in this folder, and use it again next time",
    )
    options = parser.parse_args(arguments)
    try:
        names = choose(options.names)
        if options.keep:
            folder = options.keep.resolve()
            if folder.is_relative_to(ROOT):
                raise RunError(f"{folder} lies in the repository; expected a folder outside of it")
            wrong = run_all(folder, names)
        else:
            with tempfile.TemporaryDirectory(prefix="notebooks-") as made:
                wrong = run_all(Path(made).resolve(), names)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wrong:
        print(f"error: {wrong} of {len(names)} notebooks differ from the book", file=sys.stderr)
    return min(wrong, 1)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
