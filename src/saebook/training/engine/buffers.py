"""The batch that a stack of SAEs sees in one step, and the memory that the step works in."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from saebook.training.engine.gates import GATES
from saebook.training.engine.nesting import prefix_widths


class Batch:
    """A batch `x (batch, d_in)` with its transpose, contiguous, and its sum over the samples.

    Samples count equally, or by `weights (saes, 1, batch)` of mean 1. For a gate of several
    `copies`, all but `x` holds the batch as many times.
    """

    def __init__(self, x: Tensor, weights: Tensor | None = None, *, copies: int = 1) -> None:
        self.x = x
        self.x_t = x.T.repeat(1, copies)
        self.x_sum = x.sum(0) * copies
        self.weights = weights if weights is None else weights.repeat(1, 1, copies)


class Scratch:
    """Buffers for the SAEs at work, allocated once: fresh memory would cost more than the work.

    Args:
        like: a tensor of the dtype and device wanted.
        n_saes: most SAEs that are at work at once.
        batch: samples a step.
        cfg: a config of the SAEs, for their sizes.
    """

    def __init__(self, like: Tensor, n_saes: int, *, batch: int, cfg: Any) -> None:
        sizes = self._sizes(batch, cfg)
        self.buffers = {name: like.new_empty(n_saes, *size) for name, size in sizes.items()}

    @classmethod
    def bytes_per_sae(cls, element_size: int, *, batch: int, cfg: Any) -> int:
        """Memory that the buffers of one SAE take."""
        return element_size * sum(
            rows * columns for rows, columns in cls._sizes(batch, cfg).values()
        )

    @staticmethod
    def _sizes(batch: int, cfg: Any) -> dict[str, tuple[int, int]]:
        width = batch * GATES[cfg.architecture()].copies
        sizes = dict.fromkeys(("acts", "mask", "spare"), (cfg.d_sae, width))
        sizes |= dict.fromkeys(("enc", "dec"), (cfg.d_sae, cfg.d_in)) | {"pre": (cfg.d_sae, batch)}
        return sizes | {f"error{q}": (cfg.d_in, width) for q in range(len(prefix_widths(cfg)))}

    def errors(self, n: int) -> list[Tensor]:
        """x̂ − x of each prefix, (n, d_in, batch), in the buffers of the first `n` SAEs."""
        return [buffer[:n] for name, buffer in self.buffers.items() if name.startswith("error")]

    def first(self, n: int) -> dict[str, Tensor]:
        """The buffers of the first `n` SAEs."""
        return {name: buffer[:n] for name, buffer in self.buffers.items()}
