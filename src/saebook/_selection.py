"""The k-th largest entry of each row of a large matrix, made cheap by remembering the last answer.

BatchTopK keeps the largest `k · batch` pre-activations of a batch, so it needs one order statistic of
`batch · d_sae` numbers per SAE and step. Between two steps this number hardly moves. A narrow bracket round
the last answer therefore holds it nearly always, and only the few entries inside the bracket are sorted out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class KthLargest:
    """Finds the `ranks[i]`-th largest entry of each row, exactly, whatever it remembers.

    Args:
        n_rows: number of rows of the matrices to come.
    """

    def __init__(self, n_rows: int) -> None:
        self._last = np.zeros(n_rows)
        self._width = np.full(n_rows, -1.0)  # negative: nothing remembered yet

    def __call__(self, values: Tensor, ranks: list[int], first_row: int = 0) -> Tensor:
        """Return the `ranks[i]`-th largest entry of `values[i]`, for each row.

        Args:
            values: `(rows, n)`, contiguous.
            ranks: one rank a row, from 1 (the largest) to n.
            first_row: which of the `n_rows` remembered rows `values[0]` is.

        Returns:
            `(rows,)`, of the dtype and device of `values`.
        """
        if values.device.type != "cpu":
            found = [row.topk(k, sorted=False).values.amin() for row, k in zip(values, ranks, strict=True)]
            return torch.stack(found)
        rows = slice(first_row, first_row + len(ranks))
        found = _from_brackets(values, ranks, self._last[rows], self._width[rows])
        array = values.numpy()
        for i in np.flatnonzero(np.isnan(found)):
            found[i] = np.partition(array[i], -ranks[i])[-ranks[i]]
        moved = np.abs(found - self._last[rows])
        self._width[rows] = np.maximum(5 * moved, 0.95 * self._width[rows])
        self._last[rows] = found
        return torch.from_numpy(found).to(values.dtype)


def _from_brackets(values: Tensor, ranks: list[int], last: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The order statistics that lie in `last ± width`; NaN where one does not."""
    found = np.full(len(ranks), np.nan)
    if (width < 0).any():
        return found
    low, high = (torch.from_numpy(b).to(values.dtype)[:, None] for b in (last - width, last + width))
    above = values > high
    inside = (values > low).logical_xor_(above)
    flat = values.view(-1).numpy()
    where = np.flatnonzero(inside.view(-1).numpy())
    ends = np.searchsorted(where, np.arange(len(ranks) + 1) * values.shape[1])
    for i, k in enumerate(ranks):
        rank = k - np.count_nonzero(above[i].numpy())
        candidates = flat[where[ends[i] : ends[i + 1]]]
        if 0 < rank <= len(candidates):
            found[i] = np.partition(candidates, -rank)[-rank]
    return found
