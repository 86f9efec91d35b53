"""Steps on a CPU, for gates that keep what reaches a cut: compiled loops and products.

`engine.plain` has the same steps in PyTorch's words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebook._running import spread
from saebook.training.engine.auxiliary import (
    add_to_sums,
    auxiliary_gradients,
    with_auxiliary_loss,
)
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.gates.gate import Stage
from saebook.training.engine.gates.thresholds import JumpReLUGate
from saebook.training.engine.kernels import WORD, gradients
from saebook.training.engine.kernels import dense as loops
from saebook.training.engine.kernels import sparse as lists
from saebook.training.engine.stack import Stack


def dense(stack: Stack, batch: Batch, scratch: Scratch, stage: Stage) -> Tensor:
    """As in `engine.plain`."""
    w, g, n = stack.weights, stack.grads, len(stack.cfgs)
    ranked, errors = scratch.ranked[:n], scratch.error_rows[:n]
    encoder = w["W_enc"], w["b_enc"], _subtracted(stack), stage.scale
    loops.encode(*_arrays(batch.x_ones, *encoder, scratch.scaled, ranked))
    cuts = stack.gate.cuts(ranked, stage.step)
    penalty = stack.gate.penalty(stage)
    sums = torch.empty_like(errors[:, :, 0])
    weights = _nothing(ranked) if stage.weights is None else stage.weights[:, 0]
    edges, inverse = _edges(stack), stage.scale.reciprocal()
    jump, threshold, d_threshold = _jump(stack, stage, ranked)
    forward = (
        *_arrays(ranked, inverse, threshold, cuts, w["W_dec"], w["b_dec"], batch.x, weights),
        edges,
        *_arrays(stage.totals, errors, sums),
    )
    back = (
        *_arrays(w["W_dec"], batch.x_t, weights),
        edges,
        *_arrays(stack.nesting.betas, stack.nesting.keeps, penalty, errors, sums),
        *_arrays(scratch.slopes, scratch.spare, g["W_enc"], g["W_dec"], g["b_dec"], stage.d_bias),
    )
    auxiliary = (
        stage.dead.numpy(),
        stack.gate.auxiliary.numpy(),
        bool(getattr(stack.cfgs[0], "use_matryoshka_aux_loss", False)),
        *_arrays(ranked, inverse, w["W_dec"], batch.x_t, weights),
        edges,
        *_arrays(errors, scratch.gathered, scratch.slopes, scratch.atoms, scratch.recons),
        *_arrays(scratch.spare, scratch.d_enc, scratch.d_dec, scratch.d_bias),
    )
    loops.step(n, forward, auxiliary, back, jump, scratch.acts.numpy())
    for grad in stage.d_own.values():
        grad.copy_(d_threshold)
    stack.since_fired += 1
    stack.since_fired.masked_fill_(stage.totals > 0, 0)
    return errors[:, -1].mT


def sparse(stack: Stack, batch: Batch, scratch: Scratch, stage: Stage) -> Tensor:
    """As in `engine.plain`."""
    w, g, nesting = stack.weights, stack.grads, stack.nesting
    gate: Any = stack.gate
    edges, ranked = _edges(stack), scratch.acts.view(1, len(batch.x), -1)
    block_of = np.searchsorted(edges, np.arange(edges[-1]), side="right") - 1
    encoder = w["W_enc"], w["b_enc"], _subtracted(stack), stage.scale
    taught = with_auxiliary_loss(stack, stage)
    for i, cfg in enumerate(stack.cfgs):
        at = slice(i, i + 1)
        own = [each[at] for each in encoder]
        if torch.get_num_threads() == 1:
            loops.encode(*_arrays(batch.x_ones, *own, scratch.scaled, ranked))
        else:  # PyTorch's product, which all threads share
            loops.scale_encoder(*_arrays(*(each[0] for each in own), scratch.scaled))
            torch.mm(batch.x_ones, scratch.scaled.T, out=ranked[0])
        cuts = gate.cuts(ranked, stage.step, at)
        expected = int(gate.k(cfg, stage.step) * len(batch.x))
        kept = _list_kept(ranked[0], stage.scale[i], cuts[0], expected)
        ends, samples, values = _by_latent(*kept, ranked.shape[2])
        errors, cost = scratch.error_rows[i], len(values) * batch.x.shape[1]
        decoder = _arrays(w["W_dec"][i], w["b_dec"][i], batch.x, errors)
        spread(lists.decode, len(batch.x), *kept, *decoder, edges, cost=cost)
        sets = []
        if i in taught:
            sets = auxiliary_gradients(stack, stage, i, ranked[0].T, list(errors.mT))
        nesting.weigh(list(errors[:, None]), at)
        torch.sum(errors, (0, 1), out=g["b_dec"][i])
        nesting.accumulate(list(errors[:, None]), at)
        entries, decoder = (samples, values, ends), _arrays(w["W_dec"][i], batch.x, errors)
        grads = _arrays(g["W_enc"][i], g["W_dec"][i], stage.d_bias[i])
        spread(lists.backward, len(block_of), *entries, *decoder, block_of, *grads, cost=3 * cost)
        add_to_sums(stack, stage, i, sets, batch.x)
        stack.since_fired[i] += 1
        stack.since_fired[i, torch.from_numpy(np.diff(ends) > 0)] = 0
    return scratch.error_rows[: len(stack.cfgs), -1].mT


def _jump(stack: Stack, stage: Stage, ranked: Tensor) -> tuple[tuple[Any, ...], Tensor, Tensor]:
    """What the loop of JumpReLU needs, if this is one; thresholds, or zeros; their gradients."""
    gate: Any = stack.gate
    if not isinstance(gate, JumpReLUGate):
        none = _nothing(ranked)
        columns = [np.empty(0, none.numpy().dtype)] * 5
        parts = *_arrays(none, ranked, none), none.bool().numpy(), *columns
        return (*parts, 0, False, *_arrays(none, none)), torch.zeros_like(stage.norm), none
    threshold = stage.own["threshold"].clamp_(min=0.0).to(ranked.dtype)
    d_threshold = torch.empty_like(threshold)
    parts = *_arrays(threshold, ranked, stage.norm), stage.dead.numpy()
    columns = [column.flatten().numpy() for column in gate.columns(stage)]
    filled = _arrays(d_threshold, stage.d_norm)
    return (*parts, *columns, gate.mode, gate.to_input, *filled), threshold, d_threshold


def finish(stack: Stack, stage: Stage, by_norm: Tensor | None, unit: float) -> None:
    """As in `engine.plain`."""
    w, g, none = stack.weights, stack.grads, _nothing(stage.norm)
    gradients.finish(
        *_arrays(g["W_enc"], g["W_dec"], stage.d_bias, g["b_dec"], w["W_enc"], w["W_dec"]),
        *_arrays(w["b_dec"] if stack.cfgs[0].apply_b_dec_to_input else none),
        *_arrays(none if by_norm is None else by_norm),
        stage.norm.numpy().dtype.type(unit),
    )


def clip(stack: Stack, most: float) -> None:
    """As in `engine.plain`."""
    gradients.clip(tuple(grad.flatten(1).numpy() for grad in stack.grads.values()), most)


def _subtracted(stack: Stack) -> Tensor:
    """What is subtracted from the input, (saes, d_in)."""
    b_dec = stack.weights["b_dec"]
    return b_dec if stack.cfgs[0].apply_b_dec_to_input else torch.zeros_like(b_dec)


def _list_kept(
    ranked: Tensor, scale: Tensor, cuts: Tensor, expected: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each sample's entries start, latents, values; `expected` entries unless some tie."""
    arrays = _arrays(ranked, scale, cuts)
    batch, d_sae = ranked.shape
    starts, flags = np.empty(batch + 1, np.int64), np.empty(-(-d_sae // WORD) * WORD, bool)
    for room in (expected, ranked.numel()):
        latents, values = np.empty(room, np.int32), np.empty(room, arrays[0].dtype)
        if lists.list_kept(*arrays, flags, latents, values, starts) <= room:
            break
    return starts, latents, values


def _by_latent(
    starts: np.ndarray, latents: np.ndarray, values: np.ndarray, d_sae: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each latent's entries start, and samples and values."""
    ends, samples, own = np.empty(d_sae + 1, np.int64), np.empty_like(latents), values.copy()
    lists.sort_by_latent(latents, values, starts, ends, samples, own)
    return ends, samples, own


def _edges(stack: Stack) -> np.ndarray:
    return np.array([0, *(block.stop for block in stack.nesting.blocks)])


def _nothing(like: Tensor) -> Tensor:
    return like.new_empty(0, 0)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """The memory of tensors, as arrays."""
    return [tensor.numpy() for tensor in tensors]
