"""The auxiliary loss: dead latents learn to reconstruct what the live ones leave.

Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2, as in sae-lens; where a Matryoshka SAE has
`use_matryoshka_aux_loss`, the dead latents of a block reconstruct what its own prefix leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saebook.training.engine.gates.gate import Stage
from saebook.training.engine.stack import Stack


def with_auxiliary_loss(stack: Stack, stage: Stage) -> list[int]:
    """The SAEs that have dead latents and a loss that teaches these."""
    taught = stage.dead.any(-1) & (stack.gate.auxiliary != 0)
    return taught.nonzero().flatten().tolist()


def auxiliary_gradients(
    stack: Stack, stage: Stage, i: int, ranked: Tensor, errors: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Gradients of the i-th SAE's auxiliary loss, in units of `2 / batch`.

    Args:
        ranked: (d_sae, batch) its pre-activations times `stage.scale`, by which selection goes.
        errors: its x̂ − x of every prefix, (d_in, batch).

    Returns:
        For each set of dead latents: their indices (n_dead,), and the gradients by their
        pre-activations (n_dead, batch) and decoder rows (n_dead, d_in).
    """
    cfg, dead, dec = stack.cfgs[i], stage.dead[i], stack.weights["W_dec"][i]
    scale, weights = stage.scale[i], None if stage.weights is None else stage.weights[i]
    blocks = stack.nesting.blocks
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


def add_to_sums(
    stack: Stack, stage: Stage, i: int, sets: list[tuple[Tensor, Tensor, Tensor]], x: Tensor
) -> None:
    """Add what `auxiliary_gradients` gives to gradients that are sums over the samples `x`."""
    for latents, d_latents, d_rows in sets:
        stack.grads["W_enc"][i, latents] += d_latents @ x
        stack.grads["W_dec"][i, latents] += d_rows
        stage.d_bias[i, latents] += d_latents.sum(-1)


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
