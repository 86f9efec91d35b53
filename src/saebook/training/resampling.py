"""Dead latents started anew on inputs that the SAE reconstructs badly.

Source: Bricken et al. 2023, "Towards Monosemanticity", appendix on neuron resampling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saebook._checks import check_one_of, check_positive_int
from saebook.training.engine.stack import Stack

KINDS = ("worst", "loss_weighted", "as_it_is")
ENCODER_SCALE = 0.2  # of the mean norm of live encoder rows, in Bricken et al.
SMALLEST = 1e-12  # weight of an input without error, beside 1 for the one with the largest


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """When and how an ensemble gives its dead latents new weights.

    After every `every`-th step, each latent that has been silent for more than the ensemble's
    `dead_feature_window` gets an input of that step's batch. Its decoder row becomes the direction
    from b_dec to that input, with norm 1. Its encoder row becomes the same direction, its biases
    become 0 (a JumpReLU's threshold the initial one), and Adam forgets what it knew about them.

    Attributes:
        kind: "worst" takes the inputs of the largest squared error, with encoder rows of norm 1;
            "loss_weighted" draws inputs with a probability proportional to the square of that
            error, with encoder rows of 0.2 times the mean norm of the live ones, as in Bricken et
            al. 2023. The draws come from the SAE's seed and the step. "as_it_is" takes the worst
            inputs, neither centred nor scaled in the encoder, and leaves biases and Adam's memory
            as they were.
        every: steps between two resamplings.
        until: last step after which to resample; by default the last of the run.

    Raises:
        ValueError, TypeError: for another kind, or numbers below 1.
    """

    kind: str
    every: int
    until: int | None = None

    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, KINDS)
        check_positive_int("every", self.every)
        if self.until is not None:
            check_positive_int("until", self.until)

    def due(self, n_steps: int) -> bool:
        """Whether to resample after so many steps."""
        return n_steps % self.every == 0 and (self.until is None or n_steps <= self.until)


@torch.no_grad()
def resample(
    stack: Stack, x: Tensor, errors: Tensor, *, kind: str, step: int, seeds: Sequence[int]
) -> None:
    """Give the dead latents of each SAE new weights.

    Args:
        stack: the SAEs.
        x: (batch, d_in) inputs.
        errors: (saes, d_in, batch) what is left of them, x̂ − x.
        kind: as in `Resampling`.
        step: the step that was taken last.
        seeds: one an SAE.
    """
    losses = errors.square().sum(1)  # (saes, batch)
    for i in stack.dead.any(-1).nonzero().flatten().tolist():
        latents = stack.dead[i].nonzero().flatten()[: len(x)]
        if kind == "worst":
            inputs = x[losses[i].topk(len(latents)).indices]
            _restart(stack, i, latents, inputs, 1.0)
        elif kind == "loss_weighted":
            drawn = _drawn_by_loss(losses[i], len(latents), _generator(seeds[i], step))
            _restart(stack, i, latents, x[drawn.to(x.device)], _share_of_live(stack, i))
        else:
            _overwrite(stack, i, latents, x[losses[i].topk(len(latents)).indices])


def _generator(seed: int, step: int) -> torch.Generator:
    """One for each SAE and step, so that no SAE depends on those beside it."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _drawn_by_loss(losses: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The places `(n,)` of inputs drawn with a probability by their squared loss."""
    weights = losses.double().cpu().square()
    weights = weights / weights.max().clamp(min=SMALLEST) + SMALLEST
    return torch.multinomial(weights, n, generator=generator)


def _share_of_live(stack: Stack, i: int) -> Any:
    """The norm of a fresh encoder row, from those of the live ones; 1 if none is."""
    live = ~stack.dead[i]
    if not live.any():
        return 1.0
    return ENCODER_SCALE * stack.weights["W_enc"][i, live].norm(dim=-1).mean()


def _restart(stack: Stack, i: int, latents: Tensor, x: Tensor, scale: Any) -> None:
    """Start `latents` of the i-th SAE on the directions of `x (n_latents, d_in)` from b_dec."""
    weights = stack.weights
    directions = normalize(x - weights["b_dec"][i], dim=-1)
    usable = directions.any(-1)
    latents, directions = latents[usable], directions[usable]
    fresh = {"W_dec": directions, "W_enc": scale * directions, **stack.gate.fresh(i)}
    for name, values in fresh.items():
        weights[name][i, latents] = values
    for moment in stack.moments():
        for name in fresh:
            moment[name][i, latents] = 0
    stack.since_fired[i, latents] = 0


def _overwrite(stack: Stack, i: int, latents: Tensor, x: Tensor) -> None:
    """Make inputs `x (n_latents, d_in)` the rows of `latents`, and leave all else."""
    usable = x.any(-1)
    stack.weights["W_enc"][i, latents[usable]] = x[usable]
    stack.weights["W_dec"][i, latents[usable]] = normalize(x[usable], dim=-1)
    stack.since_fired[i, latents[usable]] = 0
