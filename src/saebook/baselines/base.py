"""The one interface of all baselines: fit, encode with l0 atoms an input, reconstruct."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_generator,
    check_in_range,
    check_int_at_least,
    check_non_negative,
    check_one_of,
    check_rows,
)
from saebook.baselines.accounting import check_counts, description_length
from saebook.baselines.pursuit import keep_largest, orthogonal_matching_pursuit

INFERENCES = ("topk", "omp")

_Fitted = TypeVar("_Fitted", bound="Baseline")
_Value = TypeVar("_Value")


class Baseline(ABC):
    """A method that writes each input as a centre plus a few atoms of a dictionary.

    Every baseline reconstructs as x̂ = centre + codes · dictionary. Unless it says otherwise, the
    centre is the mean of the training data. Tensors are float32 or float64 and on the CPU. A
    subclass learns atoms in `_learn` and codes centred inputs in `_code`.
    """

    min_l0: ClassVar[int] = 0

    _centre: Tensor | None = None
    _dictionary: Tensor | None = None
    _fit_seconds: float | None = None

    def fit(self: _Fitted, x: Float[Tensor, "n d_in"], *, generator: GeneratorLike) -> _Fitted:
        """Learn from training data, and return the baseline itself.

        Args:
            x: training data.
            generator: the source of all randomness, that of scikit-learn's methods included.

        Raises:
            ValueError, TypeError: for data that are no finite table, or too few for the method.
        """
        check_rows("x", x)
        generator = check_generator("generator", generator)
        start = time.perf_counter()
        centre = self._centre_of(x.detach())
        self._dictionary = self._learn(x.detach() - centre, generator)
        self._centre = centre
        self._fit_seconds = time.perf_counter() - start
        return self

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        """Codes (n, n_atoms), at most `l0` of each row nonzero.

        Args:
            x: inputs, as wide as the training data.
            l0: number of atoms allowed for each input, from `min_l0` to `max_l0`.

        Raises:
            NotFittedError: before `fit`.
            ValueError, TypeError: for inputs that are no finite table of that width and dtype, or
                another l0.
        """
        check_rows("x", x, len(self.centre))
        if x.dtype != self.centre.dtype:
            raise TypeError(f"x must have dtype {self.centre.dtype}, got {x.dtype}")
        return self._encode(x, self._check_l0(l0))

    def reconstruct(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n d_in"]:
        """x̂ = centre + codes · dictionary, (n, d_in); raises what `encode` raises."""
        return self.centre + self.encode(x, l0) @ self.dictionary

    @property
    def dictionary(self) -> Float[Tensor, "n_atoms d_in"]:
        """The atoms, as rows."""
        return self._fitted(self._dictionary)

    @property
    def centre(self) -> Float[Tensor, " d_in"]:
        """What is reconstructed without any atom."""
        return self._fitted(self._centre)

    @property
    def n_parameters(self) -> int:
        """The numbers that coding and reconstructing need: atoms, centre and encoder, if any."""
        return self.dictionary.numel() + self.centre.numel() + self._n_encoder_parameters()

    @property
    def fit_seconds(self) -> float:
        """Wall-clock seconds that `fit` took, or NaN where the learning was done elsewhere."""
        return self._fitted(self._fit_seconds)

    @property
    def max_l0(self) -> int | None:
        """The most atoms that an input can be allowed; None if any number will do."""
        return len(self.dictionary)

    def bits(self, l0: int | Int[Tensor, " n"], *, bits_per_value: float = 8.0) -> float:
        """The mean description length of an input in bits, as `description_length` counts it.

        Args:
            l0: number of atoms used, or one number for each input.
            bits_per_value: b, the precision of a code's value.

        Raises:
            ValueError, TypeError: for numbers out of range.
        """
        check_counts(self.max_l0, l0)
        return self._bits(l0, check_non_negative("bits_per_value", bits_per_value))

    @abstractmethod
    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        """The atoms for centred training data."""

    @abstractmethod
    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        """The codes of centred inputs."""

    def _encode(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        return self._code(x - self.centre, l0)

    def _centre_of(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, " d_in"]:
        return x.mean(0)

    def _n_encoder_parameters(self) -> int:
        return 0

    def _bits(self, l0: int | Int[Tensor, " n"], bits_per_value: float) -> float:
        return description_length(len(self.dictionary), l0, bits_per_value)

    def _fitted(self, value: _Value | None) -> _Value:
        if value is None:
            raise NotFittedError(f"{type(self).__name__} must be fitted first: call fit")
        return value

    def _check_l0(self, l0: int) -> int:
        check_int_at_least("l0", l0, self.min_l0)
        if self.max_l0 is not None:
            check_in_range("l0", l0, self.min_l0, self.max_l0)
        return int(l0)


class AtomBaseline(Baseline):
    """A dictionary of unit atoms that codes in one of two ways.

    "topk" keeps, for each input, the l0 largest of relu(⟨x − centre, atom⟩), as an SAE does whose
    encoder is its decoder transposed. "omp" is `orthogonal_matching_pursuit`, with signed codes.

    Args:
        inference: "topk" or "omp".
    """

    def __init__(self, *, inference: str = "omp") -> None:
        self.inference = check_one_of("inference", inference, INFERENCES)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        if self.inference == "omp":
            return orthogonal_matching_pursuit(x, self.dictionary, l0)
        codes = torch.relu(x @ self.dictionary.T)
        return keep_largest(codes, codes, l0)


def check_enough_rows(x: Tensor, name: str, needed: int) -> None:
    """Check that training data hold at least as many inputs as the method has to tell apart."""
    if len(x) < needed:
        raise ValueError(f"x must have at least {name} = {needed} rows, got {len(x)}")


def check_width(x: Tensor, name: str, needed: int) -> None:
    """Check that training data are at least as wide as the number of directions sought."""
    if x.shape[1] < needed:
        raise ValueError(f"{name} must be at most d_in = {x.shape[1]}, got {needed}")


def random_state(generator: torch.Generator) -> int:
    """A seed for scikit-learn, drawn from `generator`."""
    return int(torch.randint(2**31 - 1, (), generator=generator))


@contextmanager
def noting_convergence() -> Iterator[list[str]]:
    """Collect the warnings that an iteration has not converged, and let all others through."""
    seen: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield seen
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            seen.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
