"""The k-th largest entry of each row of a large matrix, made cheap by remembering past answers.

BatchTopK keeps the largest `k · batch` pre-activations of a batch, so it needs one order statistic
of `batch · d_sae` numbers per SAE and step. From step to step this number stays within a range.
Only the few entries in that range are sorted out; a full partition serves where the range is
missed.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

RELAX = 0.01  # how fast the remembered range closes round the latest answer
MARGIN = 0.3  # how far beyond the remembered range to look, as a share of it


class KthLargest:
    """Finds the `ranks[i]`-th largest entry of each row, exactly, whatever it remembers.

    Args:
        n_rows: number of rows of the matrices to come.
    """

    def __init__(self, n_rows: int) -> None:
        self._low = np.full(n_rows, np.nan)
        self._high = np.full(n_rows, np.nan)
        # reused: fresh memory costs more than the work
        self._flags = np.empty(0, dtype=bool)

    def __call__(self, values: Tensor, ranks: list[int]) -> Tensor:
        """Return the `ranks[i]`-th largest entry of `values[i]`, for each row.

        Args:
            values: `(rows, n)`, contiguous.
            ranks: one rank a row, from 1 (the largest) to n.

        Returns:
            `(rows,)`, of the dtype and device of `values`.
        """
        if values.device.type != "cpu":
            pairs = zip(values, ranks, strict=True)
            return torch.stack([row.topk(k, sorted=False).values.amin() for row, k in pairs])
        margin = MARGIN * (self._high - self._low)
        found = self._in_brackets(values, ranks, self._low - margin, self._high + margin)
        array = values.numpy()
        for i in np.flatnonzero(np.isnan(found)):
            found[i] = np.partition(array[i], -ranks[i])[-ranks[i]]
        self._low = np.fmin(found, self._low + RELAX * (found - self._low))
        self._high = np.fmax(found, self._high + RELAX * (found - self._high))
        return torch.from_numpy(found).to(values.dtype)

    def _in_brackets(
        self, values: Tensor, ranks: list[int], low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """The order statistics that lie between `low` and `high`; NaN where one does not."""
        found = np.full(len(ranks), np.nan)
        if np.isnan(low).any():
            return found
        array = values.numpy()
        if self._flags.size < 2 * array.size:
            self._flags = np.empty(2 * array.size, dtype=bool)
        above, inside = self._flags[: 2 * array.size].reshape(2, *array.shape)
        np.greater(array, high.astype(array.dtype)[:, None], out=above)
        np.greater(array, low.astype(array.dtype)[:, None], out=inside)
        np.logical_xor(inside, above, out=inside)
        where = np.flatnonzero(inside)
        ends = np.searchsorted(where, np.arange(len(ranks) + 1) * array.shape[1])
        flat = array.reshape(-1)
        for i, (start, end) in enumerate(pairwise(ends)):
            rank = ranks[i] - np.count_nonzero(above[i])
            if 0 < rank <= end - start:
                found[i] = np.partition(flat[where[start:end]], -rank)[-rank]
        return found
