"""Reconstructions from nested prefixes of the latents, forwards and backwards, for a stack of SAEs.

A plain SAE has one prefix, all of its latents. The latents between two prefixes are a *block*. With
e_q the error of the reconstruction from the blocks up to q and β_q its weight, the squared error's
gradient reaches block q through E_q = β_q e_q + E_{q+1}; where β_q = ∞ it is E_q = e_q alone.
Tensors are laid out as in `engine.stack`.
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
        weights = like.new_tensor([[1.0] if self.plain else block_weights(cfg) for cfg in cfgs])
        detached = weights.isinf()
        self.betas = weights.masked_fill(detached, 1)  # (saes, blocks)
        self.keeps = (~detached).to(like.dtype)

    def decode(self, acts: Tensor, dec: Tensor, errors: list[Tensor]) -> None:
        """Fill `errors`, each (saes, d_in, batch), with what every prefix adds up to."""
        for q, block in enumerate(self.blocks):
            torch.bmm(dec[:, block].mT, acts[:, block], out=errors[q])
            if q > 0:
                errors[q] += errors[q - 1]

    def weigh(self, errors: Sequence[Tensor], saes: slice = slice(None)) -> None:
        """Multiply each prefix's error by the weight of its loss.

        Args:
            errors: of each prefix, with the SAEs along the first of three axes.
            saes: which these are.
        """
        if not self.plain:
            for error, beta in zip(errors, self.betas[saes].T, strict=True):
                error *= beta[:, None, None]

    def accumulate(self, errors: Sequence[Tensor], saes: slice = slice(None)) -> None:
        """Turn the weighted errors into what reaches each block."""
        for q in reversed(range(len(errors) - 1)):
            errors[q].addcmul_(errors[q + 1], self.keeps[saes, q, None, None])

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
