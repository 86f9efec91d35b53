"""Two small autoencoders of documents whose token ids are taken as numbers, several seeds at once.

They are the two models of a project proposal, "How good are SAEs, compared to other methods in
their reference class?": an autoencoder with ReLU latents and a sigmoid at its output, and the same
with every document's latents replaced by a k-means centroid. Here each can also be had as it was
meant: with a linear output, and with a gradient past the centroids.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from threadpoolctl import ThreadpoolController
from torch import Tensor

from saebook._checks import (
    check_non_negative,
    check_non_negative_int,
    check_one_of,
    check_positive,
    check_positive_int,
    check_rows,
    check_sequence,
)

OUTPUTS = ("sigmoid", "linear")
CODES = ("latents", "centroids", "straight_through")
LEAST_FLOOR = (3 - math.sqrt(5)) / 2
"""No data of mean 0 and variance 1 have a smaller `sigmoid_floor`."""


def sigmoid_floor(x: Float[Tensor, "n d_in"]) -> float:
    """E[relu(−x)² + relu(x − 1)²], an entry's squared error when each output is free in (0, 1).

    No model with a sigmoid at its output has a smaller mean squared error on `x`.

    Raises:
        ValueError: for values that are not finite.
    """
    check_rows("x", x)
    return (torch.relu(-x).square() + torch.relu(x - 1).square()).mean().item()


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentAutoencoders:
    """Autoencoders of one kind, one a seed, whose weights are stacked.

    Attributes:
        W_enc, b_enc: the encoder, (n_seeds, d_in, d_latent) and (n_seeds, 1, d_latent).
        W_dec, b_dec: the decoder, (n_seeds, d_latent, d_in) and (n_seeds, 1, d_in).
        output: "sigmoid" or "linear", what is done to the decoder's result.
        code: what is decoded: "latents"; or the "centroids" of k-means, fitted to the latents at
            hand, through which no gradient passes; or "straight_through", the same centroids with
            the gradient handed to the latents.
        n_clusters: number of centroids.
        seeds: those of the weights, and of k-means.
        losses: the training loss averaged over each epoch, (n_seeds, n_epochs).
    """

    W_enc: Float[Tensor, "n_seeds d_in d_latent"] = field(repr=False)
    b_enc: Float[Tensor, "n_seeds 1 d_latent"] = field(repr=False)
    W_dec: Float[Tensor, "n_seeds d_latent d_in"] = field(repr=False)
    b_dec: Float[Tensor, "n_seeds 1 d_in"] = field(repr=False)
    output: str
    code: str
    n_clusters: int
    seeds: tuple[int, ...]
    losses: Float[Tensor, "n_seeds n_epochs"] = field(repr=False)

    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n_seeds n d_latent"]:
        """The latents of each seed's encoder, relu(x W_enc + b_enc)."""
        return torch.relu(x @ self.W_enc + self.b_enc)

    def decode(self, codes: Float[Tensor, "n_seeds n d_latent"]) -> Float[Tensor, "n_seeds n d_in"]:
        """What each seed's decoder makes of its codes."""
        x_hat = codes @ self.W_dec + self.b_dec
        return torch.sigmoid(x_hat) if self.output == "sigmoid" else x_hat

    def reconstruct(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n_seeds n d_in"]:
        """Reconstructions by each seed. Centroids are fitted to all of `x` together."""
        latents = self.encode(x)
        if self.code != "latents":
            latents = _by_centroid(latents, self.n_clusters, _random_states(self.seeds))
        return self.decode(latents)

    @torch.no_grad()
    def mse(
        self, x: Float[Tensor, "n d_in"], *, batch_size: int | None = None
    ) -> Float[Tensor, " n_seeds"]:
        """The squared error of an *entry*, averaged over entries.

        Args:
            x: inputs.
            batch_size: documents that are reconstructed together, by default all. It matters where
                centroids are fitted to them.
        """
        check_rows("x", x, self.W_enc.shape[1])
        size = len(x) if batch_size is None else check_positive_int("batch_size", batch_size)
        parts = x.split(size)
        errors = [(self.reconstruct(part) - part).square().sum((1, 2)) for part in parts]
        return torch.stack(errors).sum(0) / x.numel()


def train_document_autoencoders(
    x: Float[Tensor, "n d_in"],
    *,
    seeds: Sequence[int],
    epochs: int,
    output: str = "sigmoid",
    code: str = "latents",
    d_latent: int = 128,
    n_clusters: int = 10,
    l1_coefficient: float = 1e-3,
    lr: float = 1e-3,
    batch_size: int = 32,
) -> DocumentAutoencoders:
    """Train an autoencoder for each seed, on batches taken in order, and stack their weights.

    The loss is the mean squared error of an entry plus `l1_coefficient` times the mean latent. The
    defaults are those of the proposal; its k-means model has no such penalty. Centroids are fitted
    to each batch's latents by scikit-learn, started once by k-means++.

    Args:
        x: documents, one a row.
        seeds: one whole number for each autoencoder; draws initial weights as PyTorch's `Linear`.
        epochs: passes over `x`; if 0, the initial weights are returned.
        output, code, n_clusters: see `DocumentAutoencoders`.
        d_latent: number of latents.
        l1_coefficient: weight of the penalty.
        lr: learning rate of Adam.
        batch_size: documents a step. The last batch of an epoch may be smaller.

    Raises:
        ValueError, TypeError: for an unusable argument, or a batch smaller than `n_clusters`.
    """
    check_rows("x", x)
    check_positive("lr", lr)
    if len(check_sequence("seeds", seeds, "whole numbers")) == 0:
        raise ValueError("seeds must hold at least one whole number, got none")
    check_non_negative("l1_coefficient", l1_coefficient)
    model = _fresh(
        x,
        check_positive_int("d_latent", d_latent),
        [check_non_negative_int("seeds", seed) for seed in seeds],
        output=check_one_of("output", output, OUTPUTS),
        code=check_one_of("code", code, CODES),
        n_clusters=check_positive_int("n_clusters", n_clusters),
        epochs=check_non_negative_int("epochs", epochs),
    )
    batches = x.split(check_positive_int("batch_size", batch_size))
    if code != "latents" and len(batches[-1]) < n_clusters:
        raise ValueError(
            f"each batch must have at least n_clusters = {n_clusters} documents, "
            f"got one of {len(batches[-1])}"
        )
    _fit(model, batches, lr, l1_coefficient)
    return model


@torch.enable_grad()
def _fit(
    model: DocumentAutoencoders, batches: Sequence[Tensor], lr: float, l1_coefficient: float
) -> None:
    weights = [model.W_enc, model.b_enc, model.W_dec, model.b_dec]
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in weights], lr=lr)
    states = _random_states(model.seeds)
    for epoch in range(model.losses.shape[1]):
        for batch in batches:
            loss = _loss(model, batch, l1_coefficient, states)  # (n_seeds,)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            model.losses[:, epoch] += loss.detach() / len(batches)
    for weight in weights:
        weight.requires_grad_(False)


def _fresh(
    x: Float[Tensor, "n d_in"], d_latent: int, seeds: Sequence[int], *, epochs: int, **kind: Any
) -> DocumentAutoencoders:
    """Autoencoders with the initial weights of PyTorch's `Linear`."""
    d_in, layers = x.shape[1], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        bounds = {(d_in, d_latent): d_in**-0.5, (1, d_latent): d_in**-0.5}
        shapes = [*bounds.items(), ((d_latent, d_in), d_latent**-0.5), ((1, d_in), d_latent**-0.5)]
        layers.append(
            [
                torch.empty(shape, dtype=x.dtype).uniform_(-bound, bound, generator=generator)
                for shape, bound in shapes
            ]
        )
    W_enc, b_enc, W_dec, b_dec = (torch.stack(each) for each in zip(*layers, strict=True))
    return DocumentAutoencoders(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        seeds=tuple(seeds),
        losses=x.new_zeros(len(seeds), epochs),
        **kind,
    )


def _loss(
    model: DocumentAutoencoders,
    batch: Float[Tensor, "batch d_in"],
    l1_coefficient: float,
    states: Sequence[np.random.RandomState],
) -> Float[Tensor, " n_seeds"]:
    latents = model.encode(batch)
    if model.code == "latents":
        error = (model.decode(latents) - batch).square().mean((1, 2))
        return error + l1_coefficient * latents.mean((1, 2))
    codes = _by_centroid(latents.detach(), model.n_clusters, states)
    if model.code == "straight_through":
        codes = codes + latents - latents.detach()
    return (model.decode(codes) - batch).square().mean((1, 2))


def _random_states(seeds: Sequence[int]) -> list[np.random.RandomState]:
    return [np.random.RandomState(seed) for seed in seeds]


def _by_centroid(
    latents: Float[Tensor, "n_seeds n d_latent"],
    n_clusters: int,
    states: Sequence[np.random.RandomState],
) -> Float[Tensor, "n_seeds n d_latent"]:
    """Each row replaced by the centroid of its cluster, for each seed by itself."""
    codes = []
    with _threads().limit(limits=1, user_api="openmp"):  # a batch is too small to share out
        for rows, state in zip(latents.numpy(), states, strict=True):
            kmeans = KMeans(n_clusters, n_init=1, random_state=state).fit(rows)
            codes.append(torch.from_numpy(kmeans.cluster_centers_[kmeans.labels_]))
    return torch.stack(codes).to(latents.dtype)


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
