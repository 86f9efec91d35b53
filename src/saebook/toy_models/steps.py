"""One step of many toy models at once: their gradients by hand, and Adam.

Inside, the batch is the last axis: activations are `(n_models, n_features, batch)`. Matrix products
with few features and many samples are then fast, and sums run along memory.

Source: Elhage et al., "Toy Models of Superposition" (arXiv 2209.10652), the section "Demonstrating
superposition".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._running import one_thread, step_bar

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights:
    """What trains: W and W_in (n_models, n_features, d_hidden), b (n_models, n_features).

    `W_in` is `W` itself in a model whose weights are tied.
    """

    W: Float[Tensor, "n_models n_features d_hidden"]
    W_in: Float[Tensor, "n_models n_features d_hidden"]
    b: Float[Tensor, "n_models n_features"]
    relu_hidden: bool

    @property
    def tied(self) -> bool:
        """Whether the features enter and leave by the same directions."""
        return self.W_in is self.W

    def parameters(self) -> list[Tensor]:
        """The tensors to update, each once."""
        return [self.W, self.b] if self.tied else [self.W, self.b, self.W_in]


class Scratch:
    """Buffers of one step, so that none allocates."""

    def __init__(self, weights: Weights, batch: int) -> None:
        n_models, n_features, d_hidden = weights.W.shape
        self.hidden = weights.W.new_empty(n_models, d_hidden, batch)
        self.grad_hidden = torch.empty_like(self.hidden)
        self.out = weights.W.new_empty(n_models, n_features, batch)
        self.grad_out = torch.empty_like(self.out)


def gradients(
    weights: Weights,
    acts: Float[Tensor, "n_models n_features batch"],
    target: Float[Tensor, "n_models n_features batch"],
    scale: Tensor,
    scratch: Scratch,
) -> list[Tensor]:
    """Gradients of Σ scale · (target − output)², in the order of `weights.parameters()`.

    Args:
        scale: weight of each squared error; broadcasts against `(n_models, n_features, batch)`.
    """
    hidden, out, grad_out = scratch.hidden, scratch.out, scratch.grad_out
    torch.bmm(weights.W_in.mT, acts, out=hidden)  # (n_models, d_hidden, batch)
    if weights.relu_hidden:
        hidden.relu_()
    torch.baddbmm(weights.b[..., None], weights.W, hidden, out=out).relu_()
    torch.sub(out, target, out=grad_out).mul_(2 * scale)
    _before_relu(grad_out, out)
    grad_W = grad_out @ hidden.mT
    torch.bmm(weights.W.mT, grad_out, out=scratch.grad_hidden)
    if weights.relu_hidden:
        _before_relu(scratch.grad_hidden, hidden)
    grad_W_in = acts @ scratch.grad_hidden.mT
    grad_b = grad_out.sum(-1)
    return [grad_W + grad_W_in, grad_b] if weights.tied else [grad_W, grad_b, grad_W_in]


def _before_relu(grad: Tensor, after: Tensor) -> None:
    """Turn a gradient after a ReLU into that before it, in place: zero where nothing came out."""
    torch.ops.aten.threshold_backward.grad_input(grad, after, 0, grad_input=grad)


def descend(
    weights: Weights,
    next_batch: Callable[[], Batch],
    scale: Tensor,
    *,
    batch_size: int,
    steps: int,
    lr: float,
    progress: bool,
) -> None:
    """Update the weights in place: Adam at a constant rate for half of the steps, then to 0."""
    scratch = Scratch(weights, batch_size)
    parameters = weights.parameters()  # the optimizer changes them in place
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    bar = step_bar(range(steps), f"{len(weights.W)} toy models", progress=progress)
    with torch.no_grad(), one_thread():  # products are small: a second thread is mostly waited for
        for step in bar:
            grads = gradients(weights, *next_batch(), scale, scratch)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
            optimizer.step()
    for parameter in parameters:
        parameter.grad = None
