"""The training loop of an ensemble: groups of SAEs side by side on the cores, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain, pairwise, repeat
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from sae_lens import TrainingSAE
from torch import Tensor

from saebook import _checkpoints
from saebook._checks import check_finite
from saebook._running import one_thread, step_bar
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.stack import Stack
from saebook.training.log import Row, TrainingLog, training_rows
from saebook.training.resampling import Resampling, resample

T = TypeVar("T")
SampleBatch = Callable[[int, torch.Generator], Tensor]

BYTES_PER_WORKER = 2**21  # with less scratch than this, a second worker costs more than it saves


class Run:
    """The loop over the steps: stacks side by side on the CPU's cores, progress, checkpoints."""

    def __init__(
        self,
        saes: Sequence[TrainingSAE[Any]],
        sample_batch: SampleBatch,
        *,
        generator: torch.Generator,
        lrs: Sequence[Sequence[float]],
        batch_size: int,
        dead_feature_window: int,
        device: torch.device,
        workspace_bytes: float,
        seeds: Sequence[int],
        resampling: Resampling | None,
        log: TrainingLog | None,
    ) -> None:
        self.sample_batch = sample_batch
        self.resampling = resampling
        self.log = log
        self.generator = generator
        self.steps = len(lrs[0])
        self.batch_size = batch_size
        sizes: dict[str, Any] = {"batch": batch_size, "cfg": saes[0].cfg}
        each = Scratch.bytes_per_sae(saes[0].W_dec.element_size(), **sizes)
        useful = min(len(saes), max(1, len(saes) * each // BYTES_PER_WORKER))
        self.n_workers = min(torch.get_num_threads(), useful) if device.type == "cpu" else 1
        largest = int(workspace_bytes / (each * self.n_workers))
        self.groups = _in_groups(saes, largest, self.n_workers)
        self.seeds = _in_groups(seeds, largest, self.n_workers)
        self.lrs = [
            list(zip(*each, strict=True)) for each in _in_groups(lrs, largest, self.n_workers)
        ]
        self.stacks = [
            Stack(group, device=device, dead_feature_window=dead_feature_window)
            for group in self.groups
        ]
        self.like = self.stacks[0].weights["W_dec"]
        self.scratches: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(self.n_workers):
            self.scratches.put(Scratch(self.like, max(map(len, self.groups)), **sizes))

    def train(
        self, *, progress: bool, path: Path | None, every: int, keep_end: bool = False
    ) -> None:
        """Take all steps; go on from the checkpoint at `path` where there is one.

        At the end, the file is removed, or holds the end of the run if that is to be kept.
        """
        fingerprint = self._fingerprint() if path else ""
        start = self._resume(path, fingerprint) if path and path.exists() else 0
        n_saes, stacks = sum(map(len, self.groups)), range(len(self.stacks))
        bar = step_bar(range(start, self.steps), f"{n_saes} SAEs", progress=progress)
        with (
            one_thread() if self.n_workers > 1 else nullcontext(),
            ThreadPoolExecutor(self.n_workers) as pool,
        ):
            drawn = self._draw(pool, start)
            for step in bar:
                if path and step > start and step % every == 0:
                    self._save(path, fingerprint, step, drawn[0])
                batch = drawn[1].result()
                drawn = self._draw(pool, step + 1)
                if self.log and self.log.wants(step, self.steps):
                    found = pool.map(self._log_rows, stacks, repeat(batch.x), repeat(step))
                    self.log.rows += [row | {"sae": i} for i, row in enumerate(chain(*found))]
                list(pool.map(self._train_step, stacks, repeat(batch), repeat(step)))
        if path and keep_end:
            self._save(path, fingerprint, self.steps, self.generator.get_state())
        elif path:
            path.unlink(missing_ok=True)

    def write_back(self) -> None:
        """Copy the trained weights into the sae-lens SAEs."""
        for stack, group in zip(self.stacks, self.groups, strict=True):
            stack.write_back(group, last_step=self.steps - 1)

    def _train_step(self, i: int, batch: Batch, step: int) -> None:
        scratch, stack = self.scratches.get(), self.stacks[i]
        stack.train_step(batch, scratch, step, self.lrs[i][step])
        if self.resampling and self.resampling.due(step + 1):
            errors = scratch.errors(len(self.seeds[i]))[-1][:, :, : len(batch.x)]
            kind = self.resampling.kind
            resample(stack, batch.x, errors, kind=kind, step=step, seeds=self.seeds[i])
        self.scratches.put(scratch)

    def _log_rows(self, i: int, x: Tensor, step: int) -> list[Row]:
        """The rows of a stack before a step, by sae-lens' own forward pass."""
        stack, saes = self.stacks[i], self.groups[i]
        stack.write_back(saes, last_step=step)
        return training_rows(saes, x.cpu(), stack.dead.cpu(), step=step, lrs=self.lrs[i][step])

    def _draw(self, pool: ThreadPoolExecutor, step: int) -> tuple[Tensor, Future[Batch]]:
        """Start to draw the batch of a step; also the generator's state before that."""
        state = self.generator.get_state()
        if step == self.steps:  # draw no batch that nobody asked for
            return state, Future()
        return state, pool.submit(self._batch, step)

    def _batch(self, step: int) -> Batch:
        """The batch of a step, checked and on the device of the weights."""
        x = self.sample_batch(self.batch_size, self.generator)
        wanted = (self.batch_size, self.like.shape[-1])
        if not isinstance(x, Tensor) or x.shape != wanted:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"sample_batch must return a tensor of shape {wanted}, got {got} at step {step}"
            )
        x = x.to(device=self.like.device, dtype=self.like.dtype)
        if not torch.isfinite(x.sum()):
            check_finite(f"the batch that sample_batch returned at step {step}", x)
        return Batch(x, copies=self.stacks[0].gate.copies)

    def _fingerprint(self) -> str:
        settings = {
            "cfgs": [cfg.to_dict() for stack in self.stacks for cfg in stack.cfgs],
            "lrs": self.lrs,
            "batch_size": self.batch_size,
            "dead_feature_window": self.stacks[0].dead_feature_window,
            "groups": [len(group) for group in self.groups],
            "seeds": self.seeds,
            "resampling": dataclasses.asdict(self.resampling) if self.resampling else None,
            "log_every": self.log.every if self.log else None,
        }
        state = self._state() | {"generator": self.generator.get_state()}
        return _checkpoints.digest(settings, state)

    def _state(self) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": tensor
            for i, stack in enumerate(self.stacks)
            for name, tensor in stack.state().items()
        }

    def _save(self, path: Path, fingerprint: str, step: int, generator: Tensor) -> None:
        rows = self.log.rows if self.log else []
        state = self._state() | {"generator": generator}
        _checkpoints.save(path, state, run=fingerprint, step=step, log=rows)

    def _resume(self, path: Path, fingerprint: str) -> int:
        tensors, step, rows = _checkpoints.load(path, run=fingerprint)
        if self.log:
            self.log.rows += rows
        self.generator.set_state(tensors.pop("generator"))
        for i, stack in enumerate(self.stacks):
            own = {name: t for name, t in tensors.items() if name.startswith(f"{i}.")}
            stack.load_state({name.removeprefix(f"{i}."): t for name, t in own.items()})
        return step


def _in_groups(each: Sequence[T], largest: int, n_workers: int) -> list[list[T]]:
    """Split SAEs evenly, at most `largest` to a group, with as many groups for every worker."""
    rounds = -(-len(each) // (max(1, largest) * n_workers))
    return split_evenly(each, min(len(each), rounds * n_workers))


def split_evenly(each: Sequence[T], n_groups: int) -> list[list[T]]:
    """Cut a sequence into groups whose sizes differ by at most one."""
    ends = [round(i * len(each) / n_groups) for i in range(n_groups + 1)]
    return [list(each[start:end]) for start, end in pairwise(ends)]
