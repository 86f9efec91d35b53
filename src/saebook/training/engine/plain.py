"""Steps in PyTorch's words: for every gate, on every device, and to read.

A dense step is five matrix products: encode, decode, and the gradients by activations, decoder and
encoder. The batch is the last axis of every large tensor. A sparse step encodes densely too, for
every pre-activation has to be known; then the kept ones are a sparse matrix, and the other four
products are sums over its entries. On a CPU `engine.compiled` has the same steps, several times as
fast, for gates that keep what reaches a cut; the tests hold one against the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saebook.training.engine.auxiliary import (
    add_to_sums,
    auxiliary_gradients,
    with_auxiliary_loss,
)
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.gates.gate import Stage
from saebook.training.engine.stack import Stack


def dense(stack: Stack, batch: Batch, scratch: Scratch, stage: Stage) -> Tensor:
    """Fill the gradients, in units of `2 / batch`, but for what `finish` adds.

    Returns:
        x̂ − x, (saes, d_in, batch), in scratch memory; in a Matryoshka SAE that of the largest
        prefix, times the weight of its loss.
    """
    w, g, gate, nesting = stack.weights, stack.grads, stack.gate, stack.nesting
    n = len(stack.cfgs)
    stage.pre, stage.acts = scratch.pre[:n], scratch.acts_of_all[:n]
    errors = [error[:n] for error in scratch.errors]
    torch.mm(w["W_enc"].flatten(0, 1), batch.x.T, out=stage.pre.flatten(0, 1))  # encode
    stage.pre += _biases(stack)[:, :, None]
    gate.forward(stage)
    nesting.decode(stage.acts, w["W_dec"], errors)
    for error in errors:
        error += w["b_dec"][:, :, None] - batch.x_t
    auxiliary = {}
    for i in with_auxiliary_loss(stack, stage):
        own = stage.scale[i, :, None] * stage.pre[i], [error[i] for error in errors]
        auxiliary[i] = auxiliary_gradients(stack, stage, i, *own)
    nesting.weigh(errors)
    if stage.weights is not None:
        for error in errors:
            error *= stage.weights
    g["b_dec"].copy_(torch.stack([error.sum(-1) for error in errors]).sum(0))
    nesting.accumulate(errors)
    d_acts = scratch.slopes_of_all[:n]
    nesting.backward(stage.acts, w["W_dec"], errors, g["W_dec"], d_acts)
    d_pre = gate.backward(stage, d_acts)
    for i, sets in auxiliary.items():
        for latents, d_latents, d_rows in sets:
            d_pre[i, latents] += d_latents
            g["W_dec"][i, latents] += d_rows
    torch.sum(d_pre, -1, out=stage.d_bias)
    torch.mm(d_pre.flatten(0, 1), batch.x, out=g["W_enc"].flatten(0, 1))
    stack.since_fired += 1
    stack.since_fired.masked_fill_(gate.fired(stage), 0)
    return errors[-1][:, :, : len(batch.x)]


def sparse(stack: Stack, batch: Batch, scratch: Scratch, stage: Stage) -> Tensor:
    """The same from the kept activations alone, SAE by SAE."""
    w, g, gate, nesting = stack.weights, stack.grads, stack.gate, stack.nesting
    biases, taught = _biases(stack), with_auxiliary_loss(stack, stage)
    for i in range(len(stack.cfgs)):
        at = slice(i, i + 1)
        torch.mm(w["W_enc"][i], batch.x.T, out=scratch.pre[i])
        scratch.pre[i] += biases[i, :, None]
        ranked = (stage.scale[i, :, None] * scratch.pre[i]).T
        kept = ranked >= gate.cuts(ranked[None], stage.step, at)[0, :, None]
        acts = (scratch.pre[i].T * kept).to_sparse_csr()  # (batch, d_sae)
        errors = scratch.error_rows[i]
        for q, block in enumerate(nesting.blocks):
            before = errors[q - 1] if q > 0 else w["b_dec"][i] - batch.x
            torch.add(before, _columns(acts, block) @ w["W_dec"][i, block], out=errors[q])
        sets = []
        if i in taught:
            sets = auxiliary_gradients(stack, stage, i, ranked.T, list(errors.mT))
        nesting.weigh(list(errors[:, None]), at)
        torch.sum(errors, (0, 1), out=g["b_dec"][i])
        nesting.accumulate(list(errors[:, None]), at)
        for error, block in zip(errors, nesting.blocks, strict=True):
            own = _columns(acts, block)
            slopes = _products_at(own, error, w["W_dec"][i, block])
            g["W_enc"][i, block] = slopes.T @ batch.x
            g["W_dec"][i, block] = own.to_sparse_coo().T @ error
            stage.d_bias[i, block] = slopes.to_dense().sum(0)
        add_to_sums(stack, stage, i, sets, batch.x)
        stack.since_fired[i] += 1
        stack.since_fired[i].masked_fill_(kept.any(0), 0)
    return scratch.error_rows[: len(stack.cfgs), -1].mT


def finish(stack: Stack, stage: Stage, by_norm: Tensor | None, unit: float) -> None:
    """Bring the gradients by encoder and decoder to natural units, all that is missing added.

    Args:
        by_norm: (saes, d_sae) gradient by the norm of a decoder row, over that norm.
        unit: what they have to be multiplied by.
    """
    w, g = stack.weights, stack.grads
    if stack.cfgs[0].apply_b_dec_to_input:
        g["b_dec"] -= torch.bmm(stage.d_bias[:, None], w["W_enc"])[:, 0]
        g["W_enc"].baddbmm_(stage.d_bias[:, :, None], w["b_dec"][:, None], alpha=-1)
    if by_norm is not None:
        g["W_dec"].addcmul_(w["W_dec"], by_norm[:, :, None])
    g["W_enc"] *= unit
    g["W_dec"] *= unit


def clip(stack: Stack, most: float) -> None:
    """Bring each SAE's gradient to a norm of at most `most`."""
    norms = [torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in stack.grads.values()]
    norm = torch.stack([each.to(norms[0].dtype) for each in norms]).norm(dim=0)
    factors = (most / (norm + 1e-6)).clamp(max=1)
    for grad in stack.grads.values():
        grad *= factors.to(grad).view(-1, *[1] * (grad.ndim - 1))


def _biases(stack: Stack) -> Tensor:
    """What is added to products of encoder and input, (saes, d_sae)."""
    w = stack.weights
    bias = w["b_enc"] if stack.gate.has_encoder_bias else torch.zeros_like(w["W_enc"][:, :, 0])
    if stack.cfgs[0].apply_b_dec_to_input:
        bias = bias - torch.bmm(w["W_enc"], w["b_dec"][:, :, None])[:, :, 0]
    return bias


def _columns(acts: Tensor, block: slice) -> Tensor:
    """Some columns of a sparse matrix in CSR."""
    if block == slice(0, acts.shape[1]):
        return acts
    return acts.to_dense()[:, block].to_sparse_csr()


def _products_at(acts: Tensor, errors: Tensor, W_dec: Tensor) -> Tensor:
    """The products of errors and decoder rows where there are activations, as a sparse matrix."""
    rows, columns, none = acts.crow_indices(), acts.col_indices(), torch.zeros_like(acts.values())
    pattern = torch.sparse_csr_tensor(rows, columns, none, acts.shape, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, errors, W_dec.T).to_sparse_coo()
