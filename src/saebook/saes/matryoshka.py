"""Matryoshka SAEs whose inner losses have weights; a part of `architectures`, import them there.

A Matryoshka SAE reconstructs the input from every *prefix* of its latents as well as from all. The
weight β of a prefix's loss moves the SAE from a plain one (β = 0) past the ordinary Matryoshka
(β = 1) to one whose prefix knows nothing of what comes after it (β = ∞). Sources: Bussmann et al.
(arXiv 2503.17547) for Matryoshka SAEs, Chanin et al., "Feature Hedging" (arXiv 2505.11756), for
balancing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import (
    BatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
)
from sae_lens.saes.sae import SAEConfig, TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from saebook._checks import check_in_range, check_positive_int


@dataclass
class BalancedMatryoshkaTrainingSAEConfig(StandardTrainingSAEConfig):
    """A ReLU SAE with an L1 penalty whose prefixes reconstruct the input too.

    With x̂_m the reconstruction from the first `matryoshka_widths[m]` latents, S_m the mean over
    samples of Σ_i ‖d_i‖ a_i over these latents, λ the L1 coefficient and β_M = 1 for the whole SAE,

        loss = Σ_m β_m · (mean ‖x − x̂_m‖² + λ S_m).

    β_m = ∞ stands for the *detached* form: no later reconstruction moves the latents of prefix m.
    The prefix counts with weight 1, later losses see its contribution as a constant, and each
    latent pays its penalty once. The decoder's bias stays shared, as in the paper's code, so this
    is close to the limit of a large β but not the same.

    Args:
        matryoshka_widths: number of latents in each prefix, increasing; the last is `d_sae`.
        inner_loss_multipliers: β of each prefix but the last, or one β for all of them; 0 … ∞.

    Raises:
        ValueError, TypeError: for widths or multipliers that are not as described.
    """

    matryoshka_widths: list[int] = field(default_factory=list)
    inner_loss_multipliers: list[float] | float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self.matryoshka_widths, self.d_sae)
        block_weights(self)
        if self.lp_norm != 1:
            raise ValueError(f"lp_norm must be 1 in a Matryoshka SAE, got {self.lp_norm}")

    @override
    @classmethod
    def architecture(cls) -> str:
        return "balanced_matryoshka"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        return StandardSAEConfig


@dataclass
class BalancedMatryoshkaBatchTopKTrainingSAEConfig(MatryoshkaBatchTopKTrainingSAEConfig):
    """sae-lens' Matryoshka BatchTopK with a weight β for each inner reconstruction.

    loss = mean ‖x − x̂‖² + Σ_m β_m · mean ‖x − x̂_m‖² + auxiliary loss; β = 0 is BatchTopK and β = 1
    the Matryoshka of sae-lens. β_m = ∞ is as in `BalancedMatryoshkaTrainingSAEConfig`.

    Args:
        matryoshka_widths, inner_loss_multipliers: as in `BalancedMatryoshkaTrainingSAEConfig`.

    Raises:
        ValueError, TypeError: for widths or multipliers that are not as described.
    """

    inner_loss_multipliers: list[float] | float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_widths(self.matryoshka_widths, self.d_sae)
        block_weights(self)

    @override
    @classmethod
    def architecture(cls) -> str:
        return "balanced_matryoshka_batchtopk"


def check_widths(widths: Any, d_sae: int) -> None:
    """Check that prefixes grow strictly from at least 1 latent to all `d_sae`."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or len(widths) == 0:
        raise ValueError(
            f"matryoshka_widths must be a list of widths such as [1, {d_sae}], got {widths!r}"
        )
    for width in widths:
        check_positive_int("matryoshka_widths", width)
    if any(width >= following for width, following in pairwise(widths)):
        raise ValueError(f"matryoshka_widths must increase strictly, got {list(widths)}")
    if widths[-1] != d_sae:
        raise ValueError(
            f"matryoshka_widths must end with d_sae = {d_sae}, the whole SAE, got {list(widths)}"
        )


def block_weights(cfg: Any) -> list[float]:
    """The loss weight of each prefix, 1 for the last; sae-lens' own Matryoshka has only ones.

    Raises:
        ValueError, TypeError: for multipliers of the wrong number, negative or not a number.
    """
    n_inner = len(cfg.matryoshka_widths) - 1
    multipliers = getattr(cfg, "inner_loss_multipliers", 1.0)
    if not isinstance(multipliers, Sequence):
        multipliers = [multipliers] * n_inner
    if len(multipliers) != n_inner:
        raise ValueError(
            f"inner_loss_multipliers must have one entry per inner prefix, {n_inner} in all, got "
            f"{list(multipliers)}"
        )
    return [check_in_range("inner_loss_multipliers", beta, 0) for beta in multipliers] + [1.0]


def penalty_weights(cfg: Any) -> list[float]:
    """How often, in sum, the sparsity penalty of a latent counts, for the latents of each block."""
    totals: list[float] = []
    for beta in reversed(block_weights(cfg)):
        totals.append(1.0 if math.isinf(beta) or not totals else beta + totals[-1])
    return totals[::-1]


def latent_penalty_weights(cfg: Any) -> list[float]:
    """`penalty_weights` for each of the `d_sae` latents."""
    sizes = [stop - start for start, stop in pairwise([0, *cfg.matryoshka_widths])]
    return [w for w, size in zip(penalty_weights(cfg), sizes, strict=True) for _ in range(size)]


def prefix_reconstructions(
    acts: Float[Tensor, "n d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    cfg: Any,
) -> Iterator[Float[Tensor, "n d_in"]]:
    """x̂ from each prefix of the latents, shape (n, d_in); cut from a prefix's gradient if β = ∞."""
    decoded, start = torch.zeros_like(b_dec), 0
    for width, beta in zip(cfg.matryoshka_widths, block_weights(cfg), strict=True):
        decoded = decoded + acts[:, start:width] @ W_dec[start:width]
        yield decoded + b_dec
        decoded = decoded.detach() if math.isinf(beta) else decoded
        start = width


def _nested_losses(
    sae: Any, acts: Tensor, W_dec: Tensor, x: Tensor
) -> dict[str, Float[Tensor, ""]]:
    """The weighted error of each prefix, named as sae-lens names it, and of the whole SAE."""
    losses = {}
    reconstructions = prefix_reconstructions(acts, W_dec, sae.b_dec, sae.cfg)
    weights = block_weights(sae.cfg)
    for width, beta, x_hat in zip(sae.cfg.matryoshka_widths, weights, reconstructions, strict=True):
        error = sae.mse_loss_fn(x_hat, x).sum(dim=-1).mean()
        name = "mse_loss" if width == sae.cfg.d_sae else f"inner_mse_loss_{width}"
        losses[name] = error * (1.0 if math.isinf(beta) else beta)
    return losses


class BalancedMatryoshkaTrainingSAE(StandardTrainingSAE):
    """A Matryoshka SAE with ReLU and L1, saved for inference as a standard SAE."""

    cfg: BalancedMatryoshkaTrainingSAEConfig

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        acts, hidden_pre = self.encode_with_hidden_pre(step_input.sae_in)
        losses = _nested_losses(self, acts, self.W_dec, step_input.sae_in)
        weights = acts.new_tensor(latent_penalty_weights(self.cfg))
        penalty = (acts * self.W_dec.norm(dim=1) * weights).sum(-1).mean()
        losses["l1_loss"] = step_input.coefficients["l1"] * penalty
        return TrainStepOutput(
            sae_in=step_input.sae_in,
            sae_out=self.decode(acts),
            feature_acts=acts,
            hidden_pre=hidden_pre,
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
        )


class BalancedMatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAE):
    """A Matryoshka BatchTopK SAE with weighted inner losses, saved as JumpReLU like its parent."""

    cfg: BalancedMatryoshkaBatchTopKTrainingSAEConfig

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        output = BatchTopKTrainingSAE.training_forward_pass(self, step_input)
        acts = output.feature_acts
        if self.cfg.rescale_acts_by_decoder_norm:
            acts = acts / self.W_dec.norm(dim=-1)
        output.losses |= _nested_losses(self, acts, self.W_dec, step_input.sae_in)
        output.loss = torch.stack(list(output.losses.values())).sum()
        return output
