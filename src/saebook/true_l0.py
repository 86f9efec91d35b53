"""Find the true L0 of data from SAEs alone: sweep k and see where they describe it in least bits.

With too few active latents an SAE leaves much to say, with too many it says more than it needs.
Nothing here sees the truth. The decoder's own cosines, c_dec, are reported beside the code's
length: where directions are orthogonal they are smallest near the true L0 too.

Sources: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560), for c_dec and s_n;
Ayonrinde and others (arXiv 2410.11179) for the description length of SAEs.
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
from saebook.metrics.coding import code_length
from saebook.metrics.decoders import decoder_pairwise_cosine, nth_decoder_projection
from saebook.metrics.reconstruction import mean_squared_error
from saebook.training.engine.batches import SampleBatch
from saebook.training.options import TrainingOptions
from saebook.training.recipes import train_thoroughly
from saebook.training.sweeps import Trainer, sweep

STATISTICS = ("smallest", "lowest_error")
# Chosen on sixty drawn worlds, then tried on others; see the chapter.
PLAUSIBLE = 0.1  # how much longer than the shortest code is no sign of a wrong k
WIDEST, WIDEST_SHARE = 4.0, 0.6  # an interval wider than both, the second times k, tells nothing


@dataclass(frozen=True, kw_only=True)
class TrueL0Estimate:
    """An estimate of the true L0 and the sweep that it rests on.

    Attributes:
        by_k: one row a k, with `code_length`, `c_dec` and `s_n` as the statistic picks them over
            the seeds.
        sweep: one row an SAE, with `k`, `seed`, `mse`, `code_length`, `c_dec` and `s_n`.
        n: the rank of `s_n`.
        saes: the trained SAEs, in the order of `sweep`.
    """

    by_k: pd.DataFrame
    sweep: pd.DataFrame
    n: int
    saes: list[TrainingSAE[Any]] = field(repr=False)

    @property
    def value(self) -> float:
        """The k with the shortest code."""
        return float(self.by_k["code_length"].idxmin())

    @property
    def interval(self) -> tuple[float, float]:
        """Between which k the code is less than 10 % longer than the shortest.

        Lengths are joined by straight lines from k to k. An end that the sweep does not reach is 0
        or infinity.
        """
        lengths = self.by_k["code_length"]
        ks, over = (
            lengths.index.tolist(),
            (lengths / ((1 + PLAUSIBLE) * lengths.min()) - 1).tolist(),
        )
        inside = [i for i, each in enumerate(over) if each <= 0]
        first, last = inside[0], inside[-1]
        low = _crossing(ks, over, first - 1, first) if first > 0 else 0.0
        high = _crossing(ks, over, last, last + 1) if last + 1 < len(ks) else math.inf
        return low, high

    @property
    def reason(self) -> str:
        """Why the true L0 cannot be told, or nothing."""
        low, high = self.interval
        ks = self.by_k.index
        if self.value in (ks[0], ks[-1]):
            return f"the shortest code is at k = {self.value:g}, an edge of the sweep"
        if high - low > max(WIDEST, WIDEST_SHARE * self.value):
            most = "more" if math.isinf(high) else f"{high:.3g}"
            return f"codes from k = {low:.3g} to {most} are about as short as the shortest"
        return ""

    @property
    def verdict(self) -> str:
        """ "found" or "cannot tell"."""
        return "cannot tell" if self.reason else "found"


def _crossing(ks: Sequence[float], over: Sequence[float], i: int, j: int) -> float:
    """Where the line between two neighbours is 0."""
    return ks[i] + (ks[j] - ks[i]) * over[i] / (over[i] - over[j])


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
    train: Trainer = train_thoroughly,
) -> TrueL0Estimate:
    """Estimate the true L0 of what `sample_batch` draws, from BatchTopK SAEs trained at every k.

    Args:
        sample_batch: `sample_batch(n, generator)` gives data `(n, d_in)`.
        options: of the training of every SAE: small batches and a short `dead_feature_window` suit
            it.
        d_in: width of the data.
        d_sae: number of latents. With fewer than there are features, the estimate is that of the
            features that contribute most.
        ks: the k to try, in increasing order; they need not be whole.
        seeds: how many initial weights to try at every k, or which. Some seeds get stuck, so use
            several.
        generator: draws the training batches, then the samples for the metrics.
        n: rank of `s_n`, below d_sae; by default half of d_sae.
        n_samples: samples that the metrics are measured on.
        statistic: what represents the seeds of a k: the "smallest" value of each metric, or those
            of the seed with the "lowest_error".
        train: `train_thoroughly`, or another trainer of that form, such as `train_and_polish`.

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
        train=train,
    )
    x = sample_batch(n_samples, generator)
    measures = pd.DataFrame([sae_statistics(sae, x, n=n) for sae in done.saes])
    table = done.table.join(measures)
    return TrueL0Estimate(by_k=summarise_seeds(table, statistic), sweep=table, n=n, saes=done.saes)


@torch.no_grad()
def sae_statistics(sae: TrainingSAE[Any], x: Tensor, *, n: int) -> dict[str, float]:
    """What can be measured without the truth on `x (n_samples, d_in)`: the columns of a sweep."""
    latent_acts = sae.encode(x)
    x_hat = sae.decode(latent_acts)
    return {
        "mse": mean_squared_error(x, x_hat),
        "code_length": code_length(x, x_hat, latent_acts, sae.W_dec).total,
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
