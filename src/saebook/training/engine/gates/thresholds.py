"""Gates that learn when a latent fires apart from how strongly: JumpReLU and Gated."""

from __future__ import annotations

import torch
from torch import Tensor

from saebook.training.engine.gates.gate import Gate, Stage


class JumpReLUGate(Gate):
    """JumpReLU with straight-through estimators for its threshold and its L0 penalty."""

    own = ("threshold",)
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

    def fresh(self, i: int) -> dict[str, float]:
        return super().fresh(i) | {"threshold": self.cfgs[i].jumprelu_init_threshold}

    def forward(self, stage: Stage) -> None:
        threshold = stage.own["threshold"].clamp_(min=0.0)
        active = stage.pre > threshold.to(stage.pre.dtype)[:, :, None]
        torch.mul(stage.pre, active, out=stage.acts)
        torch.sum(stage.acts, -1, out=stage.totals)

    def norm_gradient(self, stage: Stage) -> Tensor:
        return stage.d_norm

    def backward(self, stage: Stage, d_acts: Tensor) -> Tensor:
        threshold = stage.own["threshold"].to(stage.pre.dtype)[:, :, None]
        bandwidth, scale, half, target, push = self.columns(stage)
        near = (stage.pre - threshold).div_(bandwidth)
        near = torch.logical_and(near > -0.5, near < 0.5).to(stage.pre.dtype).div_(bandwidth)
        # `through` estimates the gradient by the threshold, negated
        if self.mode == 0:
            self._add_tanh_penalty(stage, d_acts, half, scale)
            through = near * threshold * d_acts
        else:
            penalty = half * self._l0_penalty_slope(stage, target)
            through = near * (threshold * d_acts + stage.weighted(penalty))
        stage.d_own["threshold"].copy_(-through.sum(-1))
        d_acts *= stage.acts > 0
        if self.to_input:
            d_acts += through
        self._add_pre_act_loss(stage, d_acts, threshold, push)
        return d_acts

    @property
    def mode(self) -> int:
        """That of the sparsity loss: 0 for "tanh", 1 for "step", 2 for "quadratic"."""
        return ("tanh", "step", "quadratic").index(self.cfgs[0].jumprelu_sparsity_loss_mode)

    @property
    def to_input(self) -> bool:
        """Whether the estimator's gradient reaches the input."""
        return self.cfgs[0].jumprelu_ste_to_input

    def columns(self, stage: Stage) -> list[Tensor]:
        """Numbers of the losses, each (saes, 1, 1): bandwidth of the estimators, scale of tanh,
        half of the sparsity loss, the L0 wanted, half of the pre-activation loss."""
        own = (
            [cfg.jumprelu_bandwidth for cfg in self.cfgs],
            [cfg.jumprelu_tanh_scale for cfg in self.cfgs],
            [cfg.target_l0 or 0.0 for cfg in self.cfgs],
            [0.5 * (cfg.pre_act_loss_coefficient or 0.0) for cfg in self.cfgs],
        )
        bandwidth, scale, target, push = (self.column(values) for values in own)
        return [bandwidth, scale, self.half_coefficients(stage), target, push]

    def _add_tanh_penalty(self, stage: Stage, d_acts: Tensor, half: Tensor, scale: Tensor) -> None:
        norm = stage.norm[:, :, None]
        slope = (stage.acts * (scale * norm)).tanh_().square_().neg_().add_(1).mul_(half * scale)
        slope = stage.weighted(slope)
        stage.d_norm += (slope * stage.acts).sum(-1)
        d_acts += slope.mul_(norm)

    def _l0_penalty_slope(self, stage: Stage, target: Tensor) -> Tensor | float:
        """Derivative of the penalty by a sample's L0: 1; if quadratic, 4/target · (L0 − target)."""
        if self.mode == 1:
            return 1.0
        return 4 / target * ((stage.acts > 0).sum(1, keepdim=True) - target)

    def _add_pre_act_loss(
        self, stage: Stage, d_pre: Tensor, threshold: Tensor, push: Tensor
    ) -> None:
        if not bool(push.any()) or not bool(stage.dead.any()):
            return
        short = (threshold - stage.pre).clamp_(min=0)
        weight = stage.weighted(push * stage.dead[:, :, None])
        pushed = weight * stage.norm[:, :, None] * (short > 0)
        stage.d_norm += (weight * short).sum(-1)
        stage.d_own["threshold"] += pushed.sum(-1)
        d_pre -= pushed


class GatedGate(Gate):
    """Gated: one bias decides which latents fire, a scale and another bias how strongly.

    Before any bias the two paths share their pre-activation `pre`. The first copy of a sample holds
    the activations, 1[pre + b_gate > 0] · relu(exp(r_mag) · pre + b_mag). The second holds those of
    the auxiliary loss, relu(pre + b_gate), which the L1 penalty acts on; they teach the gate, whose
    step has no gradient. Source: Rajamanoharan et al. 2024 (arXiv 2404.16014), as in sae-lens,
    where the auxiliary loss trains the decoder too.
    """

    own = ("b_gate", "b_mag", "r_mag")
    copies = 2
    is_compiled = False
    has_encoder_bias = False

    def fresh(self, i: int) -> dict[str, float]:
        return dict.fromkeys(self.own, 0.0)

    def forward(self, stage: Stage) -> None:
        batch = stage.pre.shape[-1]
        acts, gate_acts = stage.acts[:, :, :batch], stage.acts[:, :, batch:]
        b_gate, b_mag, r_mag = (stage.own[name][:, :, None] for name in self.own)
        torch.add(stage.pre, b_gate, out=gate_acts)
        torch.addcmul(b_mag, stage.pre, r_mag.exp(), out=acts)
        gate_acts.relu_()
        acts.relu_().mul_(gate_acts > 0)

    def fired(self, stage: Stage) -> Tensor:
        return stage.acts[:, :, : stage.pre.shape[-1]].amax(-1) > 0

    def norm_gradient(self, stage: Stage) -> Tensor:
        return stage.d_norm

    def backward(self, stage: Stage, d_acts: Tensor) -> Tensor:
        batch, half = stage.pre.shape[-1], self.half_coefficients(stage)
        gate_acts = stage.acts[:, :, batch:]
        penalty = half * stage.norm[:, :, None]
        if stage.weights is not None:
            gate_acts = gate_acts * stage.weights[:, :, batch:]
            penalty = penalty * stage.weights[:, :, batch:]
        stage.d_norm += half[:, :, 0] * gate_acts.sum(-1)
        d_acts[:, :, batch:] += penalty
        d_acts *= stage.acts > 0
        d_magnitude, d_gate = d_acts[:, :, :batch], d_acts[:, :, batch:]
        scale = stage.own["r_mag"].exp()
        torch.sum(d_gate, -1, out=stage.d_own["b_gate"])
        torch.sum(d_magnitude, -1, out=stage.d_own["b_mag"])
        torch.mul((d_magnitude * stage.pre).sum(-1), scale, out=stage.d_own["r_mag"])
        return torch.addcmul(d_gate, d_magnitude, scale[:, :, None], out=stage.pre)
