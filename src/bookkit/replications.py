"""The table of replications: what each chapter found with other seeds and on other processors.

A *replication* executes a chapter with every seed shifted, in a named numerical environment, and
keeps every claim and every glued number. `make replicate` makes them; `replications/<chapter>.csv`
holds them, one file a chapter. The first column names a quantity, each further one is a run:

- rows `run/…` say what made it: the shift of the seeds, the environment, the processor, the digest
  of the code, the seconds, and the digest of all that the claims say (`run/said`);
- row `claim/<id>/asks` is the digest of what a claim is about: its code without words and bounds;
- rows `claim/<id>/<n>/…` are the n-th number of a claim: its value; over several seeds the ends of
  its interval and how many there were; and its bounds;
- row `claim/<id>/rest` is 1 if all parts of the claim held that are no numbers;
- row `claim/<id>/words`, for a claim without numbers, is a digest of the statement and of what it
  showed;
- rows `glue/<name>` are glued numbers;
- row `raised/<cell>` is the error of a cell that raised one.

A run with shift 0 is a chapter's *own draw*, which the book shows.

What a row says is *live* where it speaks of the present book. Where the code has not changed, all
of it does. Where it has, a quantity's replications are live if the own draw made with them agrees
with today's, to six digits, on the same processor: then the change has not moved this number. What
code is, `code_behind` says. Bounds are none of it: what held follows from a bound anew.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = "replications"
BOUNDS = ("/least", "/most")
PROMISED = 8  # live replications of every claim
OWN = 0  # the shift of a chapter's own draw
ROOM = 3.0  # standard deviations that a number should stay away from its bound
CLAIM = "application/vnd.bookkit.claim+json"
RUN = ("shift", "environment", "processor", "code", "seconds")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a chapter and what it found.

    Attributes:
        shift: added to every seed; 0 for the chapter's own draw.
        environment: the name of the numerical environment.
        processor: what computed it.
        code: digest of the code.
        seconds: how long it took.
        values: each quantity, as text.
    """

    shift: int
    environment: str
    processor: str
    code: str
    seconds: float
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[int, str, str, str]:
        """What two runs may not share in a table; own draws of each code stay, to judge by."""
        code = self.code if self.shift == OWN else ""
        return self.shift, self.environment, self.processor, code


# What a run found


def _text_of(value: float | str) -> str:
    """A number with six significant digits."""
    return f"{float(value):.6g}"


def of_claim(claim: Mapping) -> dict[str, str]:
    """The quantities of a claim's payload."""
    name = f"claim/{claim['id']}"
    found = {f"{name}/rest": str(int(claim["rest"]))}
    if not claim["findings"]:
        words = f"{claim['statement']}\0{claim['value']}"
        found[f"{name}/words"] = hashlib.sha256(words.encode()).hexdigest()[:8]
    for number, finding in enumerate(claim["findings"], start=1):
        several = ("low", "high", "n") if finding["n"] > 1 else ()
        for key in ("value", *several, "least", "most"):
            if finding[key] is not None:
                found[f"{name}/{number}/{key}"] = _text_of(finding[key])
    return found


def of_glue(name: str, text: str) -> dict[str, str]:
    """The quantity of a glued value, if it is a number."""
    try:
        return {f"glue/{name}": _text_of(text.strip("'\""))}
    except ValueError:
        return {}


def of_notebook(notebook: Any) -> dict[str, str]:
    """The quantities of an executed notebook; a cell that raised is one too."""
    found: dict[str, str] = {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if output.output_type == "error":
                found[f"raised/{number}"] = f"{output.ename}: {output.evalue}"[:200]
            elif CLAIM in data:
                found |= of_claim(data[CLAIM])
            elif name:
                text = next(
                    (part for kind, part in data.items() if kind.endswith("text/plain")), ""
                )
                found |= of_glue(name, text)
    return found


# What made it


def processor() -> str:
    """The processor and the instructions that PyTorch uses on it by itself."""
    import torch

    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8") if about.exists() else ""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", lines, re.MULTILINE))
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


# The table


def read(path: Path) -> list[Run]:
    """The runs of a chapter's table; none where there is no file.

    Raises:
        ValueError: the file is not such a table.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0][:1] != ["quantity"] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path.name} must be a table of replications, with equally long rows")
    columns = {row[0]: row[1:] for row in rows[1:]}
    if missing := [name for name in RUN if f"run/{name}" not in columns]:
        raise ValueError(f"{path.name} must have the rows run/{', run/'.join(missing)}")
    about = [columns.pop(f"run/{name}") for name in RUN]
    return [
        Run(
            shift=int(shift),
            environment=environment,
            processor=made_by,
            code=code,
            seconds=float(seconds),
            values={name: row[i] for name, row in columns.items() if row[i] != ""},
        )
        for i, (shift, environment, made_by, code, seconds) in enumerate(zip(*about, strict=True))
    ]


def write(path: Path, runs: Iterable[Run]) -> None:
    """Write a chapter's table, whole or not at all, in the order of shifts."""
    runs = sorted(runs, key=lambda run: run.key)
    names = sorted({name for run in runs for name in run.values})
    rows = [[f"run/{name}", *(getattr(run, name) for run in runs)] for name in RUN]
    rows += [[name, *(run.values.get(name, "") for run in runs)] for name in names]
    buffer = io.StringIO()
    header = ["quantity", *(f"{run.shift} {run.environment}" for run in runs)]
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(buffer.getvalue(), encoding="utf-8")
    os.replace(draft, path)


def with_run(runs: Iterable[Run], new: Run) -> list[Run]:
    """The runs with a new one, in the place of an earlier one of the same kind.

    Own draws of other code go when no replication of that code is left.
    """
    runs = [*(run for run in runs if run.key != new.key), new]
    codes = {new.code, *(run.code for run in runs if run.shift != OWN)}
    return [run for run in runs if run.code in codes]


def renewed(runs: list[Run], now: Run) -> list[Run]:
    """The runs, with today's code and bounds for those that today's own draw confirms wholly."""
    own = [run for run in runs if run.shift == OWN]
    found = [_with_code_of(now, r, runs) if _is_live(r, own, now) else r for r in runs]
    return with_run(found, now)


def _with_code_of(now: Run, run: Run, runs: list[Run]) -> Run:
    """A run as today's code would have left it: bounds that are constants are today's."""
    of_code = [other for other in runs if other.code == run.code and other.key != now.key]
    constant = {
        key: bound
        for key, bound in now.values.items()
        if key.endswith(BOUNDS) and _is_constant(key, of_code)
    }
    return dataclasses.replace(run, code=now.code, values={**run.values, **constant})


def _is_live(run: Run, own: list[Run], now: Run) -> bool:
    return run.shift != OWN and all(r.environments for r in records([*own, run], now).values())


# What it says of the present book


@dataclass(frozen=True, kw_only=True)
class Record:
    """What live replications say of a claim or of a glued number.

    Attributes:
        is_claim: whether it speaks of a claim.
        environments: of the live replications, one for each.
        held: for each live replication whether the claim held; empty for a glued number.
        values: for each number, what each of the live replications found that has it.
        room: distance of a number from its bound in standard deviations over the live replications,
            the least over the claim's numbers; infinite where nothing moves, or without a bound.
    """

    is_claim: bool
    environments: tuple[str, ...] = ()
    held: tuple[bool, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    room: float = math.inf

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """For each number, its least and its largest value."""
        return tuple((min(each), max(each)) for each in self.values)


def records(runs: list[Run], now: Run) -> dict[str, Record]:
    """What live replications say of each claim and glued number of today's own draw.

    Keys are "claim/<id>" and "glue/<name>".
    """
    replications = [run for run in runs if run.shift != OWN]
    own_draws = [run for run in runs if run.shift == OWN and run.processor == now.processor]
    names = dict.fromkeys("/".join(key.split("/")[:2]) for key in now.values)
    found = {}
    for name in names:
        if name.startswith(("claim/", "glue/")):
            same = {
                now.code,
                *(r.code for r in own_draws if _results(r, name) == _results(now, name)),
            }
            asks = f"{name}/asks"
            asked = [run for run in replications if run.values.get(asks) == now.values.get(asks)]
            live = [run for run in asked if run.code in same]
            earlier = [run for run in own_draws if run.key != now.key]
            bounds = _constant_bounds(name, [*live, *earlier], now)
            found[name] = _record(name, live, now, bounds)
    return found


def _rows(run: Run, name: str) -> dict[str, str]:
    """What a run found for a claim or a glued number."""
    return {k: v for k, v in run.values.items() if k == name or k.startswith(f"{name}/")}


def _results(run: Run, name: str) -> dict[str, str]:
    """The same without the bounds, which a writer may move: what held follows from them anew."""
    rows = _rows(run, name)
    return {key: value for key, value in rows.items() if not key.endswith(BOUNDS)}


def _record(name: str, live: list[Run], now: Run, bounds: Mapping[str, str]) -> Record:
    """What live replications say, by the bounds that the claim sets today."""
    numbers = sorted({key.rpartition("/")[0] for key in _rows(now, name) if key.endswith("/value")})
    found = [{**_rows(run, name), **bounds} for run in live]
    held = [
        rows.get(f"{name}/rest") == "1" and all(_room(rows, number) >= 0 for number in numbers)
        for rows in found
    ]
    rooms = [[_room(rows, number, ends=False) for rows in found] for number in numbers]
    keys = [f"{number}/value" for number in numbers] or [name]
    values = [tuple(float(rows[key]) for rows in found if key in rows) for key in keys]
    is_claim = name.startswith("claim/")
    return Record(
        is_claim=is_claim,
        environments=tuple(run.environment for run in live),
        held=tuple(held) if is_claim else (),
        values=tuple(each for each in values if each),
        room=min(map(_in_deviations, rooms), default=math.inf),
    )


def _constant_bounds(name: str, runs: list[Run], now: Run) -> dict[str, str]:
    """Today's bounds that are constants: equal in all earlier runs of the same code."""
    bounds = {k: v for k, v in _rows(now, name).items() if k.endswith(BOUNDS)}
    of_code = [[r for r in runs if r.code == code] for code in {run.code for run in runs}]
    return {
        k: bound for k, bound in bounds.items() if all(_is_constant(k, each) for each in of_code)
    }


def _is_constant(key: str, runs: Iterable[Run]) -> bool:
    """Whether all runs that have a quantity found the same."""
    return len({run.values[key] for run in runs if key in run.values}) < 2


def _room(rows: Mapping[str, str], number: str, *, ends: bool = True) -> float:
    """Distance of a number from its nearer bound; minus infinity if it is not there.

    With `ends`, of its interval, which must keep the bound for the claim to hold.
    """
    value = float(rows.get(f"{number}/value", math.nan))
    low, high = (float(rows.get(f"{number}/{e}", value)) for e in ("low", "high"))
    low, high = (low, high) if ends else (value, value)
    below = low - float(rows.get(f"{number}/least", -math.inf))
    above = float(rows.get(f"{number}/most", math.inf)) - high
    return -math.inf if math.isnan(below) or math.isnan(above) else min(below, above)


def _in_deviations(rooms: list[float]) -> float:
    """Mean over standard deviation; infinite for fewer than two, or where nothing moves."""
    finite = [room for room in rooms if math.isfinite(room)]
    deviation = statistics.stdev(finite) if len(finite) > 1 else 0
    return statistics.mean(finite) / deviation if deviation else math.inf
