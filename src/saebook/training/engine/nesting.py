"""Reconstructions from nested prefixes of the latents, forwards and backwards, for a stack of SAEs.

A plain SAE has one prefix, all of its latents. The latents between two prefixes are a *block*. With
e_q the error of the reconstruction from the blocks up to q and β_q its weight, the squared error's
gradient reaches block q through E_q = β_q e_q + E_{q+1}; where β_q = ∞ it is E_q = e_q alone.
Tensors are laid out as in `_stacked`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from saebook.saes.matryoshka import block_weights


class Nesting:
    """The blocks of a stack of SAEs and the weights of their losses.

    Args:
        cfgs: sae-lens training configs that share their prefix widths, if they have any.
        like: a tensor of the dtype and device to work in.
    """

    def __init__(self, cfgs: Sequence[Any], like: Tensor) -> None:
        widths = prefix_widths(cfgs[0])
        self.blocks = [slice(start, stop) for start, stop in pairwise([0, *widths])]
        self.plain = len(self.blocks) == 1
        self.weights = self.keeps = like.new_ones(())
        if not self.plain:
            weights = like.new_tensor([block_weights(cfg) for cfg in cfgs])
            weights = weights.T[:, :, None, None]  # (blocks, saes, 1, 1)
            detached = weights.isinf()
            self.weights = weights.masked_fill(detached, 1)
            self.keeps = (~detached).to(like.dtype)

    def decode(
        self, acts: Tensor, dec: Tensor, b_dec: Tensor, x_t: Tensor, errors: list[Tensor]
    ) -> None:
        """Fill `errors`, each (saes, d_in, batch), with x̂ − x of every prefix."""
        for q, block in enumerate(self.blocks):
            torch.bmm(dec[:, block].mT, acts[:, block], out=errors[q])
            if q > 0:
                errors[q] += errors[q - 1]
            else:
                errors[q] += b_dec[:, :, None]
                errors[q] -= x_t

    def weigh(self, errors: list[Tensor]) -> None:
        """Multiply each prefix's error by the weight of its loss."""
        if not self.plain:
            for error, weight in zip(errors, self.weights, strict=True):
                error *= weight

    def accumulate(self, errors: list[Tensor]) -> None:
        """Turn the weighted errors into what reaches each block."""
        for q in reversed(range(len(errors) - 1)):
            errors[q].addcmul_(errors[q + 1], self.keeps[q])

    def backward(
        self, acts: Tensor, dec: Tensor, errors: list[Tensor], d_dec: Tensor, d_acts: Tensor
    ) -> None:
        """Fill the gradients by the decoder (saes, d_sae, d_in) and by the activations."""
        for block, error in zip(self.blocks, errors, strict=True):
            torch.bmm(acts[:, block], error.mT, out=d_dec[:, block])
            torch.bmm(dec[:, block], error, out=d_acts[:, block])


def prefix_widths(cfg: Any) -> list[int]:
    """The widths of the prefixes that reconstruct the input: all latents, in a plain SAE."""
    return getattr(cfg, "matryoshka_widths", None) or [cfg.d_sae]
