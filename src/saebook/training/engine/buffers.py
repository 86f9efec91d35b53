"""The batch that a stack of SAEs sees in one step, and the memory that the step works in."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saebook.training.engine.gates import GATES
from saebook.training.engine.nesting import prefix_widths


class Batch:
    """A batch `x (batch, d_in)`, and what steps need of it.

    Samples count equally, or by `weights (saes, 1, batch)` of mean 1. For a gate of several
    `copies`, all but `x` and `x_ones` holds the batch as many times.
    """

    def __init__(self, x: Tensor, weights: Tensor | None = None, *, copies: int = 1) -> None:
        self.x = x
        self.x_t = x.T.repeat(1, copies)
        self.weights = weights if weights is None else weights.repeat(1, 1, copies)

    @cached_property
    def x_ones(self) -> Tensor:
        """The batch with a column of ones, (batch, d_in + 1)."""
        return torch.cat([self.x, self.x.new_ones(len(self.x), 1)], 1)


class Scratch:
    """Buffers for the SAEs at work, kept from step to step: fresh memory would cost more than work.

    Each is allocated when a step first asks for it, for the kinds of step need different ones.

    Args:
        like: a tensor of the dtype and device wanted.
        n_saes: most SAEs that are at work at once.
        batch: samples a step.
        cfg: a config of the SAEs, for their sizes.
    """

    def __init__(self, like: Tensor, n_saes: int, *, batch: int, cfg: Any) -> None:
        self.like, self.n_saes, self.batch, self.cfg = like, n_saes, batch, cfg
        self.width = batch * GATES[cfg.architecture()].copies

    @staticmethod
    def bytes_for(n_saes: int, *, like: Tensor, batch: int, cfg: Any, sparse: bool) -> int:
        """Memory that all buffers together take, where every step is sparse or every one is not."""
        gate, n_prefixes = GATES[cfg.architecture()], len(prefix_widths(cfg))
        acts, inputs, weights = cfg.d_sae * batch, cfg.d_in * batch, cfg.d_sae * cfg.d_in
        if like.device.type != "cpu" or not gate.is_compiled:
            numbers = n_saes * (acts + gate.copies * (2 * acts + n_prefixes * inputs))
        elif sparse:
            numbers = n_saes * n_prefixes * inputs + acts + weights
        else:
            numbers = n_saes * (acts + n_prefixes * inputs) + 3 * acts + inputs + 5 * weights
        return like.element_size() * numbers

    # Of compiled steps: samples first, and what one SAE alone needs only once.

    @cached_property
    def ranked(self) -> Tensor:
        """Pre-activations in the units of selection, (saes, batch, d_sae)."""
        return self._empty(self.n_saes, self.batch, self.cfg.d_sae)

    @cached_property
    def error_rows(self) -> Tensor:
        """x̂ − x of each prefix, (saes, prefixes, batch, d_in)."""
        n_prefixes = len(prefix_widths(self.cfg))
        return self._empty(self.n_saes, n_prefixes, self.batch, self.cfg.d_in)

    @cached_property
    def acts(self) -> Tensor:
        """One SAE's activations, (d_sae · batch,)."""
        return self._empty(self.cfg.d_sae * self.batch)

    @cached_property
    def slopes(self) -> Tensor:
        """The gradients by them."""
        return torch.empty_like(self.acts)

    @cached_property
    def scaled(self) -> Tensor:
        """One SAE's encoder with its bias, (d_sae, d_in + 1)."""
        return self._empty(self.cfg.d_sae, self.cfg.d_in + 1)

    @cached_property
    def spare(self) -> Tensor:
        """Room for a gradient by weights, (d_sae · d_in,)."""
        return self._empty(self.cfg.d_sae * self.cfg.d_in)

    @cached_property
    def gathered(self) -> Tensor:
        """Activations of dead latents, (d_sae · batch,)."""
        return torch.empty_like(self.acts)

    @cached_property
    def recons(self) -> Tensor:
        """What they reconstruct, (batch, d_in)."""
        return self._empty(self.batch, self.cfg.d_in)

    @cached_property
    def atoms(self) -> Tensor:
        """Their decoder rows, (d_sae · d_in,)."""
        return torch.empty_like(self.spare)

    @cached_property
    def d_enc(self) -> Tensor:
        """Gradients by their encoder, (d_sae, d_in)."""
        return self._empty(self.cfg.d_sae, self.cfg.d_in)

    @cached_property
    def d_dec(self) -> Tensor:
        """Gradients by their decoder, (d_sae, d_in)."""
        return torch.empty_like(self.d_enc)

    @cached_property
    def d_bias(self) -> Tensor:
        """Gradients by their biases, (d_sae,)."""
        return self._empty(self.cfg.d_sae)

    # Of steps in PyTorch: latents first, the batch as many times as the gate wants.

    @cached_property
    def pre(self) -> Tensor:
        """Pre-activations, (saes, d_sae, batch)."""
        return self._empty(self.n_saes, self.cfg.d_sae, self.batch)

    @cached_property
    def acts_of_all(self) -> Tensor:
        """Activations, (saes, d_sae, width)."""
        return self._empty(self.n_saes, self.cfg.d_sae, self.width)

    @cached_property
    def slopes_of_all(self) -> Tensor:
        """The gradients by them."""
        return torch.empty_like(self.acts_of_all)

    @cached_property
    def errors(self) -> list[Tensor]:
        """x̂ − x of each prefix, (saes, d_in, width)."""
        shape = (self.n_saes, self.cfg.d_in, self.width)
        return [self._empty(*shape) for _ in prefix_widths(self.cfg)]

    def _empty(self, *shape: int) -> Tensor:
        return self.like.new_empty(shape)
