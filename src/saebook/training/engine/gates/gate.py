"""What turns pre-activations into latent activations, forwards and backwards, for a stack of SAEs.

A gate is all in which the architectures of `ensembles` differ; `engine.gates` lists them. Shapes
carry a leading axis over the SAEs at work.
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

    `weights`, `(saes, 1, batch)`, are those of the samples, None where all count equally. `norm`
    (of decoder rows), `scale` (what selection multiplies pre-activations by: `norm` or ones),
    `dead` and each of the gate's `own` weights are `(saes, d_sae)`; so are `totals`, the weighted
    sums of activations over the samples, and the gradients `d_bias` (by what is added to
    pre-activations), `d_norm` and `d_own`.

    In PyTorch's steps `pre` and `acts` are `(saes, d_sae, batch)`, the latter 0 where a latent is
    not active. A gate of `copies = 2` gives two activations to every latent and sample, each with
    its own reconstruction: `acts` and `weights` then hold the batch twice, `pre` once.
    """

    step: int
    weights: Tensor | None
    norm: Tensor
    scale: Tensor
    dead: Tensor
    own: dict[str, Tensor]
    totals: Tensor
    d_bias: Tensor
    d_norm: Tensor
    d_own: dict[str, Tensor]
    pre: Tensor
    acts: Tensor

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
    is_compiled = True  # whether there are loops for it
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

    @cached_property
    def auxiliary(self) -> Tensor:
        """The coefficient of each SAE's auxiliary loss, (saes,)."""
        found = [getattr(cfg, "aux_loss_coefficient", 0.0) for cfg in self.cfgs]
        return self.like.new_tensor(found if self.rescales_by_norm else [0.0] * len(found))

    def cuts(self, ranked: Tensor, step: int, at: slice = slice(None)) -> Tensor:
        """What each sample's activations have to reach, (saes, batch), above zero.

        Args:
            ranked: (saes, batch, d_sae) pre-activations times the scale of selection.
            step: the step.
            at: which of all SAEs these are.
        """
        return self.smallest.expand(ranked.shape[:2])

    @cached_property
    def smallest(self) -> Tensor:
        """The smallest number that counts as above zero, (1, 1)."""
        return self.like.new_full((1, 1), torch.finfo(self.like.dtype).tiny)

    def penalty(self, stage: Stage) -> Tensor:
        """The slope of a penalty on activations, (saes, d_sae)."""
        return (self.half_coefficients(stage) * stage.norm[:, :, None])[:, :, 0]

    def norm_gradient(self, stage: Stage) -> Tensor:
        """The gradient by the norms of the decoder rows, (saes, d_sae)."""
        return self.half_coefficients(stage)[:, :, 0] * stage.totals

    def forward(self, stage: Stage) -> None:
        """Fill `stage.acts` and `stage.totals` from `stage.pre`."""
        ranked = stage.scale[:, :, None] * stage.pre
        cuts = self.cuts(ranked.mT, stage.step)
        torch.mul(stage.pre, ranked >= cuts[:, None], out=stage.acts)
        torch.sum(stage.weighted(stage.acts), -1, out=stage.totals)

    def fired(self, stage: Stage) -> Tensor:
        """Which latents were active on any sample, `(saes, d_sae)`."""
        return stage.totals > 0

    def backward(self, stage: Stage, d_acts: Tensor) -> Tensor:
        """From the squared error's gradient by `acts`, the whole one by `pre`; may overwrite."""
        d_acts += stage.weighted(self.penalty(stage)[:, :, None])
        return d_acts.mul_(stage.acts > 0)


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
