"""Follow a minimum of the expected loss while a setting of the SAE changes.

A loss may have several minima. Where the start decides which one is found, a curve over a setting
may jump for no reason of the loss. Following a minimum in small steps keeps to one branch, and
branches can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sae_lens import TrainingSAE, TrainingSAEConfig

from saebook._running import step_bar
from saebook.training.options import TrainingOptions
from saebook.training.population import OPTIONS, train_population
from saebook.worlds.base import World


def follow_minima(
    cfgs: Sequence[TrainingSAEConfig],
    world: World,
    options: TrainingOptions = OPTIONS,
    *,
    starts: Sequence[TrainingSAE[Any]],
    tolerance: float = 1e-6,
) -> list[list[TrainingSAE[Any]]]:
    """Minimise the expected loss of one config after the other, each from the last one's minimum.

    Several branches are followed side by side, one from each start.

    Args:
        cfgs: configs that differ in a setting, in the order in which to go through them.
        world, options, tolerance: as in `train_population`; options are those of each step.
        starts: where each branch begins.

    Returns:
        For each branch its SAEs, in the order of the configs.

    Raises:
        ValueError, TypeError: as `train_population`, or without a config or a start.

    Source: Allgower & Georg, "Introduction to Numerical Continuation Methods" (2003).
    """
    if not len(cfgs) or not len(starts):
        raise ValueError(
            "cfgs and starts must hold one or more, got "
            f"{len(cfgs)} configs and {len(starts)} starts"
        )
    quiet, seeds = replace(options, progress=False), range(len(starts))
    steps: list[Sequence[TrainingSAE[Any]]] = [starts]
    what = f"{len(starts)} branches"
    for i in step_bar(range(len(cfgs)), what, progress=options.progress, unit="setting"):
        of_step = [cfgs[i]] * len(starts)
        steps.append(
            train_population(
                of_step, world, quiet, init=steps[-1], seeds=seeds, tolerance=tolerance
            )
        )
    return [list(branch) for branch in zip(*steps[1:], strict=True)]
