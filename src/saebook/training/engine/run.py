"""The training loop of an ensemble: groups of SAEs side by side on the cores, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import accumulate, chain, pairwise, repeat
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
from saebook.training.log import Row, training_rows
from saebook.training.options import TrainingOptions
from saebook.training.resampling import resample

T = TypeVar("T")
SampleBatch = Callable[[int, torch.Generator], Tensor]

BYTES_PER_WORKER = 2**21  # with less scratch than this, a second worker costs more than it saves
WORKSPACE = {"cpu": 2**26, "cuda": 2**30}  # bytes of scratch: what caches like, or a GPU
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
        sizes: dict[str, Any] = {"batch": options.batch_size, "cfg": part.saes[0].cfg}
        each = Scratch.bytes_per_sae(part.saes[0].W_dec.element_size(), **sizes)
        n = len(part.saes)
        useful = min(n, max(1, n * each // BYTES_PER_WORKER))
        self.n_workers = min(torch.get_num_threads(), useful) if device.type == "cpu" else 1
        largest = max(1, WORKSPACE.get(device.type, WORKSPACE["cuda"]) // (each * self.n_workers))
        rounds = -(-n // (largest * self.n_workers))  # as many groups for every worker
        self.groups = part.split(min(n, rounds * self.n_workers))
        self.stacks = [
            Stack(group.saes, device=device, dead_feature_window=options.dead_feature_window)
            for group in self.groups
        ]
        for stack, group in zip(self.stacks, self.groups, strict=True):
            stack.recall(group.memory, group.n_steps)
        self.like = self.stacks[0].weights["W_dec"]
        self.scratches: SimpleQueue[Scratch] = SimpleQueue()
        for _ in range(self.n_workers):
            self.scratches.put(Scratch(self.like, max(map(len, self._saes())), **sizes))

    def train(self, *, path: Path | None, progress: bool, keep_end: bool = False) -> None:
        """Take all steps; go on from the checkpoint at `path` where there is one.

        The part's SAEs and memory are then those at the end. The file is removed, or holds the end
        of the run if that is to be kept.
        """
        steps, log, callback = self.options.steps, self.options.log, self.options.callback
        fingerprint = self._fingerprint() if path else ""
        start = self._resume(path, fingerprint) if path and path.exists() else 0
        stacks = range(len(self.stacks))
        bar = step_bar(range(start, steps), f"{len(self.part.saes)} SAEs", progress=progress)
        with (
            one_thread() if self.n_workers > 1 else nullcontext(),
            ThreadPoolExecutor(self.n_workers) as pool,
        ):
            drawn = self._draw(pool, start)
            for step in bar:
                if path and step > start and step % SAVE_EVERY == 0:
                    self._save(path, fingerprint, step, drawn[0])
                batch = drawn[1].result()
                drawn = self._draw(pool, step + 1)
                if callback:
                    callback(self.part.n_steps + step, partial(self._written_back, step))
                if log and log.wants(step, steps):
                    found = pool.map(self._log_rows, stacks, repeat(batch.x), repeat(step))
                    log.rows += [row | {"sae": i} for i, row in enumerate(chain(*found))]
                list(pool.map(self._train_step, stacks, repeat(batch), repeat(step)))
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

    def _train_step(self, i: int, batch: Batch, step: int) -> None:
        scratch, stack, group = self.scratches.get(), self.stacks[i], self.groups[i]
        lrs = [each[step] for each in group.lrs]
        total = self.part.n_steps + step
        stack.train_step(batch, scratch, total, lrs)
        resampling = self.options.resampling
        if resampling and resampling.due(total + 1):
            errors = scratch.errors(len(group.saes))[-1][:, :, : len(batch.x)]
            kind = resampling.kind
            resample(stack, batch.x, errors, kind=kind, step=total, seeds=group.seeds)
        self.scratches.put(scratch)

    def _log_rows(self, i: int, x: Tensor, step: int) -> list[Row]:
        """The rows of a stack before a step, by sae-lens' own forward pass."""
        stack, group, total = self.stacks[i], self.groups[i], self.part.n_steps + step
        stack.write_back(group.saes, last_step=total)
        lrs = [each[step] for each in group.lrs]
        return training_rows(group.saes, x.cpu(), stack.dead.cpu(), step=total, lrs=lrs)

    def _draw(self, pool: ThreadPoolExecutor, step: int) -> tuple[Tensor, Future[Batch]]:
        """Start to draw the batch of a step; also the generator's state before that."""
        state = self.generator.get_state()
        if step == self.options.steps:  # draw no batch that nobody asked for
            return state, Future()
        return state, pool.submit(self._batch, step)

    def _batch(self, step: int) -> Batch:
        """The batch of a step, checked and on the device of the weights."""
        x = self.sample_batch(self.options.batch_size, self.generator)
        wanted = (self.options.batch_size, self.like.shape[-1])
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
