"""An ensemble in shards: joblib tasks, each a stacked program that sees the same batches.

A task travels as bytes: its SAEs, and the batch source, the generator and the settings as they were
at the start. So every shard starts alike wherever it runs, a closure travels as well as a function
does, and Dask keeps no part of a task on a worker, where it could get lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

import cloudpickle
from joblib import Parallel, delayed
from sae_lens import TrainingSAE

from saebook._checks import check_positive_int
from saebook._running import one_thread, step_bar
from saebook.training.engine.run import Run, SampleBatch, split_evenly
from saebook.training.log import Row


def check_n_shards(n_shards: Any, n_saes: int) -> None:
    """Check that there is an SAE for every shard.

    Raises:
        ValueError, TypeError: if not.
    """
    if check_positive_int("n_shards", n_shards) > n_saes:
        raise ValueError(f"n_shards must be at most the number of SAEs, {n_saes}, got {n_shards}")


def train_shards(
    n_shards: int,
    saes: Sequence[TrainingSAE[Any]],
    sample_batch: SampleBatch,
    settings: dict[str, Any],
    saving: dict[str, Any],
    *,
    progress: bool,
) -> list[TrainingSAE[Any]]:
    """Train copies of the SAEs in `n_shards` joblib tasks; return them in the same order.

    Args:
        n_shards: number of tasks.
        saes: freshly initialised SAEs.
        sample_batch: as in `train_ensemble`.
        settings: keywords of `Run`; the generator and the log end as after a run of all SAEs.
        saving: keywords of `Run.train`. The end of each shard stays on file until all are done.
        progress: whether to show a bar over the shards.

    Raises:
        TypeError: if `sample_batch` cannot be pickled.
    """
    shared = _pickled(sample_batch, settings)
    each = [split_evenly(whole, n_shards) for whole in (saes, settings["seeds"], settings["lrs"])]
    files = _files(saving["path"], n_shards)
    tasks = [
        cloudpickle.dumps((group, {"seeds": seeds, "lrs": lrs}, saving | {"path": file}))
        for group, seeds, lrs, file in zip(*each, files, strict=True)
    ]
    done = Parallel(return_as="generator")(delayed(_train_shard)(shared, task) for task in tasks)
    bar = step_bar(range(n_shards), f"{len(saes)} SAEs", progress=progress, unit="shard")
    shards = [cloudpickle.loads(shard) for _, shard in zip(bar, done, strict=True)]
    settings["generator"].set_state(shards[0]["generator"])
    if settings["log"]:
        settings["log"].rows += _joined(shards)
    for file in files:
        if file:
            file.unlink(missing_ok=True)
    return [sae for shard in shards for sae in shard["saes"]]


def _train_shard(shared: bytes, task: bytes) -> bytes:
    """Train one shard, wherever this runs."""
    sample_batch, settings = cloudpickle.loads(shared)
    saes, own, saving = cloudpickle.loads(task)
    with one_thread():
        run = Run(saes, sample_batch, **settings | own)
        run.train(progress=False, keep_end=True, **saving)
    run.write_back()
    rows = run.log.rows if run.log else []
    state = run.generator.get_state()
    return cloudpickle.dumps({"saes": saes, "generator": state, "rows": rows})


def _pickled(sample_batch: SampleBatch, settings: dict[str, Any]) -> bytes:
    try:
        return cloudpickle.dumps((sample_batch, settings))
    except Exception as error:  # whatever its parts raise
        raise TypeError(
            f"sample_batch must be a function that can be pickled when n_shards > 1, "
            f"got {sample_batch!r}: {error}"
        ) from error


def _files(path: Path | None, n_shards: int) -> list[Path | None]:
    """A checkpoint file for each shard, beside the one that is named."""
    return [
        path and path.with_name(f"{path.stem}-{i + 1}-of-{n_shards}{path.suffix}").absolute()
        for i in range(n_shards)
    ]


def _joined(shards: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows of all shards as one run logs them: by step, then by the SAE's place in it."""
    starts = accumulate((len(shard["saes"]) for shard in shards), initial=0)
    rows = [
        row | {"sae": start + row["sae"]}
        for start, shard in zip(starts, shards, strict=False)
        for row in shard["rows"]
    ]
    return sorted(rows, key=itemgetter("step", "sae"))
