"""A training step of a stack of SAEs: dense, or sparse where few of many latents are kept.

Both have the same gradient, written out by hand: that of `sae_lens` 6.54. The tests hold them
against `SAETrainer.step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saebook.training.engine import compiled, plain
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.gates import GATES
from saebook.training.engine.gates.gate import Stage
from saebook.training.engine.gates.topk import TopKGate
from saebook.training.engine.stack import Stack

MAX_GRAD_NORM = 1.0  # sae-lens clips each SAE's gradient to this norm
# Where a sparse step pays, by `benchmarks/wide_step.py`: a sample keeps at most this share of the
# latents, and one product of batch, input and latents takes at least so many multiplications.
LARGEST_SHARE, LEAST_PRODUCT = 0.1, 2**24
LEAST_COMPILED = 2**9  # for a smaller product, one call for all SAEs is faster than one for each


@torch.no_grad()
def train_step(
    stack: Stack,
    batch: Batch,
    scratch: Scratch,
    step: int,
    lrs: Sequence[float],
    *,
    sparse: bool = False,
) -> Tensor:
    """Move every SAE by one step of Adam, each at its own rate; give x̂ − x of before.

    Args:
        sparse: whether only the kept activations are worked on.

    Returns:
        As `engine.plain.dense`.
    """
    errors = gradients(stack, batch, scratch, step, sparse=sparse)
    one_dtype = len(stack.flat) == 1
    (compiled if _on_cpu(batch) and one_dtype else plain).clip(stack, MAX_GRAD_NORM)
    stack.adam_step(lrs)
    return errors


@torch.no_grad()
def gradients(
    stack: Stack, batch: Batch, scratch: Scratch, step: int, *, sparse: bool = False
) -> Tensor:
    """Fill the gradients of the loss, a mean over the batch; give what `train_step` gives."""
    g, gate = stack.grads, stack.gate
    stage = _stage(stack, batch, step)
    ops: Any = compiled if _can_be_compiled(stack, batch, sparse) else plain
    errors = (ops.sparse if sparse else ops.dense)(stack, batch, scratch, stage)
    by_norm, unit = None, 2 / len(batch.x)
    if gate.has_norm_gradient:
        by_norm = gate.norm_gradient(stage) / stage.norm
        by_norm.masked_fill_(stage.norm == 0, 0)  # as autograd
    ops.finish(stack, stage, by_norm, unit)
    if gate.has_encoder_bias:
        g["b_enc"].copy_(stage.d_bias)
    for name, grad in g.items():
        if name not in ("W_enc", "W_dec"):  # these are finished
            grad *= unit
    return errors


def _can_be_compiled(stack: Stack, batch: Batch, sparse: bool) -> bool:
    """Whether there are loops for this step, and no other threads that it had better use."""
    shares_states = batch.weights is not None and stack.gate.splits_states
    if not _on_cpu(batch) or not stack.gate.is_compiled or shares_states:
        return False
    large = batch.x.numel() * stack.cfgs[0].d_sae >= LEAST_COMPILED
    return sparse or (large and torch.get_num_threads() == 1)


def _on_cpu(batch: Batch) -> bool:
    return batch.x.device.type == "cpu"


def _stage(stack: Stack, batch: Batch, step: int) -> Stage:
    norm = stack.weights["W_dec"].norm(dim=-1)  # (saes, d_sae)
    ranked = stack.gate.rescales_by_norm and stack.cfgs[0].rescale_acts_by_decoder_norm
    return Stage(
        step=step,
        weights=batch.weights,
        norm=norm,
        scale=norm if ranked else torch.ones_like(norm),
        dead=stack.dead,
        own={name: stack.weights[name] for name in stack.gate.own},
        totals=torch.empty_like(norm),
        d_bias=torch.empty_like(norm),
        d_norm=torch.zeros_like(norm),
        d_own={name: stack.grads[name] for name in stack.gate.own},
        pre=norm,
        acts=norm,
    )


def check_sparse(sparse: bool | None, architecture: str) -> None:
    """Check that SAEs whose steps must be sparse keep few activations.

    Raises:
        ValueError: for an architecture whose latents may all be active.
    """
    if sparse and not issubclass(GATES[architecture], TopKGate):
        raise ValueError(
            f"sparse must be None or False for SAEs of the architecture {architecture!r}, whose "
            "latents may all be active, got True"
        )


def sparse_pays(cfgs: Sequence[Any], step: int, batch_size: int) -> bool:
    """Whether a sparse step of these SAEs is faster: where few of many latents are kept."""
    cfg, gate = cfgs[0], GATES[cfgs[0].architecture()]
    if not issubclass(gate, TopKGate):
        return False
    shares = [gate.k(each, step) / each.d_sae for each in cfgs]
    large = batch_size * cfg.d_in * cfg.d_sae >= LEAST_PRODUCT
    return large and sum(shares) <= LARGEST_SHARE * len(shares)
