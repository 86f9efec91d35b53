"""Train SAEs to one measured L0, so that variants can be compared like with like.

In most variants the L0 is not a setting. It follows from a coefficient, and how it follows depends
on the variant, the data and the initial weights. Here the coefficient is searched, one per seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

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
from saebook.training.engine.run import SampleBatch
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
    check_function("make_cfg", make_cfg, "from a coefficient to a sae-lens training config")
    check_positive("target_l0", target_l0)
    check_positive("tolerance", tolerance)
    low, high = _check_bracket(bracket)
    seeds = check_seeds(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different whole numbers, at least one, got {seeds}")
    check_int_at_least("n_grid", n_grid, 2)
    check_positive_int("max_rounds", max_rounds)
    check_positive_int("n_samples", n_samples)
    generator = check_generator("generator", generator)
    start = generator.get_state()

    def train(coefficients: list[float], seeds: list[int]) -> list[TrainingSAE[Any]]:
        generator.set_state(start)
        return train_ensemble(
            [_check_cfg(make_cfg(coefficient)) for coefficient in coefficients],
            sample_batch,
            replace(options, n_shards=min(options.n_shards, len(coefficients))),
            seeds=seeds,
            generator=generator,
        )

    ratio = (high / low) ** (1 / (n_grid - 1))
    grid = [low * ratio**i for i in range(n_grid)]
    saes = train(grid, seeds[:1] * n_grid)
    x = sample_batch(n_samples, generator)
    curve = [(tried, _measure(sae, x)) for tried, sae in zip(grid, saes, strict=True)]
    guess, slope = _crossing(curve, target_l0)
    points: dict[int, list[tuple[float, float]]] = {seed: [] for seed in seeds}
    latest: dict[int, TrainingSAE[Any]] = {}
    waiting = seeds
    for _ in range(max_rounds):
        tries = [_next(points[seed], target_l0, guess, slope, (low, high)) for seed in waiting]
        for seed, tried, sae in zip(waiting, tries, train(tries, waiting), strict=True):
            points[seed].append((tried, _measure(sae, x)))
            latest[seed] = sae
        waiting = [s for s in waiting if abs(points[s][-1][1] / target_l0 - 1) > tolerance]
        if not waiting:
            break
    if waiting:
        misses = ", ".join(f"{points[s][-1][1]:.3g} for seed {s}" for s in waiting)
        raise RuntimeError(
            f"target_l0 = {target_l0:g} must be met within {tolerance:.1%} in {max_rounds} rounds, "
            f"got {misses}"
        )
    return MatchedSAEs(
        saes=[latest[seed] for seed in seeds],
        coefficients=[points[seed][-1][0] for seed in seeds],
        l0s=[points[seed][-1][1] for seed in seeds],
        n_trained=n_grid + sum(map(len, points.values())),
    )


@torch.no_grad()
def _measure(sae: TrainingSAE[Any], x: Tensor) -> float:
    return l0(inference_sae(sae).encode(x))


def _crossing(curve: list[tuple[float, float]], target: float) -> tuple[float, float]:
    """The coefficient at which a curve first crosses the target, and the log-log slope there."""
    for here, there in pairwise(curve):
        if min(here[1], there[1]) <= target <= max(here[1], there[1]):
            slope = _slope(here, there)
            return _on_line(here, slope, target), slope
    pairs = ", ".join(f"{found:.3g} at {coefficient:.3g}" for coefficient, found in curve)
    raise ValueError(f"target_l0 must be an L0 that bracket reaches, got {target:g}; L0s: {pairs}")


def _next(
    points: list[tuple[float, float]],
    target: float,
    guess: float,
    slope: float,
    bracket: tuple[float, float],
) -> float:
    """The coefficient to try next, from what a seed has shown so far."""
    if not points:
        return guess
    above = [point for point in points if point[1] > target]
    below = [point for point in points if point[1] <= target]
    if above and below:
        pairs = [(here, there) for here in above for there in below]
        here, there = min(pairs, key=lambda pair: abs(_log(pair[0][0]) - _log(pair[1][0])))
        if len(points) > 2:  # interpolation has failed before, and could again: halve
            return math.sqrt(here[0] * there[0])
        slope = _slope(here, there)
    near = min(points, key=lambda point: abs(_log(point[1]) - _log(target)))
    return min(max(_on_line(near, slope, target), bracket[0]), bracket[1])


def _slope(here: tuple[float, float], there: tuple[float, float]) -> float:
    """The log-log slope between two points, infinite where both have the same L0."""
    return (_log(there[1]) - _log(here[1])) / (_log(there[0]) - _log(here[0])) or math.inf


def _on_line(point: tuple[float, float], slope: float, target: float) -> float:
    """The coefficient at which the line through a point, on log-log axes, meets the target."""
    return point[0] * math.exp((_log(target) - _log(point[1])) / slope)


def _log(value: float) -> float:
    return math.log(max(value, 1e-6))  # an SAE without a live latent has an L0 of 0


def _check_bracket(bracket: tuple[float, float]) -> tuple[float, float]:
    if len(check_sequence("bracket", bracket, "two coefficients")) != 2:
        raise ValueError(f"bracket must be two coefficients, got {bracket!r}")
    low, high = (check_positive("bracket", end) for end in bracket)
    if low >= high:
        raise ValueError(f"bracket must rise, got {bracket!r}")
    return low, high


def _check_cfg(cfg: Any) -> TrainingSAEConfig:
    if not isinstance(cfg, TrainingSAEConfig):
        raise TypeError(
            f"make_cfg must give a sae-lens training config, got {cfg!r} of type "
            f"{type(cfg).__name__}"
        )
    return cfg
