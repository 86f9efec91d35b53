"""What turns pre-activations into latent activations, forwards and backwards, for a stack of SAEs.

A gate is all in which the architectures of `ensembles` differ; `_gates` lists them. Shapes carry a
leading axis over the SAEs at work, and the batch is the last axis: `pre (saes, d_sae, batch)`.
Gradients are those of the sae-lens losses (version 6.54), in units of `2 / batch`: the squared
error then has the gradient `x_hat − x`, and a penalty `λ · mean over the batch` has `λ / 2` times
its derivative per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saebook.saes.matryoshka import latent_penalty_weights


@dataclass(kw_only=True)
class Stage:
    """What a gate sees of a stack at one training step.

    `weights`, `(saes, 1, batch)`, are those of the samples, None where all count equally. `pre` and
    `acts` are `(saes, d_sae, batch)`; `mask` is 1 where a latent is active; `spare` is scratch of
    the same shape. `norm`, `dead` and each of the gate's `own` weights are `(saes, d_sae)`, and so
    are the gradients that a gate fills, `d_norm` (of norms) and `d_own`.

    A gate of `copies = 2` gives two activations to every latent and sample, each with its own
    reconstruction: `acts`, `mask`, `spare` and `weights` then hold the batch twice, `pre` once.
    """

    step: int
    weights: Tensor | None
    pre: Tensor
    acts: Tensor
    mask: Tensor
    spare: Tensor
    norm: Tensor
    dead: Tensor
    own: dict[str, Tensor]
    d_norm: Tensor
    d_own: dict[str, Tensor]

    def weighted(self, per_sample: Tensor) -> Tensor:
        """Values `(…, batch)` times the weights of their samples."""
        return per_sample if self.weights is None else per_sample * self.weights


class Gate:
    """ReLU with an L1 penalty on norm-weighted activations (`standard`); the base of the others.

    Args:
        cfgs: sae-lens training configs, one an SAE.
        like: a tensor of the dtype and device to work in.
    """

    own: tuple[str, ...] = ()  # its weights besides the encoder, the decoder and their biases
    rescales_by_norm = False
    splits_states = False  # whether exact training needs every state twice
    copies = 1  # activations that a latent has for one sample
    has_encoder_bias = True
    has_norm_gradient = True
    coefficient_name = "l1"
    varying = frozenset({"l1_coefficient", "l1_warm_up_steps"})

    def __init__(self, cfgs: Sequence[Any], like: Tensor) -> None:
        self.cfgs = cfgs
        self.like = like

    def column(self, values: Sequence[float]) -> Tensor:
        """One number an SAE, as `(saes, 1, 1)`."""
        return torch.tensor(values, dtype=self.like.dtype, device=self.like.device)[:, None, None]

    def half_coefficients(self, stage: Stage) -> Tensor:
        """Half of the sparsity coefficient in force after its linear warm-up, `(saes, 1, 1)`."""
        name = self.coefficient_name
        warm = [getattr(cfg, f"{name}_warm_up_steps") for cfg in self.cfgs]
        final = [getattr(cfg, f"{name}_coefficient") for cfg in self.cfgs]
        ramp = [min(1.0, stage.step / w) if w > 0 else 1.0 for w in warm]
        return self.column([0.5 * c * r for c, r in zip(final, ramp, strict=True)])

    def fresh(self, i: int) -> dict[str, float]:
        """The i-th SAE's initial biases and own weights, each the same for all latents."""
        return {"b_enc": 0.0} if self.has_encoder_bias else {}

    def state(self) -> dict[str, Tensor]:
        """What the gate remembers from step to step, by the name it has in a sae-lens SAE."""
        return {}

    def write_back(self, saes: Sequence[Any], last_step: int) -> None:
        """Tell sae-lens SAEs what they have to know besides the weights and the state."""

    def forward(self, stage: Stage) -> None:
        """Fill `stage.mask` and `stage.acts` from `stage.pre`."""
        torch.gt(stage.pre, 0, out=stage.mask)
        torch.mul(stage.pre, stage.mask, out=stage.acts)

    def fired(self, stage: Stage) -> Tensor:
        """Which latents were active on any sample, `(saes, d_sae)`."""
        return stage.acts.amax(-1) > 0

    def backward(self, stage: Stage, d_acts: Tensor) -> Tensor:
        """From the squared error's gradient by `acts`, the whole one by `pre`; may overwrite."""
        half = self.half_coefficients(stage)
        d_acts += stage.weighted(half * stage.norm[:, :, None])
        stage.d_norm += half[:, :, 0] * stage.weighted(stage.acts).sum(-1)
        return d_acts.mul_(stage.mask)


class MatryoshkaGate(Gate):
    """ReLU with an L1 penalty that counts once for every prefix a latent is in, by its weight."""

    def half_coefficients(self, stage: Stage) -> Tensor:
        """Half of the coefficient of each latent, `(saes, d_sae, 1)`."""
        return super().half_coefficients(stage) * self.counts

    @cached_property
    def counts(self) -> Tensor:
        """How often a latent's penalty counts, `(saes, d_sae, 1)`."""
        weights = [latent_penalty_weights(cfg) for cfg in self.cfgs]
        return self.like.new_tensor(weights)[:, :, None]
