"""Gates that keep the largest pre-activations: of a sample, or of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saebook.training.engine.gates.gate import Gate, Stage
from saebook.training.engine.selection import KthLargest, cuts_per_sample


class TopKGate(Gate):
    """The k largest pre-activations of each sample, each weighted by its decoder norm."""

    rescales_by_norm = True
    has_norm_gradient = False
    varying = frozenset({"k", "aux_loss_coefficient", "use_sparse_activations"})

    @staticmethod
    def k(cfg: Any, step: int) -> float:
        """The k of an SAE at a step."""
        return cfg.k

    def cuts(self, ranked: Tensor, step: int, at: slice = slice(None)) -> Tensor:
        ks = [int(cfg.k) for cfg in self.cfgs[at]]
        return cuts_per_sample(ranked, ks, self.smallest.item())

    def penalty(self, stage: Stage) -> Tensor:
        return torch.zeros_like(stage.norm)


class BatchTopKGate(TopKGate):
    """The `k · batch` largest pre-activations of a batch, with sae-lens' running threshold."""

    splits_states = True
    varying = TopKGate.varying | {"topk_threshold_lr"}

    def __init__(self, cfgs: Sequence[Any], like: Tensor) -> None:
        super().__init__(cfgs, like)
        self.select = KthLargest(len(cfgs))
        options: dict[str, Any] = {"dtype": torch.float64, "device": like.device}
        self.topk_threshold = torch.zeros(len(cfgs), **options)
        self.threshold_lr = torch.tensor([cfg.topk_threshold_lr for cfg in cfgs], **options)

    def state(self) -> dict[str, Tensor]:
        return {"topk_threshold": self.topk_threshold}

    def cuts(self, ranked: Tensor, step: int, at: slice = slice(None)) -> Tensor:
        batch = ranked.shape[1]
        ranks = [int(self.k(cfg, step) * batch) for cfg in self.cfgs[at]]
        kth = self.select(ranked.flatten(1), ranks, at)
        self.track_threshold(ranked, kth, at)
        return kth[:, None].clamp(min=self.smallest).repeat(1, batch)

    def forward(self, stage: Stage) -> None:
        if stage.weights is None:
            super().forward(stage)
        else:
            self.forward_states(stage)

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
        stage.pre[:, :, n:] = stage.pre[:, :, :n]  # matrix products may round them differently
        ranked = stage.scale[:, :, None] * stage.pre
        flat = ranked[:, :, :n].flatten(1)  # (saes, d_sae · n)
        mass = (stage.weights[:, :, :n] / n).expand(n_saes, d_sae, n).flatten(1)  # probabilities
        order = flat.argsort(dim=1, descending=True)
        k = self.column([self.k(cfg, stage.step) for cfg in self.cfgs])[:, 0]  # (saes, 1)
        spent = mass.gather(1, order).cumsum(1)
        last = (spent < k).sum(1, keepdim=True).clamp(max=flat.shape[1] - 1)
        kth = flat.gather(1, order.gather(1, last))
        above, at = ((mass * (flat > kth)).sum(1), (mass * (flat == kth)).sum(1))
        share = ((k[:, 0] - above) / at).clamp(0, 1)[:, None, None]
        kept = ranked >= kth.clamp(min=self.smallest)[:, :, None]
        kept[:, :, n:] &= ranked[:, :, n:] > kth[:, :, None]
        torch.mul(stage.pre, kept, out=stage.acts)
        torch.sum(stage.acts, -1, out=stage.totals)
        weights = 2 * stage.weights[:, :, :n]
        stage.weights = torch.cat([weights * share, weights * (1 - share)], dim=-1)
        self.track_threshold(ranked, kth[:, 0], slice(None))

    def track_threshold(self, ranked: Tensor, kth: Tensor, at: slice) -> None:
        """Move each running threshold towards the smallest activation kept in this batch."""
        running, smallest = self.topk_threshold[at], kth.double()
        too_few_positive = kth <= 0
        for i in too_few_positive.nonzero().flatten().tolist():
            positive = ranked[i][ranked[i] > 0]
            smallest[i] = positive.amin() if len(positive) else running[i]
        running.lerp_(smallest, self.threshold_lr[at])


class ScheduledBatchTopKGate(BatchTopKGate):
    """BatchTopK whose k follows a schedule."""

    varying = BatchTopKGate.varying | {
        "initial_k",
        "transition_k_start_step",
        "transition_k_duration_steps",
    }

    @staticmethod
    def k(cfg: Any, step: int) -> float:
        return cfg.k_at(step)

    def write_back(self, saes: Sequence[Any], last_step: int) -> None:
        for sae in saes:
            sae.set_step(last_step)
