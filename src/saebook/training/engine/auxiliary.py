"""The auxiliary loss: dead latents learn to reconstruct what the live ones leave.

Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2, as in sae-lens; where a Matryoshka SAE has
`use_matryoshka_aux_loss`, the dead latents of a block reconstruct what its own prefix leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def with_auxiliary_loss(cfgs: Sequence[Any], dead: Tensor) -> list[int]:
    """The SAEs that have dead latents and a loss that teaches these.

    Args:
        cfgs: training configs of an architecture that has one.
        dead: (saes, d_sae) which latents are.
    """
    found = dead.any(-1).nonzero().flatten().tolist()
    return [i for i in found if cfgs[i].aux_loss_coefficient]


def auxiliary_gradients(
    cfg: Any,
    ranked: Tensor,
    scale: Tensor,
    dead: Tensor,
    dec: Tensor,
    errors: Sequence[Tensor],
    blocks: Sequence[slice],
    weights: Tensor | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Gradients of one SAE's auxiliary loss, in units of `2 / batch`.

    Args:
        cfg: its training config.
        ranked: (d_sae, batch) pre-activations times `scale`, by which selection goes.
        scale: (d_sae,).
        dead: (d_sae,) which latents are.
        dec: (d_sae, d_in) decoder rows.
        errors: x̂ − x of every prefix, (d_in, batch).
        blocks: the latents that each prefix adds.
        weights: those of the samples, `(1, batch)`; by default all count equally.

    Returns:
        For each set of dead latents: their indices (n_dead,), and the gradients by their
        pre-activations (n_dead, batch) and decoder rows (n_dead, d_in).
    """
    by_block = getattr(cfg, "use_matryoshka_aux_loss", False)
    parts = list(zip(blocks, errors, strict=True)) if by_block else [(slice(None), errors[-1])]
    found = []
    for block, error in parts:
        latents = torch.arange(len(dec), device=dec.device)[block][dead[block]]
        if len(latents):
            own = ranked[latents], scale[latents, None], dec[latents]
            grads = _gradients(*own, error, weights)
            found.append((latents, *(g * cfg.aux_loss_coefficient for g in grads)))
    return found


def _gradients(
    ranked: Tensor, scale: Tensor, atoms: Tensor, error: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Those of one set of dead latents, by activations (n_dead, batch) and `atoms (n_dead, d_in)`.

    At most half as many latents as the input has dimensions take part for each sample; a smaller
    set counts less.
    """
    k_most = atoms.shape[-1] // 2
    chosen = torch.ones_like(ranked)
    if len(ranked) > k_most:
        kept = ranked.topk(k_most, dim=0, sorted=False).indices
        chosen = torch.zeros_like(ranked).scatter_(0, kept, 1)
    acts = ranked / scale * chosen
    d_recons = (atoms.T @ acts + error) * min(len(ranked) / k_most, 1.0)  # minus the residual
    if weights is not None:
        d_recons *= weights
    return (atoms @ d_recons) * chosen, acts @ d_recons.T
