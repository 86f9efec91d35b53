"""One training step for a stack of SAEs: five matrix products, written out by hand.

Weights carry a leading `n_saes` axis and the batch is the last axis of every large tensor, the
layout in which all five products run near the machine's peak. `W_enc` is stored as `(d_sae, d_in)`,
the transpose of sae-lens. The gradient is that of `sae_lens` 6.54; the tests hold it against
`SAETrainer.step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saebook.training.engine.auxiliary import auxiliary_gradients
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.gates import GATES
from saebook.training.engine.gates.gate import Gate, Stage
from saebook.training.engine.nesting import Nesting

MAX_GRAD_NORM = 1.0  # sae-lens clips each SAE's gradient to this norm


class Stack:
    """Weights, gradients and optimizer state of a few SAEs of one architecture and shape.

    Args:
        saes: sae-lens training SAEs; their weights and what their gates remember are copied.
        device: where to train.
        dead_feature_window: a latent silent for more than this many steps is dead.
    """

    def __init__(
        self, saes: Sequence[Any], *, device: torch.device, dead_feature_window: int
    ) -> None:
        self.cfgs = [sae.cfg for sae in saes]
        self.dead_feature_window = dead_feature_window
        gate = GATES[self.cfgs[0].architecture()]
        self.weights = _gather(saes, gate, device)
        self.flat = [torch.cat([w.flatten() for w in group]) for group in self._dtype_groups()]
        self.weights = self._views(self.flat)
        flat_grads = [torch.zeros_like(flat) for flat in self.flat]
        self.grads = self._views(flat_grads)
        for flat, grad in zip(self.flat, flat_grads, strict=True):
            flat.grad = grad
        self.optimizer = torch.optim.Adam(self.flat, fused=True)
        self.gate = gate(self.cfgs, self.weights["W_dec"])
        for name, remembered in self.gate.state().items():
            remembered.copy_(torch.stack([getattr(sae, name) for sae in saes]))
        self.nesting = Nesting(self.cfgs, self.weights["W_dec"])
        self.since_fired = torch.zeros(self.weights["W_dec"].shape[:2], device=device)

    def _dtype_groups(self) -> list[list[Tensor]]:
        groups: dict[torch.dtype, list[Tensor]] = {}
        for weight in self.weights.values():
            groups.setdefault(weight.dtype, []).append(weight)
        return list(groups.values())

    def _views(self, flat: list[Tensor]) -> dict[str, Tensor]:
        """The named weights as views of one flat tensor per dtype, each contiguous."""
        views, offsets = {}, {f.dtype: 0 for f in flat}
        by_dtype = {f.dtype: f for f in flat}
        for name, weight in self.weights.items():
            start = offsets[weight.dtype]
            offsets[weight.dtype] = start + weight.numel()
            views[name] = by_dtype[weight.dtype][start : start + weight.numel()].view(weight.shape)
        return views

    @torch.no_grad()
    def train_step(self, batch: Batch, scratch: Scratch, step: int, lrs: Sequence[float]) -> None:
        """Move every SAE by one step of Adam, each at its own rate."""
        self.gradients(batch, scratch, step)
        self._clip(2 / len(batch.x))
        self.adam_step(lrs)

    def adam_step(self, lrs: Sequence[float]) -> None:
        """Take a step of Adam along the gradients as they are, at a rate for each SAE."""
        fastest = max(lrs)
        for group in self.optimizer.param_groups:
            group["lr"] = fastest
        before = None if min(lrs) == fastest else self._views([flat.clone() for flat in self.flat])
        self.optimizer.step()
        if before is not None:  # a step is proportional to its rate
            for name, weight in self.weights.items():
                shares = weight.new_tensor([lr / fastest for lr in lrs])
                shares = shares.view(-1, *[1] * (weight.ndim - 1))
                torch.lerp(before[name], weight, shares, out=weight)

    @property
    def dead(self) -> Tensor:
        """Which latents count as dead, (saes, d_sae)."""
        return self.since_fired > self.dead_feature_window

    def moments(self) -> list[dict[str, Tensor]]:
        """Adam's running means of the gradients and of their squares, by weight, as views."""
        states = [self.optimizer.state[flat] for flat in self.flat]
        return [self._views([state[k] for state in states]) for k in ("exp_avg", "exp_avg_sq")]

    def memory(self) -> dict[str, Tensor]:
        """What training remembers besides weights, an entry an SAE on the first axis.

        Adam's two moments by weight, and for how long each latent has been silent.
        """
        names = ("exp_avg", "exp_avg_sq")
        moments = {
            f"{name}.{weight}": tensor
            for name, moment in zip(names, self.moments(), strict=True)
            for weight, tensor in moment.items()
        }
        return {"since_fired": self.since_fired, **moments}

    def recall(self, memory: dict[str, Tensor], n_steps: int) -> None:
        """Take over what `memory` gave after so many steps; nothing, for the start."""
        for flat in self.flat:
            self.optimizer.state[flat] = {
                "step": torch.tensor(float(n_steps), device=flat.device),
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        if memory:
            for name, tensor in self.memory().items():
                tensor.copy_(memory[name])

    def state(self) -> dict[str, Tensor]:
        """The weights and what the gate remembers, an entry an SAE on the first axis."""
        state = {f"weights.{name}": weight for name, weight in self.weights.items()}
        return state | {f"gate.{name}": tensor for name, tensor in self.gate.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    @torch.no_grad()
    def write_back(self, saes: Sequence[Any], *, last_step: int) -> None:
        """Copy the trained weights and the gate's state into the SAEs they came from."""
        for i, sae in enumerate(saes):
            for name, weight in self.weights.items():
                trained = weight[i].T if name == "W_enc" else weight[i]
                getattr(sae, name).data.copy_(trained)
            for name, remembered in self.gate.state().items():
                getattr(sae, name).copy_(remembered[i])
        self.gate.write_back(saes, last_step)

    @torch.no_grad()
    def gradients(self, batch: Batch, scratch: Scratch, step: int) -> None:
        """Fill the gradients, in units of `2 / batch`."""
        buffer = scratch.first(len(self.cfgs))
        w, g = self.weights, self.grads
        norm = w["W_dec"].norm(dim=-1)  # (saes, d_sae)
        rescaled = self.gate.rescales_by_norm and self.cfgs[0].rescale_acts_by_decoder_norm
        scale = norm if rescaled else None
        enc, dec = _rescaled(w["W_enc"], w["W_dec"], scale, buffer)
        stage = self._stage(step, norm, buffer, batch.weights)

        torch.mm(enc.flatten(0, 1), batch.x.T, out=stage.pre.flatten(0, 1))  # product 1: encode
        self._add_encoder_bias(stage.pre, enc, scale)
        self.gate.forward(stage)
        errors = scratch.errors(len(self.cfgs))
        self.nesting.decode(stage.acts, dec, w["b_dec"], batch.x_t, errors)  # product 2
        auxiliary = []
        if self.gate.rescales_by_norm:  # the architectures that have such a loss
            blocks = self.nesting.blocks
            auxiliary = auxiliary_gradients(self.cfgs, stage, dec, errors, blocks)
        self._weigh(stage, errors)
        self._decoder_bias_gradient(batch, stage, dec, errors)
        self.nesting.accumulate(errors)
        d_acts = stage.spare
        self.nesting.backward(stage.acts, dec, errors, g["W_dec"], d_acts)  # products 3 and 4
        d_pre = self.gate.backward(stage, d_acts)
        for i, latents, d_latent_acts, d_rows in auxiliary:
            d_pre[i, latents] += d_latent_acts
            g["W_dec"][i, latents] += d_rows
        torch.mm(d_pre.flatten(0, 1), batch.x, out=g["W_enc"].flatten(0, 1))  # product 5
        self._finish(stage, enc, scale, d_pre.sum(-1))
        self.since_fired += 1
        self.since_fired.masked_fill_(self.gate.fired(stage), 0)

    def _weigh(self, stage: Stage, errors: list[Tensor]) -> None:
        """Give the errors the weights of their prefixes and of their samples."""
        self.nesting.weigh(errors)
        if stage.weights is not None:
            for error in errors:
                error *= stage.weights

    def _decoder_bias_gradient(
        self, batch: Batch, stage: Stage, dec: Tensor, errors: list[Tensor]
    ) -> None:
        """The sum of the errors; a plain SAE on plain samples has it without touching them."""
        g, b_dec = self.grads["b_dec"], self.weights["b_dec"]
        if self.nesting.plain and batch.weights is None:
            g.copy_(torch.bmm(stage.acts.sum(-1)[:, None], dec)[:, 0])
            g.add_(b_dec, alpha=batch.x_t.shape[1]).sub_(batch.x_sum)
        else:
            g.copy_(torch.stack([error.sum(-1) for error in errors]).sum(0))

    def _stage(
        self, step: int, norm: Tensor, buffer: dict[str, Tensor], weights: Tensor | None
    ) -> Stage:
        own = self.gate.own
        return Stage(
            step=step,
            weights=weights,
            pre=buffer["pre"],
            acts=buffer["acts"],
            mask=buffer["mask"],
            spare=buffer["spare"],
            norm=norm,
            dead=self.dead,
            own={name: self.weights[name] for name in own},
            d_norm=torch.zeros_like(norm),
            d_own={name: self.grads[name] for name in own},
        )

    def _add_encoder_bias(self, pre: Tensor, enc: Tensor, scale: Tensor | None) -> None:
        """Add the bias that is left once `b_dec` is no longer subtracted from the input."""
        bias = torch.zeros_like(enc[:, :, 0])
        if self.gate.has_encoder_bias:
            bias += self.weights["b_enc"] if scale is None else self.weights["b_enc"] * scale
        if self.cfgs[0].apply_b_dec_to_input:
            bias -= torch.bmm(enc, self.weights["b_dec"][:, :, None])[:, :, 0]
        pre += bias[:, :, None]

    def _finish(self, stage: Stage, enc: Tensor, scale: Tensor | None, d_bias: Tensor) -> None:
        """Carry the gradients over from the rescaled weights to the weights themselves."""
        w, g = self.weights, self.grads
        if self.cfgs[0].apply_b_dec_to_input:
            g["b_dec"] -= torch.bmm(d_bias[:, None], enc)[:, 0]
            g["W_enc"].baddbmm_(d_bias[:, :, None], w["b_dec"][:, None], alpha=-1)
        if self.gate.has_encoder_bias:
            torch.mul(d_bias, 1 if scale is None else scale, out=g["b_enc"])
        if scale is not None:
            g["W_enc"] *= scale[:, :, None]
            g["W_dec"] /= scale[:, :, None]
        if self.gate.has_norm_gradient:
            by_norm = (stage.d_norm / stage.norm).masked_fill_(stage.norm == 0, 0)  # as autograd
            g["W_dec"].addcmul_(w["W_dec"], by_norm[:, :, None])

    def _clip(self, unit: float) -> None:
        """Bring the gradients to natural units and each SAE's gradient to a norm of at most one."""
        norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in self.grads.values()]
        norm = torch.stack([each.to(norms[0].dtype) for each in norms]).norm(dim=0) * unit
        self.scale_gradients((MAX_GRAD_NORM / (norm + 1e-6)).clamp(max=1) * unit)

    def scale_gradients(self, factor: Tensor | float) -> None:
        """Multiply the gradients by a number, or by one for each SAE `(saes,)`."""
        factor = torch.as_tensor(factor).expand(len(self.cfgs))
        for grad in self.grads.values():
            grad.mul_(factor.to(grad).view(-1, *[1] * (grad.ndim - 1)))


def _rescaled(
    W_enc: Tensor, W_dec: Tensor, scale: Tensor | None, buffer: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Encoder and decoder of the same SAE with the decoder norms `scale` moved into the encoder.

    In these units a latent is selected by its activation alone. The gradient by the norms
    themselves is zero: what the encoder gains the decoder loses.
    """
    if scale is None:
        return W_enc, W_dec
    enc = torch.mul(W_enc, scale[:, :, None], out=buffer["enc"])
    dec = torch.div(W_dec, scale[:, :, None], out=buffer["dec"])
    return enc, dec


def _gather(saes: Sequence[Any], gate: type[Gate], device: torch.device) -> dict[str, Tensor]:
    """The weights of sae-lens SAEs, stacked along a new leading axis."""
    names = ["W_enc", "W_dec", *["b_enc"] * gate.has_encoder_bias, "b_dec", *gate.own]
    weights = {name: torch.stack([getattr(sae, name).detach() for sae in saes]) for name in names}
    weights["W_enc"] = weights["W_enc"].transpose(1, 2).contiguous()
    return {name: weight.to(device) for name, weight in weights.items()}
