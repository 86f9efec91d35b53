"""The weights of a stack of SAEs, their gradients, and what training remembers of them.

Weights carry a leading `n_saes` axis. `W_enc` is stored as `(d_sae, d_in)`, the transpose of
sae-lens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from saebook.training.engine.gates import GATES
from saebook.training.engine.gates.gate import Gate
from saebook.training.engine.nesting import Nesting

# sae-lens' settings of Adam; PyTorch's function, for its object doubles the time of a small step
ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "amsgrad": False,
    "maximize": False,
    "fused": True,
}


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
        self.flat_grads = [torch.zeros_like(flat) for flat in self.flat]
        self.grads = self._views(self.flat_grads)
        self.gate = gate(self.cfgs, self.weights["W_dec"])
        for name, remembered in self.gate.state().items():
            remembered.copy_(torch.stack([getattr(sae, name) for sae in saes]))
        self.nesting = Nesting(self.cfgs, self.weights["W_dec"])
        self.since_fired = torch.zeros(self.weights["W_dec"].shape[:2], device=device)
        self.recall({}, 0)

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

    def adam_step(self, lrs: Sequence[float]) -> None:
        """Take a step of Adam along the gradients as they are, at a rate for each SAE."""
        fastest = max(lrs)
        before = None if min(lrs) == fastest else self._views([flat.clone() for flat in self.flat])
        adam(
            self.flat,
            self.flat_grads,
            self.exp_avgs,
            self.exp_avg_sqs,
            max_exp_avg_sqs=[],
            state_steps=self.n_steps,
            lr=fastest,
            **ADAM,
        )
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
        return [self._views(self.exp_avgs), self._views(self.exp_avg_sqs)]

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
        self.n_steps = [torch.tensor(float(n_steps), device=flat.device) for flat in self.flat]
        self.exp_avgs, self.exp_avg_sqs = (
            [torch.zeros_like(flat) for flat in self.flat] for _ in range(2)
        )
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


def _gather(saes: Sequence[Any], gate: type[Gate], device: torch.device) -> dict[str, Tensor]:
    """The weights of sae-lens SAEs, stacked along a new leading axis."""
    names = ["W_enc", "W_dec", *["b_enc"] * gate.has_encoder_bias, "b_dec", *gate.own]
    weights = {name: torch.stack([getattr(sae, name).detach() for sae in saes]) for name in names}
    weights["W_enc"] = weights["W_enc"].transpose(1, 2).contiguous()
    return {name: weight.to(device) for name, weight in weights.items()}
