"""The auxiliary loss: dead latents learn to reconstruct what the live ones leave.

Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2, as in sae-lens; where a Matryoshka SAE has
`use_matryoshka_aux_loss`, the dead latents of a block reconstruct what its own prefix leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saebook.training.engine.gates.gate import Stage


def auxiliary_gradients(
    cfgs: Sequence[Any], stage: Stage, dec: Tensor, errors: list[Tensor], blocks: Sequence[slice]
) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """Gradients of the auxiliary loss, in units of `2 / batch`.

    Args:
        cfgs: training configs, one an SAE.
        stage: with its `pre`, `dead` and `weights`.
        dec: (saes, d_sae, d_in) decoder rows.
        errors: x̂ − x of every prefix, (saes, d_in, batch).
        blocks: the latents that each prefix adds.

    Returns:
        For each set of dead latents: the index of its SAE, their indices (n_dead,), and the
        gradients by their pre-activations (n_dead, batch) and decoder rows (n_dead, d_in).
    """
    by_block = getattr(cfgs[0], "use_matryoshka_aux_loss", False)
    parts = list(zip(blocks, errors, strict=True)) if by_block else [(slice(None), errors[-1])]
    found = []
    for i in stage.dead.any(-1).nonzero().flatten().tolist():
        if cfgs[i].aux_loss_coefficient == 0:
            continue
        for block, error in parts:
            latents = torch.arange(dec.shape[1], device=dec.device)[block]
            latents = latents[stage.dead[i, block]]
            if len(latents):
                weights = None if stage.weights is None else stage.weights[i]
                grads = _gradients(stage.pre[i, latents], dec[i, latents], error[i], weights)
                found.append((i, latents, *(g * cfgs[i].aux_loss_coefficient for g in grads)))
    return found


def _gradients(
    acts: Tensor, atoms: Tensor, error: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Those of one set of dead latents, by `acts (n_dead, batch)` and `atoms (n_dead, d_in)`.

    At most half as many latents as the input has dimensions take part for each sample; a smaller
    set counts less.
    """
    k_most = atoms.shape[-1] // 2
    chosen = torch.ones_like(acts)
    if len(acts) > k_most:
        kept = acts.topk(k_most, dim=0, sorted=False).indices
        chosen = torch.zeros_like(acts).scatter_(0, kept, 1)
    acts = acts * chosen
    d_recons = (atoms.T @ acts + error) * min(len(acts) / k_most, 1.0)  # minus the residual
    if weights is not None:
        d_recons *= weights
    return (atoms @ d_recons) * chosen, acts @ d_recons.T
