"""Baselines that factorise the data: mean, principal and independent components, NMF."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn import decomposition
from torch import Tensor

from saebook._checks import check_positive, check_positive_int
from saebook.baselines.accounting import check_counts
from saebook.baselines.base import (
    Baseline,
    check_enough_rows,
    check_width,
    noting_convergence,
    random_state,
)
from saebook.baselines.pursuit import keep_largest


class MeanOnly(Baseline):
    """Every input is the mean of the training data; it has no atoms.

    Any l0 of at least 0 is allowed, so that it can stand beside other methods; none is used.
    """

    @property
    def max_l0(self) -> None:
        """None: any number of atoms will do."""
        return

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        return x[:0]

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        return x[:, :0]

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return 0.0


class PCATopK(Baseline):
    """Principal components, of which each input uses its l0 largest coefficients in magnitude.

    The components are orthonormal, so no other l0 of them reconstruct an input better.

    Args:
        n_components: by default as many as there are, the smaller of n and d_in.
    """

    def __init__(self, *, n_components: int | None = None) -> None:
        if n_components is not None:
            check_positive_int("n_components", n_components)
        self.n_components = n_components

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        wanted = min(x.shape) if self.n_components is None else self.n_components
        check_enough_rows(x, "n_components", wanted)
        check_width(x, "n_components", wanted)
        pca = decomposition.PCA(wanted, random_state=random_state(generator))
        return torch.from_numpy(pca.fit(x.numpy()).components_)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        codes = x @ self.dictionary.T
        return keep_largest(codes, codes.abs(), l0)


class PCA(PCATopK):
    """The first l0 principal components, the same for every input.

    No linear code of rank l0 has a smaller squared error on the training data. Which components
    are used need not be said: an input costs l0·b bits.
    """

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        codes = x @ self.dictionary.T
        codes[:, l0:] = 0
        return codes

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return check_counts(self.max_l0, l0).mean().item() * bits_per_value


class _Factorisation(Baseline):
    """An iterative factorisation that says afterwards whether it converged."""

    def __init__(self, *, n_components: int, max_iter: int, tol: float) -> None:
        self.n_components = check_positive_int("n_components", n_components)
        self.max_iter = check_positive_int("max_iter", max_iter)
        self.tol = check_positive("tol", tol)
        self._converged: bool | None = None

    @property
    def converged(self) -> bool:
        """Whether the fit met `tol` within `max_iter` iterations; nothing warns if it did not."""
        return self._fitted(self._converged)


class ICA(_Factorisation):
    """Independent components, of which each input uses the l0 that contribute most.

    A component contributes |code| · ‖atom‖, the atoms being columns of the mixing matrix. Codes
    have variance 1 on the training data.

    Args:
        n_components: at most d_in.
        max_iter: iterations of scikit-learn's FastICA.
        tol: what it takes for converged.
    """

    def __init__(self, *, n_components: int, max_iter: int = 200, tol: float = 1e-4) -> None:
        super().__init__(n_components=n_components, max_iter=max_iter, tol=tol)

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        check_enough_rows(x, "n_components", self.n_components)
        check_width(x, "n_components", self.n_components)
        ica = decomposition.FastICA(
            self.n_components,
            whiten="unit-variance",
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=random_state(generator),
        )
        with noting_convergence() as seen:
            ica.fit(x.numpy())
        self._converged = not seen
        self._unmixing = torch.from_numpy(ica.components_)
        return torch.from_numpy(ica.mixing_.T)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        codes = x @ self._unmixing.T
        return keep_largest(codes, codes.abs() * self.dictionary.norm(dim=1), l0)

    def _n_encoder_parameters(self) -> int:
        return self._unmixing.numel()


class NMF(_Factorisation):
    """Non-negative factors of non-negative data, of which each input uses its l0 largest parts.

    A part is worth code · ‖atom‖; codes of the kept parts are not fitted anew. Data are *not*
    centred, since centred data are not non-negative: the centre is 0.

    Args:
        n_components: number of factors.
        max_iter: iterations of scikit-learn's NMF.
        tol: what it takes for converged.

    `fit`, `encode` and `reconstruct` raise a ValueError for a negative entry.
    """

    def __init__(self, *, n_components: int, max_iter: int = 200, tol: float = 1e-4) -> None:
        super().__init__(n_components=n_components, max_iter=max_iter, tol=tol)

    def _centre_of(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, " d_in"]:
        return torch.zeros_like(x[0])

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        self._nmf: Any = decomposition.NMF(
            self.n_components,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=random_state(generator),
        )
        with noting_convergence() as seen:
            self._nmf.fit(_non_negative(x).numpy())
        self._converged = not seen
        return torch.from_numpy(self._nmf.components_)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        with noting_convergence():
            codes = torch.from_numpy(self._nmf.transform(_non_negative(x).numpy()))
        return keep_largest(codes, codes * self.dictionary.norm(dim=1), l0)


def _non_negative(x: Tensor) -> Tensor:
    if bool((x < 0).any()):
        index = tuple((x < 0).nonzero()[0].tolist())
        raise ValueError(
            f"x must be non-negative for NMF, got {x[index].item():g} at index {index}"
        )
    return x
