"""What is kept: the k-th largest entry of a batch, and a cut for every sample.

BatchTopK keeps the largest `k · batch` pre-activations of a batch, so it needs one order statistic
of `batch · d_sae` numbers per SAE and step. From step to step this number changes little. Only the
few entries near the last answer are sorted out; a full partition serves where they do not hold it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from saebook.training.engine.kernels import selection as loops
from saebook.training.engine.kernels.selection import CHUNK, MOST_INSIDE

WIDTH = 3.0  # how far from the last answer to look, in mean changes from step to step
RATE = 0.05  # of the running mean of these changes


class KthLargest:
    """Finds the `ranks[i]`-th largest entry of each row, exactly, whatever it remembers.

    Args:
        n: number of rows to come.
    """

    def __init__(self, n: int) -> None:
        self._last = np.full(n, np.nan)
        self._change = np.full(n, np.nan)

    def __call__(self, values: Tensor, ranks: list[int], at: slice = slice(None)) -> Tensor:
        """Return the `ranks[i]`-th largest entry of each row.

        Args:
            values: `(n, size)`, contiguous.
            ranks: one rank a row, from 1 (the largest) to the size.
            at: which of all rows these are.

        Returns:
            `(n,)`, of the dtype and device of `values`.
        """
        if values.device.type != "cpu":
            pairs = zip(values, ranks, strict=True)
            return torch.stack([row.topk(k, sorted=False).values.amin() for row, k in pairs])
        array = values.numpy()
        found = self._near_the_last(array, ranks, at)
        for i in np.flatnonzero(np.isnan(found)):
            found[i] = np.partition(array[i], -ranks[i])[-ranks[i]]
        change, before = np.abs(found - self._last[at]), self._change[at]
        smooth = before + RATE * (change - before)
        self._change[at] = np.where(np.isnan(before), change, smooth)
        self._last[at] = found
        return torch.from_numpy(found).to(values.dtype)

    def _near_the_last(self, array: np.ndarray, ranks: list[int], at: slice) -> np.ndarray:
        """The order statistics that lie where they are looked for; NaN where one does not."""
        n = len(ranks)
        found = np.full(n, np.nan)
        around = WIDTH * self._change[at]
        if np.isnan(around).any():
            return found
        low, high = (self._last[at] + sign * around for sign in (-1, 1))
        low, high = low.astype(array.dtype), high.astype(array.dtype)
        inside, flags = np.empty(MOST_INSIDE + CHUNK, array.dtype), np.empty(CHUNK, bool)
        loops.kth_in_brackets(array, np.array(ranks), low, high, inside, flags, found)
        return found


def cuts_per_sample(values: Tensor, ks: list[int], smallest: float) -> Tensor:
    """For each sample what its k largest values reach, and at least `smallest`, (n, batch).

    Values that tie for the last place all reach it.

    Args:
        values: (n, batch, size).
        ks: n of them.
        smallest: what no kept value is below.
    """
    if values.device.type != "cpu" or not values.is_contiguous():
        kth = [each.topk(k, dim=-1).values[:, -1] for each, k in zip(values, ks, strict=True)]
        return torch.stack(kth).clamp_(min=smallest)
    cuts = values.new_empty(values.shape[:2])
    array = values.numpy()
    loops.cuts_per_sample(array, np.array(ks), array.dtype.type(smallest), cuts.numpy())
    return cuts
