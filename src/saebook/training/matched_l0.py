"""Train SAEs to one measured L0, so that variants can be compared like with like.

In most variants the L0 is not a setting. It follows from a coefficient, and how it follows depends
on the variant, the data and the initial weights. Here the coefficient is searched, one per seed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from sae_lens import TrainingSAE, TrainingSAEConfig
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_function,
    check_generator,
    check_int_at_least,
    check_positive,
    check_positive_int,
    check_sequence,
)
from saebook.metrics.reconstruction import l0
from saebook.saes.transforms import inference_sae
from saebook.training.engine.batches import SampleBatch
from saebook.training.ensembles import train_ensemble
from saebook.training.initial import check_seeds
from saebook.training.options import TrainingOptions


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchedSAEs:
    """SAEs of one L0, in the order of their seeds.

    Attributes:
        saes: the trained SAEs.
        coefficients: the coefficient that each was trained with.
        l0s: the L0 that each has, as `train_at_l0` measures it.
        n_trained: how many SAEs the search has trained in all.
    """

    saes: list[TrainingSAE[Any]] = field(repr=False)
    coefficients: list[float]
    l0s: list[float]
    n_trained: int


def train_at_l0(
    make_cfg: Callable[[float], TrainingSAEConfig],
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    target_l0: float,
    bracket: tuple[float, float],
    seeds: int | Sequence[int],
    generator: GeneratorLike,
    tolerance: float = 0.02,
    n_grid: int = 4,
    max_rounds: int = 4,
    n_samples: int = 20_000,
) -> MatchedSAEs:
    """Train one SAE per seed, each with the coefficient that gives it the target L0.

    The first seed is trained on a grid of coefficients, even in their logarithm. It gives a first
    guess for all seeds. Seeds that miss the target are trained anew, from the start, with a
    coefficient that is interpolated on log-log axes from what they have shown. Each round is one
    stacked program, and all rounds see the same batches.

    The L0 is that of the SAE as it is used after training, see `saes.inference_sae`.

    Args:
        make_cfg: gives the sae-lens training config for a coefficient, such as an L1 or an L0
            coefficient, or BatchTopK's k.
        sample_batch, options: as in `train_ensemble`; a round with fewer SAEs than shards has a
            shard for each.
        target_l0: the L0 wanted.
        bracket: the smallest and the largest coefficient to try; the L0 may rise or fall between.
        seeds: how many SAEs are wanted, or their seeds.
        generator: draws the batches, the same in each round, and then the sample for the L0.
        tolerance: how far a measured L0 may be off, as a share of the target.
        n_grid: number of coefficients on the grid.
        max_rounds: how often the seeds may be trained after the grid.
        n_samples: inputs that the L0 is measured on.

    Raises:
        ValueError, TypeError: for an unusable argument, or a target that the grid does not enclose.
        RuntimeError: if seeds still miss the target after the last round.
    """
    check_positive("target_l0", target_l0)
    check_positive("tolerance", tolerance)
    bracket = _check_bracket(bracket)
    seeds = _check_different(seeds)
    check_int_at_least("n_grid", n_grid, 2)
    check_positive_int("max_rounds", max_rounds)
    rounds = _Rounds(
        make_cfg=check_function("make_cfg", make_cfg, "from a coefficient to a sae-lens config"),
        sample_batch=sample_batch,
        options=options,
        generator=check_generator("generator", generator),
        n_samples=check_positive_int("n_samples", n_samples),
    )
    guess, slope = _crossing(rounds.train(_grid(bracket, n_grid), seeds[:1] * n_grid), target_l0)
    tries: dict[int, list[_Try]] = {seed: [] for seed in seeds}
    waiting = seeds
    for _ in range(max_rounds):
        coefficients = [_next(tries[seed], target_l0, guess, slope, bracket) for seed in waiting]
        for seed, tried in zip(waiting, rounds.train(coefficients, waiting), strict=True):
            tries[seed].append(tried)
        waiting = [s for s in waiting if abs(tries[s][-1].l0 / target_l0 - 1) > tolerance]
        if not waiting:
            return _matched(list(tries.values()), n_grid)
    misses = ", ".join(f"{tries[s][-1].l0:.3g} for seed {s}" for s in waiting)
    raise RuntimeError(
        f"target_l0 = {target_l0:g} must be met within {tolerance:.1%} in {max_rounds} rounds, "
        f"got {misses}"
    )


class _Try(NamedTuple):
    coefficient: float
    l0: float
    sae: TrainingSAE[Any]


@dataclass(kw_only=True)
class _Rounds:
    """Rounds of training on the same batches, and the inputs that every L0 is measured on."""

    make_cfg: Callable[[float], TrainingSAEConfig]
    sample_batch: SampleBatch
    options: TrainingOptions
    generator: torch.Generator
    n_samples: int

    def __post_init__(self) -> None:
        self._start = self.generator.get_state()

    def train(self, coefficients: list[float], seeds: list[int]) -> list[_Try]:
        """Train an SAE with each coefficient and seed, in one stacked program."""
        self.generator.set_state(self._start)
        saes = train_ensemble(
            [_check_cfg(self.make_cfg(coefficient)) for coefficient in coefficients],
            self.sample_batch,
            replace(self.options, n_shards=min(self.options.n_shards, len(coefficients))),
            seeds=seeds,
            generator=self.generator,
        )
        l0s = [_measure(sae, self._x) for sae in saes]
        return [_Try(*each) for each in zip(coefficients, l0s, saes, strict=True)]

    @functools.cached_property
    def _x(self) -> Tensor:
        """What the generator gives after the first round's batches."""
        return self.sample_batch(self.n_samples, self.generator)


def _matched(tries: list[list[_Try]], n_grid: int) -> MatchedSAEs:
    return MatchedSAEs(
        saes=[each[-1].sae for each in tries],
        coefficients=[each[-1].coefficient for each in tries],
        l0s=[each[-1].l0 for each in tries],
        n_trained=n_grid + sum(map(len, tries)),
    )


def _grid(bracket: tuple[float, float], n: int) -> list[float]:
    """Coefficients from one end of the bracket to the other, even in their logarithm."""
    ratio = (bracket[1] / bracket[0]) ** (1 / (n - 1))
    return [bracket[0] * ratio**i for i in range(n)]


@torch.no_grad()
def _measure(sae: TrainingSAE[Any], x: Tensor) -> float:
    return l0(inference_sae(sae).encode(x))


def _crossing(curve: list[_Try], target: float) -> tuple[float, float]:
    """The coefficient at which a curve first crosses the target, and the log-log slope there."""
    for here, there in pairwise(curve):
        if min(here.l0, there.l0) <= target <= max(here.l0, there.l0):
            slope = _slope(here, there)
            return _on_line(here, slope, target), slope
    pairs = ", ".join(f"{tried.l0:.3g} at {tried.coefficient:.3g}" for tried in curve)
    raise ValueError(f"target_l0 must be an L0 that bracket reaches, got {target:g}; L0s: {pairs}")


def _next(
    tries: list[_Try], target: float, guess: float, slope: float, bracket: tuple[float, float]
) -> float:
    """The coefficient to try next, from what a seed has shown so far."""
    if not tries:
        return guess
    above = [tried for tried in tries if tried.l0 > target]
    below = [tried for tried in tries if tried.l0 <= target]
    if above and below:
        here, there = min(
            product(above, below),
            key=lambda pair: abs(_log(pair[0].coefficient) - _log(pair[1].coefficient)),
        )
        if len(tries) > 2:  # interpolation has failed before, and could again: halve
            return math.sqrt(here.coefficient * there.coefficient)
        slope = _slope(here, there)
    near = min(tries, key=lambda tried: abs(_log(tried.l0) - _log(target)))
    return min(max(_on_line(near, slope, target), bracket[0]), bracket[1])


def _slope(here: _Try, there: _Try) -> float:
    """The log-log slope between two tries, infinite where both have the same L0."""
    rise, run = _log(there.l0) - _log(here.l0), _log(there.coefficient) - _log(here.coefficient)
    return rise / run or math.inf


def _on_line(tried: _Try, slope: float, target: float) -> float:
    """The coefficient at which the line through a try, on log-log axes, meets the target."""
    return tried.coefficient * math.exp((_log(target) - _log(tried.l0)) / slope)


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))  # an SAE without a live latent has an L0 of 0


def _check_bracket(bracket: tuple[float, float]) -> tuple[float, float]:
    if len(check_sequence("bracket", bracket, "two coefficients")) != 2:
        raise ValueError(f"bracket must be two coefficients, got {bracket!r}")
    low, high = (check_positive("bracket", end) for end in bracket)
    if low >= high:
        raise ValueError(f"bracket must rise, got {bracket!r}")
    return low, high


def _check_different(seeds: int | Sequence[int]) -> list[int]:
    seeds = check_seeds(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different whole numbers, at least one, got {seeds}")
    return seeds


def _check_cfg(cfg: Any) -> TrainingSAEConfig:
    if not isinstance(cfg, TrainingSAEConfig):
        raise TypeError(
            f"make_cfg must give a sae-lens training config, got {cfg!r} of type "
            f"{type(cfg).__name__}"
        )
    return cfg
