"""Find the true L0 of data from SAEs alone: sweep k and see where the decoder is cleanest.

An SAE whose k is too low mixes correlated features into its latents, one whose k is too high finds
degenerate mixtures. Either way its decoder rows point in similar directions. The k with the
smallest mean |cosine| between decoder rows, c_dec, is the estimate. Nothing here sees the truth.

Source: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from sae_lens import BatchTopKTrainingSAEConfig, TrainingSAE
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_generator,
    check_in_range,
    check_non_negative_int,
    check_one_of,
    check_positive_int,
    check_sequence,
)
from saebook.metrics.decoders import decoder_pairwise_cosine, nth_decoder_projection
from saebook.metrics.reconstruction import mean_squared_error
from saebook.training.engine.batches import SampleBatch
from saebook.training.options import TrainingOptions
from saebook.training.recipes import train_and_polish
from saebook.training.sweeps import sweep

STATISTICS = ("smallest", "lowest_error")


@dataclass(frozen=True, kw_only=True)
class TrueL0Estimate:
    """An estimate of the true L0 and the sweep that it rests on.

    Attributes:
        value: the k with the smallest `c_dec`.
        by_k: one row a k, with `c_dec` and `s_n` as the statistic picks them over the seeds.
        sweep: one row an SAE, with `k`, `seed`, `mse`, `c_dec` and `s_n`.
        n: the rank of `s_n`.
        saes: the trained SAEs, in the order of `sweep`.
    """

    value: float
    by_k: pd.DataFrame
    sweep: pd.DataFrame
    n: int
    saes: list[TrainingSAE[Any]] = field(repr=False)

    @property
    def at_edge(self) -> bool:
        """Whether the estimate is the first or last k: the true L0 may lie outside the sweep."""
        return self.value in (self.by_k.index[0], self.by_k.index[-1])

    @property
    def margin(self) -> float:
        """How many times larger `c_dec` is at the better neighbour; infinite for one k."""
        c_dec = self.by_k["c_dec"]
        place = c_dec.index.get_loc(self.value)
        beside = [i for i in (place - 1, place + 1) if 0 <= i < len(c_dec)]
        return float(c_dec.iloc[beside].min() / c_dec.iloc[place]) if beside else math.inf


def estimate_true_l0(
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    d_in: int,
    d_sae: int,
    ks: Sequence[float],
    seeds: int | Sequence[int] = 5,
    generator: GeneratorLike,
    n: int | None = None,
    n_samples: int = 10_000,
    statistic: str = "smallest",
) -> TrueL0Estimate:
    """Estimate the true L0 of what `sample_batch` draws, from BatchTopK SAEs trained at every k.

    Args:
        sample_batch: `sample_batch(n, generator)` gives data `(n, d_in)`.
        options: of the training of every SAE, which `train_and_polish` does: small batches and a
            constant rate suit it.
        d_in: width of the data.
        d_sae: number of latents; the estimate presumes about as many as there are features.
        ks: the k to try, in increasing order.
        seeds: how many initial weights to try at every k, or which. Some seeds get stuck, so use
            several.
        generator: draws the training batches, then the samples for the metrics.
        n: rank of `s_n`, below d_sae; by default half of d_sae. Only reported: the estimate is that
            of `c_dec`.
        n_samples: samples that the metrics are measured on.
        statistic: what represents the seeds of a k: the "smallest" value of each metric, or those
            of the seed with the "lowest_error".

    Raises:
        ValueError, TypeError: for an unusable argument.

    Source: Chanin & Garriga-Alonso (arXiv 2508.16560).
    """
    _check_ks(ks, check_positive_int("d_sae", d_sae))
    check_one_of("statistic", statistic, STATISTICS)
    check_positive_int("n_samples", n_samples)
    generator = check_generator("generator", generator)
    n = d_sae // 2 if n is None else n
    check_in_range("n", n, 0, d_sae - 1)
    check_non_negative_int("n", n)
    cfg = BatchTopKTrainingSAEConfig(k=ks[0], d_in=d_in, d_sae=d_sae)
    done = sweep(
        cfg,
        sample_batch,
        options,
        over={"k": ks},
        seeds=seeds,
        generator=generator,
        train=train_and_polish,
    )
    x = sample_batch(n_samples, generator)
    measures = pd.DataFrame([sae_statistics(sae, x, n=n) for sae in done.saes])
    table = done.table.join(measures)
    by_k = summarise_seeds(table, statistic)
    value = ks[int(by_k["c_dec"].argmin())]  # one row a k, both in increasing order
    return TrueL0Estimate(value=value, by_k=by_k, sweep=table, n=n, saes=done.saes)


@torch.no_grad()
def sae_statistics(sae: TrainingSAE[Any], x: Tensor, *, n: int) -> dict[str, float]:
    """What can be measured without the truth: `mse`, `c_dec`, `s_n` on `x (n_samples, d_in)`."""
    return {
        "mse": mean_squared_error(x, sae(x)),
        "c_dec": float(decoder_pairwise_cosine(sae.W_dec)),
        "s_n": float(nth_decoder_projection(sae.W_dec, sae.b_dec, x, n)),
    }


def summarise_seeds(sweep: pd.DataFrame, statistic: str = "smallest") -> pd.DataFrame:
    """One row a k, from the sweep's one row an SAE.

    Args:
        sweep: with the columns `k`, `seed` and `mse`, and any metrics.
        statistic: "smallest" takes every metric's own minimum over the seeds, "lowest_error" all
            metrics of the seed with the smallest `mse`.
    """
    check_one_of("statistic", statistic, STATISTICS)
    metrics = sweep.drop(columns="seed")
    if statistic == "smallest":
        return metrics.groupby("k").min()
    return metrics.loc[sweep.groupby("k")["mse"].idxmin()].set_index("k")


def _check_ks(ks: Sequence[float], d_sae: int) -> None:
    if len(check_sequence("ks", ks, "k")) == 0:
        raise ValueError("ks must hold at least one k, got none")
    for k in ks:
        check_in_range("ks", k, 0, d_sae, open_minimum=True)
    if any(later <= earlier for earlier, later in pairwise(ks)):
        raise ValueError(f"ks must increase, got {list(ks)}")
