"""What turns pre-activations into latent activations, forwards and backwards, for a stack of SAEs.

A gate is all in which the architectures of `ensembles` differ. Shapes carry a leading axis over the
SAEs at work, and the batch is the last axis: `pre (saes, d_sae, batch)`. Gradients are those of the
sae-lens losses (version 6.54), in units of `2 / batch`: the squared error then has the gradient
`x_hat − x`, and a penalty `λ · mean over the batch` has `λ / 2` times its derivative per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saebook._selection import KthLargest
from saebook.matryoshka import latent_penalty_weights


@dataclass(kw_only=True)
class Stage:
    """What a gate sees of a stack at one training step.

    `weights`, `(saes, 1, batch)`, are those of the samples, None where all count equally. `pre` and
    `acts` are `(saes, d_sae, batch)`; `mask` is 1 where a latent is active; `spare` is scratch of
    the same shape. `norm` and `dead` are `(saes, d_sae)`. A gate adds to the gradients `d_norm` and
    `d_threshold`, both `(saes, d_sae)`.
    """

    step: int
    weights: Tensor | None
    pre: Tensor
    acts: Tensor
    mask: Tensor
    spare: Tensor
    norm: Tensor
    dead: Tensor
    threshold: Tensor | None
    d_norm: Tensor
    d_threshold: Tensor | None

    def weighted(self, per_sample: Tensor) -> Tensor:
        """Values `(…, batch)` times the weights of their samples."""
        return per_sample if self.weights is None else per_sample * self.weights


class Gate:
    """ReLU with an L1 penalty on norm-weighted activations (`standard`); the base of the others.

    Args:
        cfgs: sae-lens training configs, one an SAE.
        like: a tensor of the dtype and device to work in.
    """

    rescales_by_norm = False
    splits_states = False  # whether exact training needs every state twice
    has_threshold = False
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

    def state(self) -> dict[str, Tensor]:
        """What the gate remembers from step to step."""
        return {}

    def write_back(self, saes: Sequence[Any], last_step: int) -> None:
        """Copy what the gate remembers into the trained sae-lens SAEs."""

    def forward(self, stage: Stage) -> None:
        """Fill `stage.mask` and `stage.acts` from `stage.pre`."""
        torch.gt(stage.pre, 0, out=stage.mask)
        torch.mul(stage.pre, stage.mask, out=stage.acts)

    def backward(self, stage: Stage, d_acts: Tensor) -> None:
        """Turn the squared error's gradient by `acts` into the whole one by `pre`, in place."""
        half = self.half_coefficients(stage)
        d_acts += stage.weighted(half * stage.norm[:, :, None])
        stage.d_norm += half[:, :, 0] * stage.weighted(stage.acts).sum(-1)
        d_acts *= stage.mask


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


class TopKGate(Gate):
    """The k largest pre-activations of each sample, each weighted by its decoder norm."""

    rescales_by_norm = True
    has_norm_gradient = False
    varying = frozenset({"k", "aux_loss_coefficient", "use_sparse_activations"})

    def forward(self, stage: Stage) -> None:
        for i, cfg in enumerate(self.cfgs):
            kept = stage.pre[i].T.contiguous().topk(cfg.k, dim=-1, sorted=False).indices
            stage.spare[i].zero_().scatter_(0, kept.T, 1)
        torch.gt(stage.pre, 0, out=stage.mask)
        stage.mask *= stage.spare
        torch.mul(stage.pre, stage.mask, out=stage.acts)

    def backward(self, stage: Stage, d_acts: Tensor) -> None:
        d_acts *= stage.mask


class BatchTopKGate(TopKGate):
    """The `k · batch` largest pre-activations of a batch, with sae-lens' running threshold."""

    splits_states = True
    varying = TopKGate.varying | {"topk_threshold_lr"}

    def __init__(self, cfgs: Sequence[Any], like: Tensor) -> None:
        super().__init__(cfgs, like)
        self.select = KthLargest(len(cfgs))
        self.smallest = torch.finfo(like.dtype).tiny
        options: dict[str, Any] = {"dtype": torch.float64, "device": like.device}
        self.topk_threshold = torch.zeros(len(cfgs), **options)
        self.threshold_lr = torch.tensor([cfg.topk_threshold_lr for cfg in cfgs], **options)

    def k(self, cfg: Any, step: int) -> float:
        """The k of an SAE at a step."""
        return cfg.k

    def state(self) -> dict[str, Tensor]:
        return {"topk_threshold": self.topk_threshold}

    def write_back(self, saes: Sequence[Any], last_step: int) -> None:
        for sae, threshold in zip(saes, self.topk_threshold.cpu(), strict=True):
            sae.topk_threshold = threshold.clone()

    def forward(self, stage: Stage) -> None:
        if stage.weights is not None:
            self.forward_states(stage)
            return
        flat = stage.pre.flatten(1)  # (saes, d_sae · batch)
        batch = stage.pre.shape[-1]
        ranks = [int(self.k(cfg, stage.step) * batch) for cfg in self.cfgs]
        kth = self.select(flat, ranks)
        torch.ge(stage.pre, kth.clamp(min=self.smallest)[:, None, None], out=stage.mask)
        torch.mul(stage.pre, stage.mask, out=stage.acts)
        self.track_threshold(stage, kth)

    def forward_states(self, stage: Stage) -> None:
        """Share out the budget of a very large batch that holds each state by its probability.

        The largest pre-activations take k of probability in all. At the threshold the budget
        serves only a share of the samples. So every state stands in the batch twice: the first
        copy keeps what is at the threshold, the second does not, and the share is the copies'
        weight.
        """
        assert stage.weights is not None
        n_saes, d_sae, batch = stage.pre.shape
        n = batch // 2
        flat = stage.pre[:, :, :n].flatten(1)  # (saes, d_sae · n)
        mass = (stage.weights[:, :, :n] / n).expand(n_saes, d_sae, n).flatten(1)  # probabilities
        order = flat.argsort(dim=1, descending=True)
        k = self.column([self.k(cfg, stage.step) for cfg in self.cfgs])[:, 0]  # (saes, 1)
        spent = mass.gather(1, order).cumsum(1)
        last = (spent < k).sum(1, keepdim=True).clamp(max=flat.shape[1] - 1)
        kth = flat.gather(1, order.gather(1, last))
        above, at = ((mass * (flat > kth)).sum(1), (mass * (flat == kth)).sum(1))
        share = ((k[:, 0] - above) / at).clamp(0, 1)[:, None, None]
        cut = kth.clamp(min=self.smallest)[:, :, None]
        torch.ge(stage.pre, cut, out=stage.mask)
        stage.mask[:, :, n:] *= stage.pre[:, :, n:] > kth[:, :, None]
        torch.mul(stage.pre, stage.mask, out=stage.acts)
        weights = 2 * stage.weights[:, :, :n]
        stage.weights = torch.cat([weights * share, weights * (1 - share)], dim=-1)
        self.track_threshold(stage, kth[:, 0])

    def track_threshold(self, stage: Stage, kth: Tensor) -> None:
        """Move each running threshold towards the smallest activation kept in this batch."""
        smallest = kth.double()
        too_few_positive = kth <= 0
        for i in too_few_positive.nonzero().flatten().tolist():
            positive = stage.acts[i][stage.acts[i] > 0]
            smallest[i] = positive.amin() if len(positive) else self.topk_threshold[i]
        self.topk_threshold.lerp_(smallest, self.threshold_lr)


class ScheduledBatchTopKGate(BatchTopKGate):
    """BatchTopK whose k follows a schedule."""

    varying = BatchTopKGate.varying | {
        "initial_k",
        "transition_k_start_step",
        "transition_k_duration_steps",
    }

    def k(self, cfg: Any, step: int) -> float:
        return cfg.k_at(step)

    def write_back(self, saes: Sequence[Any], last_step: int) -> None:
        super().write_back(saes, last_step)
        for sae in saes:
            sae.set_step(last_step)


class JumpReLUGate(Gate):
    """JumpReLU with straight-through estimators for its threshold and its L0 penalty."""

    has_threshold = True
    coefficient_name = "l0"
    varying = frozenset(
        {
            "l0_coefficient",
            "l0_warm_up_steps",
            "jumprelu_init_threshold",
            "jumprelu_bandwidth",
            "jumprelu_tanh_scale",
            "target_l0",
            "pre_act_loss_coefficient",
        }
    )

    def forward(self, stage: Stage) -> None:
        assert stage.threshold is not None
        stage.threshold.clamp_(min=0.0)
        torch.gt(stage.pre, stage.threshold.to(stage.pre.dtype)[:, :, None], out=stage.mask)
        torch.mul(stage.pre, stage.mask, out=stage.acts)

    def backward(self, stage: Stage, d_acts: Tensor) -> None:
        assert stage.threshold is not None and stage.d_threshold is not None
        cfgs = self.cfgs
        threshold = stage.threshold.to(stage.pre.dtype)[:, :, None]
        bandwidth = self.column([cfg.jumprelu_bandwidth for cfg in cfgs])
        near = (stage.pre - threshold).div_(bandwidth)
        near = torch.logical_and(near > -0.5, near < 0.5).to(stage.pre.dtype).div_(bandwidth)
        half = self.half_coefficients(stage)
        # `through` estimates the gradient by the threshold, negated
        if cfgs[0].jumprelu_sparsity_loss_mode == "tanh":
            self._add_tanh_penalty(stage, d_acts, half)
            through = near * threshold * d_acts
        else:
            penalty = stage.weighted(half * self._l0_penalty_slope(stage))
            through = near * (threshold * d_acts + penalty)
        stage.d_threshold -= through.sum(-1)
        d_acts *= stage.mask
        if cfgs[0].jumprelu_ste_to_input:
            d_acts += through
        self._add_pre_act_loss(stage, d_acts, threshold)

    def _add_tanh_penalty(self, stage: Stage, d_acts: Tensor, half: Tensor) -> None:
        scale = self.column([cfg.jumprelu_tanh_scale for cfg in self.cfgs])
        norm = stage.norm[:, :, None]
        slope = (stage.acts * (scale * norm)).tanh_().square_().neg_().add_(1).mul_(half * scale)
        slope = stage.weighted(slope)
        stage.d_norm += (slope * stage.acts).sum(-1)
        d_acts += slope.mul_(norm)

    def _l0_penalty_slope(self, stage: Stage) -> Tensor | float:
        """Derivative of the penalty by a sample's L0: 1; if quadratic, 4/target · (L0 − target)."""
        cfgs = self.cfgs
        if cfgs[0].jumprelu_sparsity_loss_mode == "step":
            return 1.0
        target = self.column([cfg.target_l0 for cfg in cfgs])
        return 4 / target * (stage.mask.sum(1, keepdim=True) - target)

    def _add_pre_act_loss(self, stage: Stage, d_pre: Tensor, threshold: Tensor) -> None:
        coefficients = [cfg.pre_act_loss_coefficient or 0.0 for cfg in self.cfgs]
        if not any(coefficients) or not bool(stage.dead.any()):
            return
        assert stage.d_threshold is not None
        short = (threshold - stage.pre).clamp_(min=0)
        weight = stage.weighted(0.5 * self.column(coefficients) * stage.dead[:, :, None])
        push = weight * stage.norm[:, :, None] * (short > 0)
        stage.d_norm += (weight * short).sum(-1)
        stage.d_threshold += push.sum(-1)
        d_pre -= push


GATES: dict[str, type[Gate]] = {
    "standard": Gate,
    "balanced_matryoshka": MatryoshkaGate,
    "matryoshka_batchtopk": BatchTopKGate,
    "balanced_matryoshka_batchtopk": BatchTopKGate,
    "topk": TopKGate,
    "batchtopk": BatchTopKGate,
    "scheduled_batchtopk": ScheduledBatchTopKGate,
    "jumprelu": JumpReLUGate,
}
