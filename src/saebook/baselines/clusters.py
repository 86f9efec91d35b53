"""Baselines that quantise: k-means with and without a gain, residual vector quantization."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from sklearn import cluster
from torch import Tensor
from torch.nn.functional import normalize

from saebook._checks import check_instance, check_positive_int
from saebook.baselines.accounting import check_counts
from saebook.baselines.base import Baseline, check_enough_rows, random_state
from saebook.baselines.pursuit import keep_largest


class _Clusters(Baseline):
    """Centroids of scikit-learn's k-means.

    Args:
        n_clusters: number of centroids.
        minibatch: whether to learn from small batches, for many clusters of much data.
        max_iter: passes over the data.
    """

    min_l0 = 1

    def __init__(self, *, n_clusters: int, minibatch: bool = False, max_iter: int = 100) -> None:
        self.n_clusters = check_positive_int("n_clusters", n_clusters)
        self.minibatch = check_instance("minibatch", minibatch, bool)
        self.max_iter = check_positive_int("max_iter", max_iter)

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        check_enough_rows(x, "n_clusters", self.n_clusters)
        return centroids(
            x,
            self.n_clusters,
            minibatch=self.minibatch,
            max_iter=self.max_iter,
            generator=generator,
        )


class KMeans(_Clusters):
    """Every input is the nearest centroid: one atom, always with code 1.

    Any l0 from 1 is allowed, so that it can stand beside other methods; one atom is used. An input
    costs log₂ n_clusters bits.

    Args:
        n_clusters: number of centroids.
        minibatch: whether to learn from small batches, for many clusters of much data.
        max_iter: passes over the data.
    """

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        return one_hot(x, self.dictionary)

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return math.log2(self.n_clusters)


class KMeansGain(_Clusters):
    """Every input is a multiple of the direction of one centroid, by the gain that fits it best.

    Atoms are the centroids as seen from the mean of the data, scaled to norm 1. The one of largest
    projection is used, and none where every projection is negative. Any l0 from 1 is allowed, as in
    `KMeans`. An input costs log₂ n_clusters + b bits.

    Args:
        n_clusters: number of centroids.
        minibatch: whether to learn from small batches, for many clusters of much data.
        max_iter: passes over the data.
    """

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        return normalize(super()._learn(x, generator), dim=1)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        gains = torch.relu(x @ self.dictionary.T)
        return keep_largest(gains, gains, 1)

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return math.log2(self.n_clusters) + bits_per_value


class ResidualVQ(Baseline):
    """Residual vector quantization: each stage is k-means on what the stages before it leave.

    Atoms are the codes of the first stage, then those of the second, and so on; an input uses one
    code, times 1, of each of the first l0 stages. It costs l0 · log₂ n_codes bits.

    Args:
        n_codes: number of centroids of each stage.
        n_stages: number of stages, the most that l0 can be.
        minibatch: whether to learn from small batches, for many codes of much data.
        max_iter: passes over the data for each stage.
    """

    def __init__(
        self, *, n_codes: int, n_stages: int, minibatch: bool = False, max_iter: int = 100
    ) -> None:
        self.n_codes = check_positive_int("n_codes", n_codes)
        self.n_stages = check_positive_int("n_stages", n_stages)
        self.minibatch = check_instance("minibatch", minibatch, bool)
        self.max_iter = check_positive_int("max_iter", max_iter)

    @property
    def max_l0(self) -> int:
        """The number of stages."""
        return self.n_stages

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        check_enough_rows(x, "n_codes", self.n_codes)
        stages = []
        for _ in range(self.n_stages):
            stage = centroids(
                x,
                self.n_codes,
                minibatch=self.minibatch,
                max_iter=self.max_iter,
                generator=generator,
            )
            x = x - stage[nearest(x, stage)]
            stages.append(stage)
        return torch.cat(stages)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        codes = x.new_zeros(len(x), len(self.dictionary))
        for i, stage in enumerate(self.dictionary.split(self.n_codes)[:l0]):
            chosen = nearest(x, stage)
            codes.scatter_(1, (i * self.n_codes + chosen)[:, None], 1.0)
            x = x - stage[chosen]
        return codes

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return check_counts(self.max_l0, l0).mean().item() * math.log2(self.n_codes)


def centroids(
    x: Float[Tensor, "n d_in"],
    n_clusters: int,
    *,
    minibatch: bool,
    max_iter: int,
    generator: torch.Generator,
) -> Float[Tensor, "n_clusters d_in"]:
    """The centroids of one run of scikit-learn's k-means, started by k-means++."""
    shared = {"max_iter": max_iter, "n_init": 1, "random_state": random_state(generator)}
    if minibatch:
        size = max(1024, 2 * n_clusters)
        kmeans = cluster.MiniBatchKMeans(n_clusters, batch_size=size, **shared)
    else:
        kmeans = cluster.KMeans(n_clusters, **shared)
    return torch.from_numpy(kmeans.fit(x.numpy()).cluster_centers_)


def nearest(x: Float[Tensor, "n d_in"], rows: Float[Tensor, "n_rows d_in"]) -> Int[Tensor, " n"]:
    """The index of the row at the smallest distance from each input."""
    return (rows.square().sum(1) - 2 * x @ rows.T).argmin(1)


def one_hot(
    x: Float[Tensor, "n d_in"], rows: Float[Tensor, "n_rows d_in"]
) -> Float[Tensor, "n n_rows"]:
    """1 for the nearest row of each input, 0 for all others."""
    codes = x.new_zeros(len(x), len(rows))
    return codes.scatter_(1, nearest(x, rows)[:, None], 1.0)
