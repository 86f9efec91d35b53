"""Exact training on a finite world: the expected loss over its states, without sampling noise.

A world of a few states has an expected loss that can be written down. Its gradient is that of
`ensembles` on a batch that holds every state once, weighted by its probability. So an SAE can be
brought to a true minimum, and its gradient there be told. Taught in the chapter "Hedging and
absorption".
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput
from torch import Tensor
from tqdm.auto import tqdm

from saebook._checks import check_instance, check_non_negative, check_positive, check_positive_int
from saebook._gates import GATES
from saebook._initial import Init, check_configs, check_seeds, fresh_saes
from saebook._stacked import Batch, Scratch, Stack
from saebook.toy_world import ToyWorld

CHECK_EVERY = 100  # steps between two looks at the gradient norms


def train_population(
    cfgs: Sequence[TrainingSAEConfig],
    world: ToyWorld | Sequence[ToyWorld],
    *,
    steps: int = 6000,
    lr: float = 3e-3,
    tolerance: float = 1e-6,
    seeds: Sequence[int] | None = None,
    init: Init | None = None,
    tie_weights: bool = False,
    progress: bool = True,
) -> list[TrainingSAE[Any]]:
    """Minimise the exact expected loss of one SAE per config; return them in that order.

    Adam on the whole support, at a constant rate for half of the steps and falling to 0 in the
    other half, stopped once every SAE's gradient norm is at most `tolerance`. Training is in double
    precision and so are the SAEs returned. As in `train_ensemble`, several minima may exist, and
    the start decides which one is found. BatchTopK is trained on the limit of ever larger batches:
    k is the probability of all entries that are kept, and at the threshold a share of a state's
    samples keeps its latent.

    Args:
        cfgs: sae-lens training configs, as in `train_ensemble`.
        world: a finite world, with a `support()`; or one for each config, which may differ in the
            probabilities of their states but not in the states.
        steps: most steps to take.
        lr: learning rate of Adam before it falls.
        tolerance: gradient norm of an SAE that counts as converged.
        seeds: one whole number per SAE, drawing its initial weights; by default all 0.
        init: as in `train_ensemble`.
        tie_weights: whether the encoder is the decoder's transpose throughout.
        progress: show a progress bar when standard error is a terminal.

    Raises:
        ValueError, TypeError: for an unusable argument or a world that is not finite.

    Warns:
        UserWarning: if the gradient norm of an SAE is still above `tolerance` at the end.

    Chapter: "Hedging and absorption".
    """
    check_positive_int("steps", steps)
    check_positive("lr", lr)
    check_non_negative("tolerance", tolerance)
    check_configs(cfgs)
    x, probabilities = _shared_support(world, len(cfgs), d_in=cfgs[0].d_in)
    doubles = [dataclasses.replace(cfg, dtype="float64") for cfg in cfgs]
    all_seeds = [0] * len(cfgs) if seeds is None else check_seeds(seeds, len(cfgs))
    saes = fresh_saes(doubles, all_seeds, init)
    if tie_weights:
        for sae in saes:
            sae.W_enc.data = sae.W_dec.data.T.clone()
    norms = _descend(saes, x, probabilities, steps, lr, tolerance, tie_weights, progress)
    if bool((norms > tolerance).any()):
        warnings.warn(
            f"{int((norms > tolerance).sum())} of {len(saes)} SAEs have a gradient norm above "
            f"tolerance = {tolerance:g} after {steps} steps, the largest {norms.max():.2g}: take "
            "more steps or expect a larger norm",
            stacklevel=2,
        )
    return saes


def _descend(
    saes: Sequence[TrainingSAE[Any]],
    x: Tensor,
    probabilities: Tensor,
    steps: int,
    lr: float,
    tolerance: float,
    tie_weights: bool,
    progress: bool,
) -> Tensor:
    """Take the steps; the gradient norm of each SAE at the end, `(n_saes,)`."""
    stack = Stack(saes, device=x.device, dead_feature_window=steps)
    if stack.gate.splits_states:
        x, probabilities = x.repeat(2, 1), probabilities.repeat(1, 2) / 2
    batch = Batch(x, probabilities[:, None] * len(x))
    scratch = Scratch(stack.weights["W_dec"], len(saes), batch=len(x), cfg=saes[0].cfg)
    bar = tqdm(
        range(steps + 1),
        desc=f"Training {len(saes)} SAEs",
        unit="step",
        disable=not (progress and sys.stderr.isatty()),
    )
    with _one_thread():
        for step in bar:
            stack.gradients(batch, scratch, step)
            stack.scale_gradients(2 / len(x))
            if tie_weights:
                _tie(stack.grads)
            if step % CHECK_EVERY == 0 or step == steps:
                norms = _norms(stack.grads, tie_weights)
                if step == steps or bool((norms <= tolerance).all()):
                    break
            stack.adam_step(lr * min(1.0, 2 * (1 - step / steps)))
    stack.write_back(saes, last_step=step)
    return norms


def _tie(grads: dict[str, Tensor]) -> None:
    """Give encoder and decoder the gradient of the one matrix that they are."""
    grads["W_dec"] += grads["W_enc"]
    grads["W_enc"].copy_(grads["W_dec"])


def _norms(grads: dict[str, Tensor], tied: bool) -> Float[Tensor, " n_saes"]:
    """The norm of each SAE's gradient; tied weights count once."""
    counted = [grad for name, grad in grads.items() if not (tied and name == "W_enc")]
    squares = [grad.double().square().flatten(1).sum(1) for grad in counted]
    return torch.stack(squares).sum(0).sqrt()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExpectedLoss:
    """The expected training loss of SAEs on a finite world, and the norm of its gradient.

    Attributes:
        loss: (n_saes,) expected loss as sae-lens defines it, all terms.
        gradient_norm: (n_saes,) Euclidean norm of its gradient by all weights.
    """

    loss: Float[Tensor, " n_saes"]
    gradient_norm: Float[Tensor, " n_saes"]


def expected_loss(
    saes: Sequence[TrainingSAE[Any]],
    world: ToyWorld | Sequence[ToyWorld],
    *,
    tie_weights: bool = False,
) -> ExpectedLoss:
    """The exact expected loss of training SAEs by sae-lens' own forward pass and autograd.

    Nothing here shares code with `train_population`, so that it can be checked by this. Sparsity
    coefficients are at their final value; no latent counts as dead.

    Args:
        saes: training SAEs whose loss is a mean over samples.
        world: a finite world, or one for each SAE.
        tie_weights: whether encoder and decoder count as one matrix.

    Raises:
        ValueError, TypeError: for a world that is not finite or does not fit, or an SAE whose
            samples share a budget, as in BatchTopK: its loss is no mean over samples.

    Chapter: "Hedging and absorption".
    """
    losses, norms = [], []
    for sae, own_world in zip(saes, _worlds(world, len(saes)), strict=True):
        if GATES[sae.cfg.architecture()].splits_states:
            raise ValueError(
                "saes must have a loss that is a mean over samples, got the architecture "
                f"{sae.cfg.architecture()!r}, whose samples share a budget of active latents"
            )
        x, probabilities = support_inputs(own_world, d_in=sae.cfg.d_in)
        with torch.enable_grad():
            states = [_loss(sae, row[None].to(sae.W_dec.dtype)) for row in x]
            loss = torch.stack(states).double() @ probabilities
            grads = torch.autograd.grad(loss, list(sae.parameters()), allow_unused=True)
        named = zip((name for name, _ in sae.named_parameters()), grads, strict=True)
        by_name = {name: grad[None] for name, grad in named if grad is not None}
        if tie_weights:
            by_name["W_dec"] = by_name["W_dec"] + by_name["W_enc"].mT
        losses.append(loss.detach())
        norms.append(_norms(by_name, tie_weights)[0])
    return ExpectedLoss(loss=torch.stack(losses), gradient_norm=torch.stack(norms))


def _loss(sae: TrainingSAE[Any], x: Tensor) -> Tensor:
    """The training loss of a batch, its coefficients at their final value."""
    coefficients = {
        name: c.value if isinstance(c, TrainCoefficientConfig) else c
        for name, c in sae.get_coefficients().items()
    }
    step_input = TrainStepInput(
        sae_in=x,
        coefficients=coefficients,
        dead_neuron_mask=None,
        n_training_steps=sys.maxsize,
        is_logging_step=False,
    )
    return sae.training_forward_pass(step_input).loss


def support_inputs(
    world: ToyWorld, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, " n_states"]]:
    """The inputs of a finite world's states (n_states, d_in) and their probabilities, in double.

    Raises:
        TypeError, ValueError: for what is no world, or one that is not finite or has another d_in.
    """
    check_instance("world", world, ToyWorld)
    feature_acts, probabilities = world.support()
    x = feature_acts.double() @ world.directions.double()
    if x.shape[1] != d_in:
        raise ValueError(f"world must have d_in = {d_in} as the configs, got {x.shape[1]}")
    return x, probabilities.double()


def _worlds(world: ToyWorld | Sequence[ToyWorld], n_saes: int) -> list[ToyWorld]:
    """One world per SAE."""
    if not isinstance(world, Sequence):
        return [world] * n_saes
    if len(world) != n_saes:
        raise ValueError(
            f"world must be one world or one per SAE, {n_saes} in all, got {len(world)}"
        )
    return list(world)


def _shared_support(
    world: ToyWorld | Sequence[ToyWorld], n_saes: int, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, "{n_saes} n_states"]]:
    """The states that all worlds share and their probabilities for each SAE."""
    supports: dict[int, tuple[Tensor, Tensor]] = {}
    own_worlds = _worlds(world, n_saes)
    for own in own_worlds:
        if id(own) not in supports:
            supports[id(own)] = support_inputs(own, d_in=d_in)
    x = supports[id(own_worlds[0])][0]
    for other, _ in supports.values():
        if other.shape != x.shape or not torch.equal(other, x):
            raise ValueError(
                "world must hold worlds of the same states and directions, got "
                f"{len(x)} and {len(other)} states that differ"
            )
    return x, torch.stack([supports[id(own)][1] for own in own_worlds])


@contextmanager
def _one_thread() -> Any:
    """States are few: within an operation a second thread would only be waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
