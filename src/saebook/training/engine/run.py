"""The training loop of an ensemble: groups of SAEs side by side on the cores, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
from sae_lens import TrainingSAE
from torch import Tensor

from saebook import _checkpoints
from saebook._running import InTurn, one_thread, step_bar
from saebook.training.engine.batches import Batches, SampleBatch, checked_batch
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.stack import Stack
from saebook.training.engine.steps import sparse_pays, train_step
from saebook.training.log import Row, TrainingLog, training_rows
from saebook.training.options import TrainingOptions
from saebook.training.resampling import resample

T = TypeVar("T")

BYTES_PER_WORKER = 2**20  # with less scratch than this, a second worker costs more than it saves
WORKSPACE = {"cpu": 2**26, "cuda": 2**30}  # bytes of scratch: what caches like, or a GPU
MOST_AHEAD, BYTES_AHEAD = 16, 2**22  # batches that one worker may be ahead of another
SAVE_EVERY = 1000  # steps between two checkpoints


@dataclasses.dataclass(kw_only=True)
class Part:
    """SAEs that train together, and what training remembers of them.

    Attributes:
        saes: sae-lens training SAEs.
        seeds: one an SAE.
        lrs: the rate of every step, for each SAE.
        memory: Adam's moments and how long latents have been silent, see `Stack.memory`; none
            before the first step.
        n_steps: steps taken before.
    """

    saes: list[TrainingSAE[Any]]
    seeds: list[int]
    lrs: list[list[float]]
    memory: dict[str, Tensor]
    n_steps: int

    def split(self, n: int) -> list[Part]:
        """The same in `n` parts of about equal size."""
        sizes = [len(each) for each in split_evenly(self.saes, n)]
        memories = [
            dict(zip(self.memory, tensors, strict=True))
            for tensors in zip(*(t.split(sizes) for t in self.memory.values()), strict=True)
        ] or [{}] * n
        lists = (split_evenly(each, n) for each in (self.saes, self.seeds, self.lrs))
        return [
            Part(saes=saes, seeds=seeds, lrs=lrs, memory=memory, n_steps=self.n_steps)
            for saes, seeds, lrs, memory in zip(*lists, memories, strict=True)
        ]


class Run:
    """The loop over the steps: stacks side by side on the CPU's cores, progress, checkpoints."""

    def __init__(
        self,
        part: Part,
        sample_batch: SampleBatch,
        options: TrainingOptions,
        generator: torch.Generator,
    ) -> None:
        self.part, self.options = part, options
        self.sample_batch, self.generator = sample_batch, generator
        device = torch.device(options.device)
        self.n_workers, n_groups, self.is_large = self._plan(device)
        self.groups = part.split(n_groups)
        self.stacks = [
            Stack(group.saes, device=device, dead_feature_window=options.dead_feature_window)
            for group in self.groups
        ]
        for stack, group in zip(self.stacks, self.groups, strict=True):
            stack.recall(group.memory, group.n_steps)
        self.like = self.stacks[0].weights["W_dec"]
        most, sizes = max(map(len, self._saes())), self._sizes()
        self.scratches = [Scratch(self.like, most, **sizes) for _ in range(self.n_workers)]

    def _sizes(self) -> dict[str, Any]:
        return {"batch": self.options.batch_size, "cfg": self.part.saes[0].cfg}

    def _plan(self, device: torch.device) -> tuple[int, int, bool]:
        """How many workers, how many groups, and whether one SAE is work for all threads."""
        saes, start = self.part.saes, self.part.n_steps
        ends = (start, start + self.options.steps - 1)  # between them k rises, or it falls
        like = saes[0].W_dec.detach().to(device)
        sparse = all(self._is_sparse(saes, step) for step in ends)

        def needed(size: int) -> int:
            return Scratch.bytes_for(size, like=like, sparse=sparse, **self._sizes())

        n, threads = len(saes), torch.get_num_threads()
        useful = min(n, max(1, needed(n) // BYTES_PER_WORKER))
        n_workers = min(threads, useful) if device.type == "cpu" else 1
        room = WORKSPACE.get(device.type, WORKSPACE["cuda"]) // n_workers
        sizes = range(-(-n // n_workers), 0, -1)
        largest = next((size for size in sizes if needed(size) <= room), 1)
        rounds = -(-n // (largest * n_workers))  # as many groups for every worker
        is_large = threads > 1 and n_workers == 1 and needed(n) >= 2 * BYTES_PER_WORKER
        return n_workers, min(n, rounds * n_workers), is_large

    def train(self, *, path: Path | None, progress: bool, keep_end: bool = False) -> None:
        """Take all steps; go on from the checkpoint at `path` where there is one.

        The part's SAEs and memory are then those at the end. The file is removed, or holds the end
        of the run if that is to be kept.
        """
        steps, log, callback = self.options.steps, self.options.log, self.options.callback
        fingerprint = self._fingerprint() if path else ""
        start = self._resume(path, fingerprint) if path and path.exists() else 0
        bar = step_bar(range(start, steps), f"{len(self.part.saes)} SAEs", progress=progress)
        with (
            bar,
            nullcontext() if self.is_large else one_thread(),
            ThreadPoolExecutor(self.n_workers) if self.n_workers > 1 else InTurn() as pool,
        ):
            step = start
            while step < steps:
                if path and step > start and step % SAVE_EVERY == 0:
                    self._save(path, fingerprint, step, self.generator.get_state())
                ahead = range(step, self._next_stop(step, saves=path is not None))
                batches = Batches(self._batch, ahead, n_readers=len(self.stacks))
                if callback:
                    callback(self.part.n_steps + step, partial(self._written_back, step))
                if log and log.wants(step, steps):
                    self._log(log, batches.first().x, step)
                workers = range(self.n_workers)
                list(pool.map(self._take_steps, workers, repeat(ahead), repeat(batches)))
                bar.update(len(ahead))
                step = ahead.stop
        if path and keep_end:
            self._save(path, fingerprint, steps, self.generator.get_state())
        elif path:
            path.unlink(missing_ok=True)
        self._written_back(steps)
        self.part.memory = joined([stack.memory() for stack in self.stacks])
        self.part.n_steps += steps

    def _saes(self) -> list[list[TrainingSAE[Any]]]:
        return [group.saes for group in self.groups]

    def _written_back(self, step: int) -> list[TrainingSAE[Any]]:
        """The SAEs, as they are before a step."""
        for stack, saes in zip(self.stacks, self._saes(), strict=True):
            stack.write_back(saes, last_step=max(0, self.part.n_steps + step - 1))
        return self.part.saes

    def _next_stop(self, step: int, *, saves: bool) -> int:
        """The next step before which all workers have to meet."""
        steps, log = self.options.steps, self.options.log
        batch_bytes = self.like.element_size() * self.options.batch_size * self.like.shape[-1]
        ahead = max(1, min(MOST_AHEAD, BYTES_AHEAD // batch_bytes))
        stop = min(steps, step + (1 if self.options.callback else ahead))
        for each in range(step + 1, stop):
            if (saves and each % SAVE_EVERY == 0) or (log and log.wants(each, steps)):
                return each
        return stop

    def _take_steps(self, worker: int, ahead: range, batches: Batches) -> None:
        """Train every n-th stack for some steps."""
        scratch = self.scratches[worker]
        for step in ahead:
            for i in range(worker, len(self.stacks), self.n_workers):
                self._train_step(i, batches(step), step, scratch)

    def _train_step(self, i: int, batch: Batch, step: int, scratch: Scratch) -> None:
        stack, group = self.stacks[i], self.groups[i]
        lrs = [each[step] for each in group.lrs]
        total = self.part.n_steps + step
        sparse = self._is_sparse(group.saes, total)
        errors = train_step(stack, batch, scratch, total, lrs, sparse=sparse)
        resampling = self.options.resampling
        if resampling and resampling.due(total + 1):
            kind = resampling.kind
            resample(stack, batch.x, errors, kind=kind, step=total, seeds=group.seeds)

    def _is_sparse(self, saes: Sequence[TrainingSAE[Any]], step: int) -> bool:
        forced = self.options.sparse
        if forced is not None:
            return forced
        return sparse_pays([sae.cfg for sae in saes], step, self.options.batch_size)

    def _log(self, log: TrainingLog, x: Tensor, step: int) -> None:
        """Add the rows before a step, by sae-lens' own forward pass."""
        rows: list[Row] = []
        for stack, group in zip(self.stacks, self.groups, strict=True):
            stack.write_back(group.saes, last_step=self.part.n_steps + step)
            lrs, dead = [each[step] for each in group.lrs], stack.dead.cpu()
            total = self.part.n_steps + step
            rows += training_rows(group.saes, x.cpu(), dead, step=total, lrs=lrs)
        log.rows += [row | {"sae": i} for i, row in enumerate(rows)]

    def _batch(self, step: int) -> Batch:
        """The batch of a step, on the device of the weights."""
        wanted = (self.options.batch_size, self.like.shape[-1])
        x = checked_batch(self.sample_batch, wanted, self.generator, step)
        x = x.to(device=self.like.device, dtype=self.like.dtype)
        return Batch(x, copies=self.stacks[0].gate.copies)

    def _fingerprint(self) -> str:
        options = self.options
        settings = {
            "cfgs": [sae.cfg.to_dict() for sae in self.part.saes],
            "lrs": self.part.lrs,
            "batch_size": options.batch_size,
            "dead_feature_window": options.dead_feature_window,
            "seeds": self.part.seeds,
            "resampling": dataclasses.asdict(options.resampling) if options.resampling else None,
            "log_every": options.log.every if options.log else None,
        }
        state = self._state() | {"generator": self.generator.get_state()}
        return _checkpoints.digest(settings, state)

    def _state(self) -> dict[str, Tensor]:
        return joined([stack.state() | stack.memory() for stack in self.stacks])

    def _save(self, path: Path, fingerprint: str, step: int, generator: Tensor) -> None:
        rows = self.options.log.rows if self.options.log else []
        state = self._state() | {"generator": generator}
        _checkpoints.save(path, state, run=fingerprint, step=step, log=rows)

    def _resume(self, path: Path, fingerprint: str) -> int:
        tensors, step, rows = _checkpoints.load(path, run=fingerprint)
        if self.options.log:
            self.options.log.rows += rows
        self.generator.set_state(tensors.pop("generator"))
        ends = [0, *accumulate(map(len, self._saes()))]
        for stack, (first, last) in zip(self.stacks, pairwise(ends), strict=True):
            own = {name: tensor[first:last] for name, tensor in tensors.items()}
            stack.load_state(own)
            stack.recall(own, self.part.n_steps + step)
        return step


def joined(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several stacks along their first axis, one entry an SAE."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def split_evenly(each: Sequence[T], n_groups: int) -> list[list[T]]:
    """Cut a sequence into groups whose sizes differ by at most one."""
    ends = [round(i * len(each) / n_groups) for i in range(n_groups + 1)]
    return [list(each[start:end]) for start, end in pairwise(ends)]
