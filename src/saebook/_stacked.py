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

from saebook._gates import GATES, Stage
from saebook._nesting import Nesting, prefix_widths

MAX_GRAD_NORM = 1.0  # sae-lens clips each SAE's gradient to this norm


class Stack:
    """Weights, gradients and optimizer state of a few SAEs of one architecture and shape.

    Args:
        saes: freshly initialised sae-lens training SAEs; their weights are copied.
        device: where to train.
        dead_feature_window: a latent silent for more than this many steps is dead.
    """

    def __init__(
        self, saes: Sequence[Any], *, device: torch.device, dead_feature_window: int
    ) -> None:
        self.cfgs = [sae.cfg for sae in saes]
        self.dead_feature_window = dead_feature_window
        self.weights = _gather(saes, device)
        self.flat = [torch.cat([w.flatten() for w in group]) for group in self._dtype_groups()]
        self.weights = self._views(self.flat)
        flat_grads = [torch.zeros_like(flat) for flat in self.flat]
        self.grads = self._views(flat_grads)
        for flat, grad in zip(self.flat, flat_grads, strict=True):
            flat.grad = grad
        self.optimizer = torch.optim.Adam(self.flat, fused=True)
        self.gate = GATES[self.cfgs[0].architecture()](self.cfgs, self.weights["W_dec"])
        self.nesting = Nesting(self.cfgs, self.weights["W_dec"])
        self.since_fired = torch.zeros(self.weights["b_enc"].shape, device=device)

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
    def train_step(self, batch: Batch, scratch: Scratch, step: int, lr: float) -> None:
        """Move every SAE by one step of Adam."""
        self.gradients(batch, scratch, step)
        self._clip(2 / len(batch.x))
        self.adam_step(lr)

    def adam_step(self, lr: float) -> None:
        """Take a step of Adam along the gradients as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Everything that changes during training, by name."""
        state = {f"weights.{name}": weight for name, weight in self.weights.items()}
        state["since_fired"] = self.since_fired
        state.update({f"gate.{name}": tensor for name, tensor in self.gate.state().items()})
        for i, flat in enumerate(self.flat):
            for name, tensor in self.optimizer.state[flat].items():
                state[f"adam.{i}.{name}"] = tensor
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self.state().items():
            if not name.startswith("adam."):
                tensor.copy_(state[name])
        for i, flat in enumerate(self.flat):
            names = [name for name in state if name.startswith(f"adam.{i}.")]
            moments = {name.split(".")[-1]: state[name].to(flat.device) for name in names}
            self.optimizer.state[flat] = moments

    @torch.no_grad()
    def write_back(self, saes: Sequence[Any], *, last_step: int) -> None:
        """Copy the trained weights into the sae-lens SAEs they came from."""
        for i, sae in enumerate(saes):
            for name, weight in self.weights.items():
                trained = weight[i].T if name == "W_enc" else weight[i]
                getattr(sae, name).data.copy_(trained)
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
        stage.pre += self._encoder_bias(enc, scale)[:, :, None]
        self.gate.forward(stage)
        errors = [buffer[f"error{q}"] for q in range(len(self.nesting.blocks))]
        self.nesting.decode(stage.acts, dec, w["b_dec"], batch.x_t, errors)  # product 2
        self._weigh(stage, errors)
        self._decoder_bias_gradient(batch, stage, dec, errors)
        self.nesting.accumulate(errors)
        d_pre = stage.spare
        self.nesting.backward(stage.acts, dec, errors, g["W_dec"], d_pre)  # products 3 and 4
        self.gate.backward(stage, d_pre)
        self._add_auxiliary_loss(stage, dec, errors[-1], d_pre, g["W_dec"])
        torch.mm(d_pre.flatten(0, 1), batch.x, out=g["W_enc"].flatten(0, 1))  # product 5
        self._finish(stage, enc, scale, d_pre.sum(-1))
        self.since_fired += 1
        self.since_fired.masked_fill_(stage.acts.amax(-1) > 0, 0)

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
            g.add_(b_dec, alpha=len(batch.x)).sub_(batch.x_sum)
        else:
            g.copy_(torch.stack([error.sum(-1) for error in errors]).sum(0))

    def _stage(
        self, step: int, norm: Tensor, buffer: dict[str, Tensor], weights: Tensor | None
    ) -> Stage:
        if "threshold" in self.grads:
            self.grads["threshold"].zero_()
        return Stage(
            step=step,
            weights=weights,
            pre=buffer["pre"],
            acts=buffer["acts"],
            mask=buffer["mask"],
            spare=buffer["spare"],
            norm=norm,
            dead=self.since_fired > self.dead_feature_window,
            threshold=self.weights.get("threshold"),
            d_norm=torch.zeros_like(norm),
            d_threshold=self.grads.get("threshold"),
        )

    def _encoder_bias(self, enc: Tensor, scale: Tensor | None) -> Tensor:
        """The bias of the pre-activations once `b_dec` is no longer subtracted from the input."""
        bias = self.weights["b_enc"] if scale is None else self.weights["b_enc"] * scale
        if self.cfgs[0].apply_b_dec_to_input:
            bias = bias - torch.bmm(enc, self.weights["b_dec"][:, :, None])[:, :, 0]
        return bias

    def _add_auxiliary_loss(
        self, stage: Stage, dec: Tensor, error: Tensor, d_pre: Tensor, d_dec: Tensor
    ) -> None:
        """Let dead latents reconstruct what live ones leave (Gao et al. 2024, appendix A.2)."""
        if not self.gate.rescales_by_norm or not bool(stage.dead.any()):
            return
        k_most = dec.shape[-1] // 2
        for i in stage.dead.any(-1).nonzero().flatten().tolist():
            dead = stage.dead[i].nonzero().flatten()
            weight = self.cfgs[i].aux_loss_coefficient * min(len(dead) / k_most, 1.0)
            acts, atoms = stage.pre[i, dead], dec[i, dead]
            if len(dead) > k_most:
                kept = acts.topk(k_most, dim=0, sorted=False).indices
                chosen = torch.zeros_like(acts).scatter_(0, kept, 1)
            else:
                chosen = torch.ones_like(acts)
            acts = acts * chosen
            recons = atoms.T @ acts
            if stage.weights is not None:
                recons *= stage.weights[i]
            d_recons = weight * (recons + error[i])  # the error is minus the residual
            d_pre[i, dead] += (atoms @ d_recons) * chosen
            d_dec[i, dead] += acts @ d_recons.T

    def _finish(self, stage: Stage, enc: Tensor, scale: Tensor | None, d_bias: Tensor) -> None:
        """Carry the gradients over from the rescaled weights to the weights themselves."""
        w, g = self.weights, self.grads
        if self.cfgs[0].apply_b_dec_to_input:
            g["b_dec"] -= torch.bmm(d_bias[:, None], enc)[:, 0]
            g["W_enc"].baddbmm_(d_bias[:, :, None], w["b_dec"][:, None], alpha=-1)
        torch.mul(d_bias, 1 if scale is None else scale, out=g["b_enc"])
        if scale is not None:
            g["W_enc"] *= scale[:, :, None]
            g["W_dec"] /= scale[:, :, None]
        if self.gate.has_norm_gradient:
            g["W_dec"].addcmul_(w["W_dec"], (stage.d_norm / stage.norm)[:, :, None])

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


class Batch:
    """A batch `x (batch, d_in)` with its transpose, contiguous, and its sum over the samples.

    Samples count equally, or by `weights (saes, 1, batch)` of mean 1.
    """

    def __init__(self, x: Tensor, weights: Tensor | None = None) -> None:
        self.x = x
        self.x_t = x.T.contiguous()
        self.x_sum = x.sum(0)
        self.weights = weights


class Scratch:
    """Buffers for the SAEs at work, allocated once: fresh memory would cost more than the work.

    Args:
        like: a tensor of the dtype and device wanted.
        n_saes: most SAEs that are at work at once.
        batch: samples a step.
        cfg: a config of the SAEs, for their sizes.
    """

    def __init__(self, like: Tensor, n_saes: int, *, batch: int, cfg: Any) -> None:
        sizes = self._sizes(batch, cfg)
        self.buffers = {name: like.new_empty(n_saes, *size) for name, size in sizes.items()}

    @classmethod
    def bytes_per_sae(cls, element_size: int, *, batch: int, cfg: Any) -> int:
        """Memory that the buffers of one SAE take."""
        return element_size * sum(
            rows * columns for rows, columns in cls._sizes(batch, cfg).values()
        )

    @staticmethod
    def _sizes(batch: int, cfg: Any) -> dict[str, tuple[int, int]]:
        sizes = dict.fromkeys(("pre", "acts", "mask", "spare"), (cfg.d_sae, batch))
        sizes |= dict.fromkeys(("enc", "dec"), (cfg.d_sae, cfg.d_in))
        return sizes | {f"error{q}": (cfg.d_in, batch) for q in range(len(prefix_widths(cfg)))}

    def first(self, n: int) -> dict[str, Tensor]:
        """The buffers of the first `n` SAEs."""
        return {name: buffer[:n] for name, buffer in self.buffers.items()}


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


def _gather(saes: Sequence[Any], device: torch.device) -> dict[str, Tensor]:
    """The weights of sae-lens SAEs, stacked along a new leading axis."""
    names = ["W_enc", "W_dec", "b_enc", "b_dec"] + ["threshold"] * hasattr(saes[0], "threshold")
    weights = {name: torch.stack([getattr(sae, name).detach() for sae in saes]) for name in names}
    weights["W_enc"] = weights["W_enc"].transpose(1, 2).contiguous()
    return {name: weight.to(device) for name, weight in weights.items()}
