"""What happens to the gradients of n SAEs once the samples are done with."""

from __future__ import annotations

import numpy as np

from saebook.training.engine.kernels import compiled


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
