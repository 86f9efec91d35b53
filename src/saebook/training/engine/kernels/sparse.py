"""A step of one SAE that touches only the activations that are kept.

The kept ones stand in two lists: sample by sample, entries `starts[b]` to `starts[b + 1]` for
sample b, and latent by latent, entries `ends[j]` to `ends[j + 1]` for latent j.
"""

from __future__ import annotations

import numpy as np

from saebook.training.engine.kernels import WORD, compiled


@compiled
def list_kept(ranked, scale, cuts, flags, latents, values, starts):
    """List the pre-activations whose `ranked` reaches their sample's cut, sample by sample.

    Args:
        ranked: (batch, d_sae) pre-activations times `scale`.
        scale: (d_sae,).
        cuts: (batch,).
        flags: at least d_sae bytes of scratch, a multiple of 8.
        latents, values: filled, as far as there is room.
        starts: (batch + 1,), filled.

    Returns:
        How many are kept; where that is more than there is room for, the lists are of no use.
    """
    batch, d_sae = ranked.shape
    words = flags.view(np.uint64)
    flags[:] = False
    n, room = 0, len(latents)
    starts[0] = 0
    for b in range(batch):
        row, cut = ranked[b], cuts[b]
        for j in range(d_sae):
            flags[j] = row[j] >= cut
        for word in range(len(words)):
            if words[word] != 0:
                for j in range(WORD * word, min(WORD * word + WORD, d_sae)):
                    if flags[j] != 0:
                        if n < room:
                            latents[n] = j
                            values[n] = row[j] / scale[j]
                        n += 1
        starts[b + 1] = n
    return n


@compiled
def sort_by_latent(latents, values, starts, ends, samples, latent_values):
    """Fill `ends (d_sae + 1,)`, and the samples and values of every latent, in their order."""
    d_sae = len(ends) - 1
    ends[:] = 0
    for e in range(starts[-1]):
        ends[latents[e] + 1] += 1
    for j in range(d_sae):
        ends[j + 1] += ends[j]
    for b in range(len(starts) - 1):
        for e in range(starts[b], starts[b + 1]):
            at = ends[latents[e]]
            samples[at] = b
            latent_values[at] = values[e]
            ends[latents[e]] = at + 1
    for j in range(d_sae, 0, -1):  # each stands where the next one starts
        ends[j] = ends[j - 1]
    ends[0] = 0


@compiled
def decode(first, last, starts, latents, values, W_dec, b_dec, x, errors, edges):
    """Fill the errors of every prefix for the samples from `first` to `last`.

    Args:
        starts, latents, values: the kept activations, sample by sample.
        W_dec: (d_sae, d_in).
        b_dec: (d_in,).
        x: (batch, d_in).
        errors: (prefixes, batch, d_in), filled with x̂ − x.
        edges: (prefixes + 1,) where blocks begin and the last one ends.
    """
    d_in = x.shape[1]
    for b in range(first, last):
        at, end = starts[b], starts[b + 1]
        for q in range(len(edges) - 1):
            row, stop = errors[q, b], edges[q + 1]
            if q == 0:
                for c in range(d_in):
                    row[c] = b_dec[c] - x[b, c]
            else:
                row[:] = errors[q - 1, b]
            while at + 1 < end and latents[at + 1] < stop:  # two decoder rows a pass
                u, v = values[at], values[at + 1]
                one, other = W_dec[latents[at]], W_dec[latents[at + 1]]
                for c in range(d_in):
                    row[c] += u * one[c] + v * other[c]
                at += 2
            if at < end and latents[at] < stop:
                u, one = values[at], W_dec[latents[at]]
                for c in range(d_in):
                    row[c] += u * one[c]
                at += 1


@compiled
def backward(first, last, samples, values, ends, W_dec, x, errors, block_of, g_enc, g_dec, d_bias):
    """Fill the gradients of the latents from `first` to `last`.

    Args:
        samples, values, ends: the kept activations, latent by latent.
        W_dec, g_enc, g_dec: (d_sae, d_in).
        x: (batch, d_in).
        errors: (prefixes, batch, d_in) what reaches each block.
        block_of: (d_sae,) the block that a latent belongs to.
        d_bias: (d_sae,).
    """
    d_in = x.shape[1]
    zero = x.dtype.type(0)
    for j in range(first, last):
        w, enc, dec, total = W_dec[j], g_enc[j], g_dec[j], zero
        enc[:] = zero
        dec[:] = zero
        for e in range(ends[j], ends[j + 1]):
            error, sample = errors[block_of[j], samples[e]], x[samples[e]]
            value, slope = values[e], zero
            for c in range(d_in):
                slope += w[c] * error[c]
                dec[c] += value * error[c]
            for c in range(d_in):
                enc[c] += slope * sample[c]
            total += slope
        d_bias[j] = total
