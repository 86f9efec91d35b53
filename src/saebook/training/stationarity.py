"""How far SAEs on a finite world are from a minimum; a part of `population`, import it there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from scipy.optimize import nnls
from torch import Tensor

from saebook._checks import check_instance, check_sequence
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.gates import GATES
from saebook.training.engine.gates.gate import Gate
from saebook.training.engine.stack import Stack
from saebook.training.engine.steps import gradients
from saebook.training.schedules import coefficients_at
from saebook.worlds.base import World
from saebook.worlds.support import supports_of

SETTLED = 1e-6  # below this, a gradient norm needs no subgradient
N_POINTS = 300  # gradients around a kink; its convex hull has to reach the origin
RADIUS = 3e-4  # how far around


def state_batch(x: Tensor, probabilities: Tensor, *, gate: Gate) -> Batch:
    """Every state once, or twice if its samples may fare differently, weighted by probability.

    Args:
        x: (n_states, d_in).
        probabilities: (n_saes, n_states).
        gate: that of the SAEs.
    """
    if gate.splits_states:
        x, probabilities = x.repeat(2, 1), probabilities.repeat(1, 2) / 2
    return Batch(x, probabilities[:, None] * len(x), copies=gate.copies)


def tie(grads: dict[str, Tensor]) -> None:
    """Give encoder and decoder the gradient of the one matrix that they are."""
    grads["W_dec"] += grads["W_enc"]
    grads["W_enc"].copy_(grads["W_dec"])


def gradient_norms(grads: dict[str, Tensor], tied: bool) -> Float[Tensor, " n_saes"]:
    """The norm of each SAE's gradient; tied weights count once."""
    return _flat(grads, tied).norm(dim=1)


def _flat(grads: dict[str, Tensor], tied: bool) -> Float[Tensor, "n_saes n_weights"]:
    counted = [grad for name, grad in grads.items() if not (tied and name == "W_enc")]
    return torch.cat([grad.double().flatten(1) for grad in counted], dim=1)


def smallest_subgradients(
    saes: Sequence[TrainingSAE[Any]],
    x: Float[Tensor, "n_states d_in"],
    probabilities: Float[Tensor, "n_saes n_states"],
    *,
    tie_weights: bool = False,
) -> Float[Tensor, " n_saes"]:
    """The norm of the smallest mean of gradients close to each SAE, shape (n_saes,).

    Where a ReLU is at 0 the loss has a kink: its gradient jumps, and at a minimum 0 is only a
    weighted mean of the gradients around. They are taken at 300 points about 3e-4 away in each
    weight, and the smallest of their convex combinations is found. Source: gradient sampling,
    Burke, Lewis & Overton (SIAM Journal on Optimization 15, 2005).
    """
    found = []
    for sae, own in zip(saes, probabilities, strict=True):
        stack = Stack([sae] * N_POINTS, device=x.device, dead_feature_window=sys.maxsize)
        generator = torch.Generator().manual_seed(0)
        for flat in stack.flat:
            flat += RADIUS * torch.randn(flat.shape, generator=generator, dtype=flat.dtype)
        if tie_weights:
            stack.weights["W_enc"].copy_(stack.weights["W_dec"])
        batch = state_batch(x, own.expand(N_POINTS, -1), gate=stack.gate)
        scratch = Scratch(stack.weights["W_dec"], N_POINTS, batch=len(batch.x), cfg=sae.cfg)
        gradients(stack, batch, scratch, sys.maxsize)
        if tie_weights:
            tie(stack.grads)
        found.append(_distance_of_hull(_flat(stack.grads, tie_weights).numpy()))
    return torch.tensor(found, dtype=torch.float64)


def _distance_of_hull(points: np.ndarray) -> float:
    """How far the convex hull of the rows is from the origin."""
    scale = 10 * np.abs(points).max()
    system = np.vstack([points.T, np.full(len(points), scale)])
    weights, _ = nnls(system, np.append(np.zeros(points.shape[1]), scale))
    return float(np.linalg.norm(weights @ points / weights.sum()))


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpectedLoss:
    """The expected training loss of SAEs on a finite world, and the norm of its gradient.

    Attributes:
        loss: (n_saes,) expected loss as sae-lens defines it, all terms.
        gradient_norm: (n_saes,) Euclidean norm of its gradient by all weights.
        subgradient_norm: (n_saes,) that of the smallest subgradient, see `smallest_subgradients`:
            small at a minimum even where a pre-activation is 0 and the gradient does not vanish.
    """

    loss: Float[Tensor, " n_saes"]
    gradient_norm: Float[Tensor, " n_saes"]
    subgradient_norm: Float[Tensor, " n_saes"]


def expected_loss(
    saes: Sequence[TrainingSAE[Any]],
    world: World | Sequence[World],
    *,
    tie_weights: bool = False,
) -> ExpectedLoss:
    """The exact expected loss of training SAEs by sae-lens' own forward pass and autograd.

    Loss and gradient share no code with `train_population`, so that it can be checked by them.
    Sparsity coefficients are at their final value; no latent counts as dead.

    Args:
        saes: training SAEs whose loss is a mean over samples.
        world: a finite world, or one for each SAE.
        tie_weights: whether encoder and decoder count as one matrix.

    Raises:
        ValueError, TypeError: for a world that is not finite or does not fit, or an SAE whose
            samples share a budget, as in BatchTopK: its loss is no mean over samples.
    """
    losses, norms, smallest = [], [], []
    for sae in check_sequence("saes", saes, "training SAEs"):
        check_instance("saes", sae, TrainingSAE)
    supports = supports_of(world, [sae.cfg.d_in for sae in saes])
    for sae, (x, probabilities) in zip(saes, supports, strict=True):
        if GATES[sae.cfg.architecture()].splits_states:
            raise ValueError(
                "saes must have a loss that is a mean over samples, got the architecture "
                f"{sae.cfg.architecture()!r}, whose samples share a budget of active latents"
            )
        with torch.enable_grad():
            states = [_loss(sae, row[None].to(sae.W_dec.dtype)) for row in x]
            loss = torch.stack(states).double() @ probabilities
            grads = torch.autograd.grad(loss, list(sae.parameters()), allow_unused=True)
        named = zip((name for name, _ in sae.named_parameters()), grads, strict=True)
        by_name = {name: grad[None] for name, grad in named if grad is not None}
        if tie_weights:
            by_name["W_dec"] = by_name["W_dec"] + by_name["W_enc"].mT
        losses.append(loss.detach())
        norms.append(gradient_norms(by_name, tie_weights)[0])
        smallest.append(
            norms[-1]
            if norms[-1] < SETTLED
            else smallest_subgradients([sae], x, probabilities[None], tie_weights=tie_weights)[0]
        )
    return ExpectedLoss(
        loss=torch.stack(losses),
        gradient_norm=torch.stack(norms),
        subgradient_norm=torch.stack(smallest),
    )


def _loss(sae: TrainingSAE[Any], x: Tensor) -> Tensor:
    """The training loss of a batch, its coefficients at their final value."""
    step_input = TrainStepInput(
        sae_in=x,
        coefficients=coefficients_at(sae, sys.maxsize),
        dead_neuron_mask=None,
        n_training_steps=sys.maxsize,
        is_logging_step=False,
    )
    return sae.training_forward_pass(step_input).loss
