"""Exact training on a finite world: the expected loss over its states, without sampling noise.

A world of a few states has an expected loss that can be written down. Its gradient is that of
`ensembles` on a batch that holds every state once, weighted by its probability. So an SAE can be
brought to a true minimum, and its gradient there be told.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sae_lens import TrainingSAE, TrainingSAEConfig
from torch import Tensor

from saebook._checkpoints import digest
from saebook._checks import check_non_negative, check_positive
from saebook._running import one_thread, step_bar
from saebook.training.engine.buffers import Scratch
from saebook.training.engine.stack import Stack
from saebook.training.engine.steps import gradients
from saebook.training.initial import Init, check_configs, check_seeds, fresh_saes
from saebook.training.options import TrainingOptions
from saebook.training.stationarity import (
    gradient_norms,
    smallest_subgradients,
    state_batch,
    tie,
)
from saebook.worlds.base import World
from saebook.worlds.support import shared_support

CHECK_EVERY = 100  # steps between two looks at the gradient norms
KINK_TOLERANCE = 1e-4  # smallest subgradient that counts as converged at a kink
OPTIONS = TrainingOptions(steps=6000, lr=3e-3)


def train_population(
    cfgs: Sequence[TrainingSAEConfig],
    world: World | Sequence[World],
    options: TrainingOptions = OPTIONS,
    *,
    tolerance: float = 1e-6,
    seeds: int | Sequence[int] | None = None,
    init: Init | None = None,
    tie_weights: bool = False,
) -> list[TrainingSAE[Any]]:
    """Minimise the exact expected loss of one SAE per config; return them in that order.

    Adam on the whole support, at a constant rate for half of the steps and falling to 0 in the
    other half, stopped once every SAE's gradient norm is at most `tolerance`. A minimum may lie
    where a pre-activation is exactly 0 and the loss has a kink; the gradient does not vanish there,
    and what counts is the smallest subgradient, at most 1e-4. Training is in double precision and
    so are the SAEs returned. As in `train_ensemble`, several minima may exist, and
    the start decides which one is found. BatchTopK is trained on the limit of ever larger batches:
    k is the probability of all entries that are kept, and at the threshold a share of a state's
    samples keeps its latent.

    Args:
        cfgs: sae-lens training configs, as in `train_ensemble`.
        world: a finite world, with a `support()`; or one for each config, which may differ in the
            probabilities of their states but not in the states.
        options: the most steps to take, lr of Adam before it falls, and progress.
        tolerance: gradient norm of an SAE that counts as converged.
        seeds: one whole number per SAE, drawing its initial weights; by default all 0, so that SAEs
            of different configs or worlds start alike.
        init: as in `train_ensemble`.
        tie_weights: whether the encoder is the decoder's transpose throughout.

    Raises:
        ValueError, TypeError: for an unusable argument, a world that is not finite, or no seeds
            where every SAE would be trained twice.

    Warns:
        UserWarning: if an SAE has reached neither a vanishing gradient nor a kink.
    """
    options.only("steps", "lr", "progress")
    check_non_negative("tolerance", tolerance)
    check_configs(cfgs)
    x, probabilities = shared_support(world, len(cfgs), d_in=cfgs[0].d_in)
    doubles = [dataclasses.replace(cfg, dtype="float64") for cfg in cfgs]
    all_seeds = [0] * len(cfgs) if seeds is None else check_seeds(seeds, len(cfgs))
    saes = fresh_saes(doubles, all_seeds, init)
    if seeds is None:
        _check_not_repeated(saes, probabilities)
    if tie_weights:
        for sae in saes:
            sae.W_enc.data = sae.W_dec.data.T.clone()
    norms = _descend(saes, x, probabilities, options, tolerance, tie_weights)
    unsettled = [i for i, norm in enumerate(norms.tolist()) if norm > tolerance]
    norms[unsettled] = smallest_subgradients(
        [saes[i] for i in unsettled], x, probabilities[unsettled], tie_weights=tie_weights
    )
    failed = norms > max(tolerance, KINK_TOLERANCE)
    if bool(failed.any()):
        warnings.warn(
            f"{int(failed.sum())} of {len(saes)} SAEs have a gradient norm above tolerance = "
            f"{tolerance:g} after {options.steps} steps and are at no kink, the largest "
            f"{norms.max():.2g}: take more steps or start elsewhere",
            stacklevel=2,
        )
    return saes


def _check_not_repeated(saes: Sequence[TrainingSAE[Any]], probabilities: Tensor) -> None:
    """Check that not every SAE has another of the same config, world and start."""
    runs = Counter(
        digest(sae.cfg.to_dict(), sae.state_dict() | {"probabilities": own})
        for sae, own in zip(saes, probabilities, strict=True)
    )
    if min(runs.values()) > 1:
        raise ValueError(
            f"seeds must hold one whole number per config, {len(saes)} in all, where configs are "
            "repeated, got None: their SAEs would all be the same"
        )


def _descend(
    saes: Sequence[TrainingSAE[Any]],
    x: Tensor,
    probabilities: Tensor,
    options: TrainingOptions,
    tolerance: float,
    tie_weights: bool,
) -> Tensor:
    """Take the steps; the gradient norm of each SAE at the end, `(n_saes,)`."""
    steps, lr = options.steps, check_positive("lr", options.lr)
    stack = Stack(saes, device=x.device, dead_feature_window=steps)
    batch = state_batch(x, probabilities, gate=stack.gate)
    scratch = Scratch(stack.weights["W_dec"], len(saes), batch=len(batch.x), cfg=saes[0].cfg)
    bar = step_bar(range(steps + 1), f"{len(saes)} SAEs", progress=options.progress)
    with one_thread():  # states are few: a second thread would only be waited for
        for step in bar:
            gradients(stack, batch, scratch, step)
            if tie_weights:
                tie(stack.grads)
            if step % CHECK_EVERY == 0 or step == steps:
                norms = gradient_norms(stack.grads, tie_weights)
                if step == steps or bool((norms <= tolerance).all()):
                    break
            stack.adam_step([lr * min(1.0, 2 * (1 - step / steps))])
    stack.write_back(saes, last_step=step)
    return norms
