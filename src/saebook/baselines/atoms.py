"""Baselines of unit atoms: random, taken from the data, learned from it, or the truth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn import decomposition
from torch import Tensor
from torch.nn.functional import normalize

from saebook._checks import (
    check_finite,
    check_positive,
    check_positive_int,
    check_rows,
    check_shape,
    check_unit_rows,
)
from saebook.baselines.base import AtomBaseline, check_enough_rows, noting_convergence, random_state
from saebook.metrics.decoders import unit_rows


class SizedAtoms(AtomBaseline):
    """A dictionary of a number of atoms that is a setting.

    Args:
        n_atoms: number of atoms.
        inference: "topk" or "omp", see `AtomBaseline`.
    """

    def __init__(self, *, n_atoms: int, inference: str = "omp") -> None:
        super().__init__(inference=inference)
        self.n_atoms = check_positive_int("n_atoms", n_atoms)


class RandomDictionary(SizedAtoms):
    """Directions drawn uniformly from the sphere. What a dictionary gains must be gained over them.

    With a trained encoder, it is `FrozenSAE(kind="decoder")`.

    Args:
        n_atoms: number of directions.
        inference: "topk" or "omp", see `AtomBaseline`.
    """

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        return random_directions(x, self.n_atoms, generator)


class DataPoints(SizedAtoms):
    """Random inputs as atoms, as seen from the mean of the training data and scaled to norm 1.

    Args:
        n_atoms: number of inputs, all different rows of the training data.
        inference: "topk" or "omp", see `AtomBaseline`.

    `fit` raises a ValueError if fewer rows than `n_atoms` differ from the mean.
    """

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        x = x[x.any(1)]  # the mean itself has no direction
        check_enough_rows(x, "n_atoms", self.n_atoms)
        return normalize(x[torch.randperm(len(x), generator=generator)[: self.n_atoms]], dim=1)


class DictionaryLearning(SizedAtoms):
    """Atoms by scikit-learn's MiniBatchDictionaryLearning, scaled to norm 1.

    It starts from random data points, and learning codes by the lasso. Computed in float64.

    Args:
        n_atoms: number of atoms.
        alpha: weight of the L1 penalty while learning, in the units of the data.
        batch_size: inputs an iteration.
        max_iter: passes over the data.
        inference: "topk" or "omp", see `AtomBaseline`.

    Source: Mairal et al. 2009, "Online dictionary learning for sparse coding".
    """

    def __init__(
        self,
        *,
        n_atoms: int,
        alpha: float = 1.0,
        batch_size: int = 256,
        max_iter: int = 5,
        inference: str = "omp",
    ) -> None:
        super().__init__(n_atoms=n_atoms, inference=inference)
        self.alpha = check_positive("alpha", alpha)
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.max_iter = check_positive_int("max_iter", max_iter)

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        start = DataPoints(n_atoms=self.n_atoms)._learn(x, generator)
        learner = decomposition.MiniBatchDictionaryLearning(
            self.n_atoms,
            alpha=self.alpha,
            batch_size=self.batch_size,
            max_iter=self.max_iter,
            fit_algorithm="cd",
            dict_init=start.double().numpy(),
            random_state=random_state(generator),
        )
        with noting_convergence():  # a lasso code cut short at its last iteration does no harm
            learner.fit(x.double().numpy())  # in float32, most would miss their tolerance
        return unit_rows("atoms", torch.from_numpy(learner.components_).to(x.dtype))


class TrueDictionary(AtomBaseline):
    """The directions that the data were made of, where these are known.

    With both inferences beside an SAE's dictionary with both of its own, it tells a poor
    dictionary from poor inference. The truth is a sum of a bias and features, so the centre is that
    bias and *not* the mean of the training data.

    Args:
        directions: rows of norm 1, (n_atoms, d_in).
        bias: what an input without any feature is, (d_in,); by default 0.
        inference: "topk" or "omp", see `AtomBaseline`.
    """

    def __init__(
        self,
        directions: Float[Tensor, "n_atoms d_in"],
        *,
        bias: Float[Tensor, " d_in"] | None = None,
        inference: str = "omp",
    ) -> None:
        super().__init__(inference=inference)
        self.directions = check_unit_rows("directions", check_rows("directions", directions))
        if bias is not None:
            check_finite("bias", check_shape("bias", bias, (directions.shape[1],)))
        self.bias = directions.new_zeros(directions.shape[1]) if bias is None else bias

    def _centre_of(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, " d_in"]:
        check_rows("x", x, len(self.bias))
        return self.bias

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        return self.directions


def random_directions(
    x: Float[Tensor, "n d_in"], n_atoms: int, generator: torch.Generator
) -> Float[Tensor, "n_atoms d_in"]:
    """Unit vectors drawn uniformly from the sphere, as wide as `x` and of its dtype."""
    normal = torch.randn(n_atoms, x.shape[1], generator=generator, dtype=x.dtype)
    return normalize(normal, dim=1)
