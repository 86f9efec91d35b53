"""Execute chapters with other seeds and as on other processors, and keep what they found.

    python tools/replicate.py [--runs N] [--first I] [--table FOLDER] [--environment NAME …]
                              [chapter …]
    python tools/replicate.py --check [--complete] [--table FOLDER] [chapter …]

A replication executes a chapter with every seed shifted (`shift_seeds.py`), in a numerical
environment. Replication i adds i times 10,000 to each seed; the environments take turns. What is
found goes into the table in `replications/` as soon as a chapter ends, so that an interrupted
command goes on where it was. `bookkit.replications` documents the table, and tells which
replications are live: those are not made again.

A claim that fell and was changed needs seeds that it was not changed by. `--first I` makes
replications I to I + N - 1; those that served to set its bounds go out of the table, or it takes a
new name.

With `--check`, nothing is executed: report how many live replications each claim of the built book
has, and fail if one fell in any of them; with `--complete` also if one has fewer than promised.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import jupytext
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

from bookkit import replications as table
from bookkit.code_behind import code_digest, said_and_asked
from bookkit.replications import OWN, PROMISED, ROOM, Run
from bookkit.sphinx.execution_cache import executed
from bookkit.sphinx.parallel_execution import KERNEL_SETTINGS, jobs, slowest_first
from build_book import ROOT, isolate

SHIFT = 10_000
# How a kernel computes. The second and third stand for older processors; the fourth sums in another
# order. COMPATIBLE differs most and can be ten times slower: for the short chapters, by its name.
ENVIRONMENTS = {
    "machine": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NUMBA_CPU_NAME": "generic",
    },
    "threads": {"OMP_NUM_THREADS": "2"},
    "compatible": {"MKL_CBWR": "COMPATIBLE"},
}
IN_TURN = ("machine", "avx2", "default", "threads")
NUMERICAL = {name for settings in ENVIRONMENTS.values() for name in settings}
TIMEOUT = 7200  # seconds a cell; COMPATIBLE is slow
SEED_FILE = Path(__file__).with_name("shift_seeds.py")


class ReplicationError(Exception):
    """Replications cannot be made or read; the text says why."""


@dataclass(frozen=True)
class Job:
    """One execution to do."""

    chapter: str
    shift: int
    environment: str

    def __str__(self):
        return f"{self.chapter} {self.shift} {self.environment}"


def chapters(names):
    """The chapters to replicate: pages in `book/` with code.

    Raises:
        ReplicationError: no such chapter.
    """
    pages = sorted((ROOT / "book").glob("*.md"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    known = [
        page.stem
        for page in pages
        if "{code-cell}" in page.read_text(encoding="utf-8")
        and f"book/{page.stem}" not in config["pages_without_notebook"]
    ]
    if unknown := sorted(set(names) - set(known)):
        raise ReplicationError(
            f"no chapter {', '.join(unknown)}. NAME must be one of: {', '.join(known)}"
        )
    slow = [Path(page).name for page in config["slow_chapters"]]
    return slowest_first(names or known, slow)


def plan(chapter, runs, environments, first=1):
    """The replications of a chapter, from a first one on, the environments in turn."""
    turns = [environments[i % len(environments)] for i in range(runs)]
    return [Job(chapter, SHIFT * i, turn) for i, turn in enumerate(turns, start=first)]


def page_of(chapter):
    return ROOT / "book" / f"{chapter}.md"


def execute(job):
    """Execute a chapter in a kernel of its own, past false claims and failing cells."""
    code, said = made_from(job.chapter)  # as it starts: a writer may go on
    notebook = jupytext.read(page_of(job.chapter))
    with tempfile.TemporaryDirectory(prefix="replication-", ignore_cleanup_errors=True) as folder:
        startup = Path(folder, "profile_default", "startup")
        startup.mkdir(parents=True)
        shutil.copy(SEED_FILE, startup)
        kept = {name: value for name, value in os.environ.items() if name not in NUMERICAL}
        own = {"SEED_SHIFT": str(job.shift), "IPYTHONDIR": folder}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(ROOT / "book")}},
            extra_arguments=["--log-level=ERROR"],  # it warns of unencrypted TCP, each time
        )
        started = time.monotonic()
        client.execute(env=kept | KERNEL_SETTINGS | ENVIRONMENTS[job.environment] | own)
    return run_of(job, notebook, time.monotonic() - started, code, said)


def made_from(chapter):
    """The digest of a chapter's code, and the quantities that tell what its claims say and ask."""
    return code_digest(ROOT, page_of(chapter)), said_and_asked(page_of(chapter))


def run_of(job, notebook, seconds, code, said):
    """What an executed notebook found, and what made it."""
    return Run(
        shift=job.shift,
        environment=job.environment,
        processor=table.processor(),
        code=code,
        seconds=round(seconds),
        values=table.of_notebook(notebook) | said,
    )


def from_build(chapter):
    """The chapter's own draw from the last `make book`, or None where the chapter has changed."""
    try:
        notebook, seconds = executed(ROOT, page_of(chapter))
    except KeyError:
        return None
    return run_of(Job(chapter, OWN, "machine"), notebook, seconds, *made_from(chapter))


class Bench:
    """The tables of some chapters, and what is still to do."""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names
        self.runs = {name: table.read(self.path(name)) for name in names}
        self.own = {name: self._own(name) for name in names}

    def path(self, name):
        return self.folder / f"{name}.csv"

    def _own(self, name):
        """Today's own draw, as far as it is known: from the table, else from the last build."""
        (code, said), made_by = made_from(name), table.processor()
        same = [r for r in self.runs[name] if r.key == (OWN, "machine", made_by, code)]
        return same[0] if same and said.items() <= same[0].values.items() else from_build(name)

    def keep(self, name, run):
        """Put a run into the table."""
        if run.shift == OWN:
            self.own[name] = run
        self.runs[name] = table.with_run(self.runs[name], run)
        table.write(self.path(name), self.runs[name])

    def renew(self, name):
        """Mark the replications that today's own draw confirms, and keep that draw with them."""
        if self.runs[name]:
            self.runs[name] = table.renewed(self.runs[name], self.own[name])
            table.write(self.path(name), self.runs[name])

    def to_do(self, runs, environments, first=1):
        """The replications that are not there for today's code."""
        jobs = [job for name in self.names for job in plan(name, runs, environments, first)]
        jobs.sort(key=lambda job: job.shift)  # so that all chapters have about as many
        return [job for job in jobs if not self._has(job)]

    def _has(self, job):
        own = self.own[job.chapter]
        wanted = (job.shift, job.environment, own.processor, own.code)
        runs = self.runs[job.chapter]
        return any((r.shift, r.environment, r.processor, r.code) == wanted for r in runs)


def run_all(bench, todo, title):
    """Execute jobs side by side and keep what each found as it ends; how many failed in part."""
    faulty = 0
    with tqdm(total=len(todo), desc=title, unit="run", disable=None) as bar:
        for workers, batch in shared_out(todo):
            pool = ThreadPoolExecutor(workers)
            waiting = {pool.submit(execute, job): job for job in batch}
            try:
                for done in as_completed(waiting):
                    told, faults = kept(bench, waiting[done], done)
                    faulty += bool(faults)
                    bar.update()
                    bar.write("\n  ".join([told, *faults]))
            finally:  # an interruption does not wait for what still runs
                pool.shutdown(wait=False, cancel_futures=True)
    return faulty


def kept(bench, job, done):
    """Put what a job found into its table; a line about it, and its faults."""
    try:
        run = done.result()
    except (DeadKernelError, CellTimeoutError, OSError) as error:
        return f"{job}: failed", [f"{type(error).__name__}: {error}"]
    bench.keep(job.chapter, run)
    faults = [text for name, text in run.values.items() if name.startswith("raised/")]
    return f"{job}: {run.seconds:.0f} s", faults


def shared_out(todo):
    """Jobs with the number that may run at a time: one a core, and half where two threads run."""
    wide = [job for job in todo if job.environment == "threads"]
    narrow = [job for job in todo if job.environment != "threads"]
    parts = ((jobs(), narrow), (max(1, jobs() // 2), wide))
    return [(workers, batch) for workers, batch in parts if batch]


def replicate(folder, names, runs, environments, first=1):
    """Make the replications that are missing; 1 if some failed in part, else 0."""
    bench = Bench(folder, names)
    unknown = [Job(name, OWN, "machine") for name in names if bench.own[name] is None]
    faulty = run_all(bench, unknown, "own draws") if unknown else 0
    for name in names:
        bench.renew(name)
    todo = bench.to_do(runs, environments, first)
    for name in {job.chapter for job in todo}:
        bench.keep(name, bench.own[name])  # by which later changes are judged
    faulty += run_all(bench, todo, "replications") if todo else 0
    print(report(judge(bench)))
    return min(faulty, 1)


@dataclass
class Judgement:
    """What the tables say of the claims of today's own draws, each by its chapter and id."""

    rooms: list  # (distance in standard deviations, claim)
    fell: list  # (claim, held in how many, of how many)
    few: list  # claims with fewer live replications than promised
    unknown: list  # chapters whose own draw is not known here


def judge(bench):
    known = [name for name in bench.names if bench.own[name]]
    found = [
        (f"{name} {key.removeprefix('claim/')}", record)
        for name in known
        for key, record in table.records(bench.runs[name], bench.own[name]).items()
        if record.is_claim
    ]
    return Judgement(
        rooms=sorted((record.room, claim) for claim, record in found),
        fell=[(c, sum(r.held), len(r.held)) for c, r in found if not all(r.held)],
        few=[claim for claim, record in found if len(record.held) < PROMISED],
        unknown=[name for name in bench.names if name not in known],
    )


def report(judgement, *, smallest=10):
    """A judgement as text."""
    j = judgement
    lines = [f"{name}: own draw not known. Run `make book`." for name in j.unknown]
    lines += [f"{len(j.rooms)} claims, {len(j.fell)} of them fell in a live replication"]
    lines += [f"{len(j.few)} have fewer live replications than the {PROMISED} promised"]
    lines += [
        f"{sum(room < ROOM for room, _ in j.rooms)} are closer than {ROOM:g} standard deviations"
    ]
    lines += ["the closest, in standard deviations over their live replications:"]
    lines += [f"  {room:6.1f}  {claim}" for room, claim in j.rooms[:smallest]]
    lines += [f"FELL: {claim} held in {held} of {n}" for claim, held, n in j.fell]
    return "\n".join(lines)


def check(folder, names, *, complete):
    """Report; 1 if a claim fell in a live replication, or if one has too few and that counts."""
    judgement = judge(Bench(folder, names))
    print(report(judgement))
    return int(bool(judgement.fell or (complete and (judgement.few or judgement.unknown))))


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="chapter", help="such as intro; default: all")
    parser.add_argument("--runs", type=positive, default=PROMISED, help="replications a chapter")
    parser.add_argument("--first", type=positive, default=1, help="number of the first of them")
    parser.add_argument("--table", type=Path, default=ROOT / table.FOLDER, metavar="FOLDER")
    parser.add_argument("--environment", nargs="+", choices=ENVIRONMENTS, default=IN_TURN)
    parser.add_argument("--check", action="store_true", help="execute nothing, report and judge")
    parser.add_argument("--complete", action="store_true", help="with --check: too few fail too")
    options = parser.parse_args(arguments)
    isolate()
    try:
        names, folder = chapters(options.names), options.table.resolve()
        if options.check:
            return check(folder, names, complete=options.complete)
        return replicate(folder, names, options.runs, options.environment, options.first)
    except (ReplicationError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. What had ended is kept; the same command goes on.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # the kernels end when they have lost their parent


if __name__ == "__main__":
    sys.exit(main())
