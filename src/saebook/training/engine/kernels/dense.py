"""A dense step, SAE by SAE, so that what one works on stays in a core's cache.

Samples come first: of n SAEs, `ranked (n, batch, d_sae)` holds what selection compares, the
pre-activations times `scale`; a latent's activation is the pre-activation itself. A Matryoshka
SAE's latents lie in blocks, between `edges[q]` and `edges[q + 1]`; `acts` and `slopes`, the
gradients by them, hold one block after another, each `(batch, width)`.
"""

from __future__ import annotations

import numpy as np

from saebook.training.engine.kernels import compiled


@compiled
def encode(x_ones, W_enc, bias, b_dec, scale, scaled, ranked):
    """Fill `ranked` with `scale · (W_enc (x − b_dec) + bias)`.

    Args:
        x_ones: (batch, d_in + 1) inputs, with ones in the last column.
        W_enc, bias, b_dec, scale: of n SAEs, as in `scale_encoder`.
        scaled: (d_sae, d_in + 1) scratch.
    """
    for i in range(len(W_enc)):
        scale_encoder(W_enc[i], bias[i], b_dec[i], scale[i], scaled)
        np.dot(x_ones, scaled.T, ranked[i])


@compiled
def scale_encoder(W_enc, bias, b_dec, scale, scaled):
    """Fill `scaled (d_sae, d_in + 1)` with an encoder in the units of selection, its bias last.

    Args:
        W_enc: (d_sae, d_in).
        bias, scale: (d_sae,).
        b_dec: (d_in,) what is subtracted from the input, zeros for nothing.
    """
    d_sae, d_in = W_enc.shape
    for j in range(d_sae):
        w, out, s, b = W_enc[j], scaled[j], scale[j], bias[j]
        for c in range(d_in):
            out[c] = s * w[c]
            b -= w[c] * b_dec[c]
        out[d_in] = s * b


@compiled
def step(first, last, forward, back, acts):
    """Decode and go back, one SAE after another, from `first` to `last`."""
    for i in range(first, last):
        _decode(i, acts, *forward)
        _backward(i, acts, *back)


@compiled
def decode(i, forward, acts):
    """The first half of a step of SAE i."""
    _decode(i, acts, *forward)


@compiled
def backward(i, back, acts):
    """The second half of it."""
    _backward(i, acts, *back)


@compiled
def _decode(i, acts, ranked, inverse, cuts, W_dec, b_dec, x, weights, edges, totals, errors, sums):
    """Fill activations, errors, and their sums over the samples.

    Args:
        inverse: (n, d_sae) one over `scale`.
        cuts: (n, batch) what `ranked` has to reach, positive.
        x: (batch, d_in).
        weights: (n, batch) those of the samples, (0, 0) if all count equally.
        totals: (n, d_sae), filled with each latent's sum of activations.
        errors: (n, prefixes, batch, d_in), filled with x̂ − x of every prefix.
        sums: (n, prefixes, d_in), filled with their sums.
    """
    batch, d_in = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    totals[i] = zero
    sums[i] = zero
    for q in range(len(edges) - 1):
        start, stop = edges[q], edges[q + 1]
        block = acts[start * batch : stop * batch].reshape((batch, stop - start))
        total, factor = totals[i, start:stop], inverse[i, start:stop]
        for b in range(batch):
            row, out, cut = ranked[i, b, start:stop], block[b], cuts[i, b]
            weight = weights[i, b] if len(weights) else one
            for j in range(stop - start):
                act = row[j] * factor[j] if row[j] >= cut else zero
                out[j] = act
                total[j] += weight * act
        np.dot(block, W_dec[i, start:stop], errors[i, q])
        for b in range(batch):
            error, left = errors[i, q, b], sums[i, q]
            weight = weights[i, b] if len(weights) else one
            if q == 0:
                for c in range(d_in):
                    error[c] += b_dec[i, c] - x[b, c]
            else:
                for c in range(d_in):
                    error[c] += errors[i, q - 1, b, c]
            for c in range(d_in):
                left[c] += weight * error[c]


@compiled
def _backward(
    i, acts, W_dec, x_t, weights, edges, betas, keeps, penalty, errors, sums, slopes, spare, g_enc,
    g_dec, g_b_dec, d_bias,
):  # fmt: skip
    """Fill the gradients by encoder, decoder and the biases of the pre-activations.

    Args:
        x_t: (d_in, batch).
        betas, keeps: (n, prefixes) weight of each prefix's loss, and whether what reaches the
            larger prefixes counts.
        penalty: (n, d_sae) slope of a penalty on activations.
        errors: become what reaches each block.
        sums: (n, prefixes, d_in) the errors' sums over the samples, before.
        slopes: (d_sae · batch,) scratch.
        spare: (d_in · d_sae,) scratch.
        g_enc, g_dec: (n, d_sae, d_in), filled.
        g_b_dec: (n, d_in), filled with the part that comes by the reconstructions.
        d_bias: (n, d_sae), filled.
    """
    n_blocks, batch, d_in = len(edges) - 1, x_t.shape[1], x_t.shape[0]
    zero, one = x_t.dtype.type(0), x_t.dtype.type(1)
    d_bias[i] = zero
    g_b_dec[i] = zero
    for q in range(n_blocks - 1, -1, -1):
        start, stop = edges[q], edges[q + 1]
        width, reaching = stop - start, errors[i, q]
        g_b_dec[i] += betas[i, q] * sums[i, q]
        if n_blocks > 1 or len(weights):
            for b in range(batch):
                factor = betas[i, q] * (weights[i, b] if len(weights) else one)
                for c in range(d_in):
                    reaching[b, c] *= factor
                    if q < n_blocks - 1:
                        reaching[b, c] += keeps[i, q] * errors[i, q + 1, b, c]
        block = acts[start * batch : stop * batch].reshape((batch, width))
        slope = slopes[start * batch : stop * batch].reshape((batch, width))
        product = spare[: d_in * width].reshape((d_in, width))
        np.dot(reaching.T, block, product)
        _transpose(product, g_dec[i, start:stop])
        np.dot(reaching, W_dec[i, start:stop].T, slope)
        for b in range(batch):
            weight = weights[i, b] if len(weights) else one
            total, push = d_bias[i, start:stop], penalty[i, start:stop]
            for j in range(width):
                passed = slope[b, j] + weight * push[j] if block[b, j] > 0 else zero
                slope[b, j] = passed
                total[j] += passed
        np.dot(x_t, slope, product)
        _transpose(product, g_enc[i, start:stop])


@compiled
def _transpose(product, out):
    for j in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[j, c] = product[c, j]


@compiled
def clip(grads, most):
    """Bring the gradient of each of n SAEs to a norm of at most `most`, as PyTorch does.

    Args:
        grads: gradients by several weights, each (n, size), changed in place.
    """
    for i in range(len(grads[0])):
        square = 0.0
        for grad in grads:
            part = grad[0, 0] * 0
            for t in range(grad.shape[1]):
                part += grad[i, t] * grad[i, t]
            square += part
        factor = most / (np.sqrt(square) + 1e-6)
        if factor < 1:
            for grad in grads:
                grad[i] *= grad.dtype.type(factor)


@compiled
def finish(g_enc, g_dec, d_bias, g_b_dec, W_enc, W_dec, b_dec, by_norm, unit):
    """Bring the gradients by the weights to natural units, all that is not yet in them added.

    Args:
        g_enc, g_dec: (n, d_sae, d_in), changed in place, as is g_b_dec (n, d_in).
        d_bias: (n, d_sae) gradient by the pre-activations' biases.
        W_enc, W_dec: (n, d_sae, d_in).
        b_dec: (n, d_in) what is subtracted from the input, (0, 0) for nothing.
        by_norm: (n, d_sae) gradient by the decoder's norm over that norm, (0, 0) for none.
        unit: what a gradient has to be multiplied by.
    """
    n, d_sae, d_in = g_enc.shape
    for i in range(n):
        for j in range(d_sae):
            enc, dec = g_enc[i, j], g_dec[i, j]
            if len(b_dec):
                d, w, out = d_bias[i, j], W_enc[i, j], g_b_dec[i]
                for c in range(d_in):
                    enc[c] -= d * b_dec[i, c]
                    out[c] -= d * w[c]
            if len(by_norm):
                w, factor = W_dec[i, j], by_norm[i, j]
                for c in range(d_in):
                    dec[c] += factor * w[c]
            for c in range(d_in):
                enc[c] *= unit
                dec[c] *= unit
