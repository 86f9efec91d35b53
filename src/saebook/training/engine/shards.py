"""An ensemble in shards: joblib tasks, each a stacked program that sees the same batches.

A task travels as bytes: its SAEs, and the batch source, the generator and the options as they were
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
import torch
from joblib import Parallel, delayed

from saebook._running import one_thread, step_bar
from saebook.training.engine.batches import SampleBatch
from saebook.training.engine.run import Part, Run, joined
from saebook.training.log import Row
from saebook.training.options import TrainingOptions


def train(
    part: Part,
    sample_batch: SampleBatch,
    options: TrainingOptions,
    generator: torch.Generator,
    *,
    keep_end: bool = False,
) -> None:
    """Train the SAEs of a part in `options.n_shards` tasks; they, generator and log advance.

    With `keep_end`, the checkpoints of the end stay on file.

    Raises:
        TypeError: if there are several tasks and `sample_batch` cannot be pickled.
    """
    files = checkpoints(options)
    if options.n_shards == 1:
        run = Run(part, sample_batch, options, generator)
        run.train(path=files[0], progress=options.progress, keep_end=keep_end)
        return
    shared = _pickled(sample_batch, (generator, options))
    shards = part.split(options.n_shards)
    tasks = [cloudpickle.dumps(task) for task in zip(shards, files, strict=True)]
    done = Parallel(return_as="generator")(delayed(_train_shard)(shared, task) for task in tasks)
    what = f"{len(part.saes)} SAEs"
    bar = step_bar(range(len(tasks)), what, progress=options.progress, unit="shard")
    ends = [cloudpickle.loads(end) for _, end in zip(bar, done, strict=True)]
    generator.set_state(ends[0][1])
    if options.log:
        options.log.rows += _by_step([(len(shard.saes), rows) for shard, _, rows in ends])
    part.saes[:] = [sae for shard, _, _ in ends for sae in shard.saes]
    part.memory = joined([shard.memory for shard, _, _ in ends])
    part.n_steps = ends[0][0].n_steps
    if not keep_end:
        remove(files)


def _train_shard(shared: bytes, task: bytes) -> bytes:
    """Train one shard, wherever this runs: the shard, the generator's state, the log's rows."""
    sample_batch, (generator, options) = cloudpickle.loads(shared)
    part, path = cloudpickle.loads(task)
    with one_thread():
        run = Run(part, sample_batch, options, generator)
        run.train(path=path, progress=False, keep_end=True)
    rows = options.log.rows if options.log else []
    return cloudpickle.dumps((part, generator.get_state(), rows))


def _pickled(sample_batch: SampleBatch, others: Any) -> bytes:
    try:
        return cloudpickle.dumps((sample_batch, others))
    except Exception as error:  # whatever its parts raise
        raise TypeError(
            f"sample_batch must be a function that can be pickled when n_shards > 1, "
            f"got {sample_batch!r}: {error}"
        ) from error


def checkpoints(options: TrainingOptions) -> list[Path | None]:
    """The file that is named; of several shards one each, beside it. None where none is."""
    if not options.checkpoint:
        return [None] * options.n_shards
    path, n = Path(options.checkpoint).absolute(), options.n_shards
    names = [f"{path.stem}-{i + 1}-of-{n}{path.suffix}" for i in range(n)]
    return [path] if n == 1 else [path.with_name(name) for name in names]


def remove(files: Sequence[Path | None]) -> None:
    """Remove checkpoints that are no longer needed."""
    for file in files:
        if file:
            file.unlink(missing_ok=True)


def _by_step(shards: Sequence[tuple[int, list[Row]]]) -> list[Row]:
    """The rows of all shards as one run logs them: by step, then by the SAE's place in it."""
    starts = accumulate((n_saes for n_saes, _ in shards), initial=0)
    rows = [
        row | {"sae": start + row["sae"]}
        for start, (_, own) in zip(starts, shards, strict=False)
        for row in own
    ]
    return sorted(rows, key=itemgetter("step", "sae"))
