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
def step(n, forward, auxiliary, back, jump, acts):
    """Decode and go back, one of n SAEs after another; see the three parts for what they need."""
    for i in range(n):
        _decode(i, acts, *forward)
        is_taught = _teach_dead(i, *auxiliary)
        _backward(i, acts, jump, *back)
        if is_taught:
            _add(i, auxiliary, back)


@compiled
def _decode(
    i, acts, ranked, inverse, threshold, cuts, W_dec, b_dec, x, weights, edges, totals, errors, sums
):
    """Fill activations, errors, and their sums over the samples.

    Args:
        inverse: (n, d_sae) one over `scale`.
        threshold: (n, d_sae) zeros, or each latent's own.
        cuts: (n, batch) what `ranked` minus threshold has to reach, positive.
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
        total, factor, least = (
            totals[i, start:stop],
            inverse[i, start:stop],
            threshold[i, start:stop],
        )
        for b in range(batch):
            row, out, cut = ranked[i, b, start:stop], block[b], cuts[i, b]
            weight = weights[i, b] if len(weights) else one
            for j in range(stop - start):
                act = row[j] * factor[j] if row[j] - least[j] >= cut else zero
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
    i, acts, jump, W_dec, x_t, weights, edges, betas, keeps, penalty, errors, sums, slopes, spare,
    g_enc, g_dec, g_b_dec, d_bias,
):  # fmt: skip
    """Fill the gradients by encoder, decoder and the biases of the pre-activations.

    Args:
        jump: what `_pass_jump` needs; its first array is empty for gates without thresholds.
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
        if len(jump[0]):
            _pass_jump(i, block, slope, weights, d_bias, *jump)
        else:
            _pass_active(i, block, slope, weights, d_bias[i, start:stop], penalty[i, start:stop])
        np.dot(x_t, slope, product)
        _transpose(product, g_enc[i, start:stop])


@compiled
def _teach_dead(
    i, dead, coefficients, by_block, ranked, inverse, W_dec, x_t, weights, edges, errors, gathered,
    slopes, atoms, recons, spare, d_enc, d_dec, d_bias,
):  # fmt: skip
    """The gradients of the auxiliary loss, see `engine.auxiliary`; whether there are any.

    Args:
        dead: (n, d_sae) which latents are.
        coefficients: (n,) of the loss.
        by_block: whether each block's latents reconstruct what their own prefix leaves.
        gathered, slopes: (d_sae · batch,) scratch.
        atoms, spare: (d_sae · d_in,) scratch.
        recons: (batch, d_in) scratch.
        d_enc, d_dec: (d_sae, d_in), filled where latents are dead.
        d_bias: (d_sae,), the same.
    """
    if coefficients[i] == 0 or not dead[i].any():
        return False
    (d_in, batch), n_blocks, k_most = x_t.shape, len(edges) - 1, len(x_t) // 2
    one = x_t.dtype.type(1)
    for part in range(n_blocks if by_block else 1):
        start, stop = (edges[part], edges[part + 1]) if by_block else (0, edges[-1])
        q = part if by_block else n_blocks - 1
        latents = start + np.flatnonzero(dead[i, start:stop])
        n = len(latents)
        if n == 0:
            continue
        acts = gathered[: n * batch].reshape((batch, n))
        slope = slopes[: n * batch].reshape((batch, n))
        rows = atoms[: n * d_in].reshape((n, d_in))
        product = spare[: n * d_in].reshape((d_in, n))
        for m in range(n):
            rows[m] = W_dec[i, latents[m]]
        cuts = np.full(batch, -np.inf, x_t.dtype)
        for b in range(batch):
            for m in range(n):
                acts[b, m] = ranked[i, b, latents[m]]
            if n > k_most:
                cuts[b] = np.partition(acts[b], n - k_most)[n - k_most]
            for m in range(n):
                chosen = acts[b, m] >= cuts[b]
                acts[b, m] = acts[b, m] * inverse[i, latents[m]] if chosen else 0
        np.dot(acts, rows, recons)
        share = coefficients[i] * min(one, x_t.dtype.type(n / k_most))
        for b in range(batch):
            factor = share * weights[i, b] if len(weights) else share
            for c in range(d_in):
                recons[b, c] = factor * (recons[b, c] + errors[i, q, b, c])
        np.dot(recons, rows.T, slope)
        for m in range(n):
            d_bias[latents[m]] = 0
        for b in range(batch):
            for m in range(n):
                if ranked[i, b, latents[m]] < cuts[b]:
                    slope[b, m] = 0
                d_bias[latents[m]] += slope[b, m]
        np.dot(recons.T, acts, product)
        for m in range(n):
            d_dec[latents[m]] = product[:, m]
        np.dot(x_t, slope, product)
        for m in range(n):
            d_enc[latents[m]] = product[:, m]
    return True


@compiled
def _add(i, auxiliary, back):
    """Add the gradients of the auxiliary loss to the others."""
    dead, d_enc, d_dec, d_bias = auxiliary[0], auxiliary[-3], auxiliary[-2], auxiliary[-1]
    g_enc, g_dec, bias = back[-4], back[-3], back[-1]
    for j in np.flatnonzero(dead[i]):
        g_enc[i, j] += d_enc[j]
        g_dec[i, j] += d_dec[j]
        bias[i, j] += d_bias[j]


@compiled
def _pass_active(i, acts, slopes, weights, d_bias, penalty):
    """Let gradients through where a latent is active, a penalty's slope added."""
    batch, width = acts.shape
    zero, one = acts.dtype.type(0), acts.dtype.type(1)
    for b in range(batch):
        weight = weights[i, b] if len(weights) else one
        for j in range(width):
            passed = slopes[b, j] + weight * penalty[j] if acts[b, j] > 0 else zero
            slopes[b, j] = passed
            d_bias[j] += passed


@compiled
def _pass_jump(
    i, acts, slopes, weights, d_bias, threshold, ranked, norm, dead, bandwidths, scales, halves,
    targets, pushes, mode, to_input, d_threshold, d_norm,
):  # fmt: skip
    """The gradients of JumpReLU, as in `engine.gates.thresholds`, which says it in PyTorch.

    Args:
        threshold, norm, dead, d_threshold, d_norm: (n, d_sae), the last two filled.
        bandwidths, scales, halves, targets, pushes: (n,) of the estimators; of tanh; half of the
            sparsity loss; the L0 wanted; half of the loss of silent latents' pre-activations.
        mode: of the sparsity loss, 0 for "tanh", 1 for "step", 2 for "quadratic".
        to_input: whether the estimator's gradient reaches the input.
    """
    batch, d_sae = acts.shape
    zero, one = acts.dtype.type(0), acts.dtype.type(1)
    width, scale, half, push = bandwidths[i], scales[i], halves[i], pushes[i]
    d_threshold[i] = zero
    d_norm[i] = zero
    for b in range(batch):
        weight, penalty = (weights[i, b] if len(weights) else one), zero
        if mode > 0:
            penalty = weight * half
        if mode == 2:
            penalty *= 4 / targets[i] * (np.count_nonzero(acts[b]) - targets[i])
        for j in range(d_sae):
            act, away, slope = acts[b, j], ranked[i, b, j] - threshold[i, j], slopes[b, j]
            if mode == 0:
                falls = weight * half * scale
                if act > 0:
                    falls *= one - np.tanh(act * (scale * norm[i, j])) ** 2
                    d_norm[i, j] += falls * act
                slope += falls * norm[i, j]
            through = zero
            if abs(away) < width / 2:
                through = (threshold[i, j] * slope + penalty) / width
                d_threshold[i, j] -= through
            if not act > 0:
                slope = zero
            if to_input:
                slope += through
            if push > 0 and dead[i, j] and away < 0:
                d_norm[i, j] -= weight * push * away
                d_threshold[i, j] += weight * push * norm[i, j]
                slope -= weight * push * norm[i, j]
            slopes[b, j] = slope
            d_bias[i, j] += slope


@compiled
def _transpose(product, out):
    for j in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[j, c] = product[c, j]
