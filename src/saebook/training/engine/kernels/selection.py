"""Order statistics: the k-th largest entry of a batch, and a cut for every sample."""

from __future__ import annotations

import numpy as np

from saebook.training.engine.kernels import WORD, compiled

CHUNK = 1024  # entries whose flags are kept at once, a multiple of WORD
MOST_INSIDE = 2**16  # with more in its bracket, a row is left to NumPy


@compiled
def kth_in_brackets(values, ranks, low, high, inside, flags, found):
    """The `ranks[i]`-th largest entry of each row, if it is in (low, high] and few others are.

    Args:
        values: (n, size).
        ranks, low, high: (n,).
        inside: (MOST_INSIDE + CHUNK,) scratch.
        flags: (CHUNK,) bytes of scratch.
        found: (n,), filled, with NaN where it is not found.
    """
    n, size = values.shape
    words = flags.view(np.uint64)
    flags[:] = False
    for i in range(n):
        bottom, top, above, n_inside = low[i], high[i], 0, 0
        for start in range(0, size, CHUNK):
            chunk = values[i, start : start + CHUNK]
            full = len(chunk) // WORD * WORD
            for t in range(len(chunk)):
                flags[t] = (chunk[t] > bottom) & (chunk[t] <= top)
            for t in range(len(chunk)):
                above += chunk[t] > top
            if n_inside <= MOST_INSIDE:
                for word in range(full // WORD):
                    if words[word] != 0:
                        for t in range(WORD * word, WORD * word + WORD):
                            inside[n_inside] = chunk[t]
                            n_inside += flags[t]
                for t in range(full, len(chunk)):
                    inside[n_inside] = chunk[t]
                    n_inside += flags[t]
        rank = ranks[i] - above
        found[i] = np.nan
        if 0 < rank <= n_inside <= MOST_INSIDE:
            found[i] = np.partition(inside[:n_inside], n_inside - rank)[n_inside - rank]


@compiled
def cuts_per_sample(values, ks, smallest, cuts):
    """For each sample a cut that its `ks[i]` largest values reach, and no other does.

    Values below `smallest` are never kept; those that tie for the last place are all kept. The cut
    is found by bisection.

    Args:
        values: (n, batch, d).
        ks: (n,).
        cuts: (n, batch), filled.
    """
    n, batch, d = values.shape
    half = values.dtype.type(0.5)
    for i in range(n):
        for b in range(batch):
            row, low, high, count = values[i, b], smallest, smallest, 0
            for j in range(d):
                high = max(high, row[j])
                count += row[j] >= smallest
            high, middle = high + high, smallest  # no value reaches twice the largest
            while count > ks[i]:
                between = low + half * (high - low)
                if between <= low or between >= high:
                    break
                middle, above = between, 0
                for j in range(d):
                    above += row[j] >= middle
                if above >= ks[i]:
                    low, count = middle, above
                else:
                    high = middle
            cuts[i, b] = low
