"""Worlds of correlated features, whose activations follow a Gaussian copula.

Source: Chanin & Garriga-Alonso, "Sparse but Wrong" (arXiv 2508.16560), its toy models of 5 and of
50 features; directions are held in a `sae_lens.synthetic.FeatureDictionary`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from sae_lens.synthetic import FeatureDictionary
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_generator,
    check_in_range,
    check_positive_int,
    check_probabilities,
    check_shape,
)
from saebook.worlds import copula
from saebook.worlds.base import (
    MAX_STATES,
    World,
    check_constant_magnitudes,
    check_magnitudes,
    make_feature_dictionary,
    merge_states,
    positive_share,
)
from saebook.worlds.copula import make_random_correlation
from saebook.worlds.directions import make_orthonormal_directions, make_superposed_directions

_MAX_FEATURES = 16

CORRELATION_SEED = 42  # of the copula of the fifty features


@dataclass(frozen=True, eq=False, kw_only=True)
class CopulaWorld(World):
    """Feature directions and the law by which features fire, from which inputs are sampled.

    Feature i fires with probability p_i, independently or correlated by a Gaussian copula; when it
    fires, its magnitude is normal, clipped at 0; x = feature_acts @ directions (plus the
    dictionary's bias, if it has one).

    Attributes:
        feature_dict: sae-lens' dictionary, whose `feature_vectors (n_features, d_in)` have norm 1.
        firing_probabilities: p, shape (n_features,).
        correlation: the copula's correlation (n_features, n_features), or None if independent.
        magnitude_mean: mean of the magnitudes before clipping, shape (n_features,) or a number.
        magnitude_std: their standard deviation, likewise.

    Raises:
        ValueError: for a wrong shape, a value out of its range, directions not of norm 1, or a
            matrix that is no correlation matrix; the message names the argument and its value.
    """

    feature_dict: FeatureDictionary
    firing_probabilities: Float[Tensor, " n_features"]
    correlation: Float[Tensor, "n_features n_features"] | None = None
    magnitude_mean: Float[Tensor, " n_features"] | float = 1.0
    magnitude_std: Float[Tensor, " n_features"] | float = 0.0
    _thresholds: Float[Tensor, " n_features"] = field(init=False, repr=False)
    _factor: Float[Tensor, "n_features n_features"] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        n_features, like = self.n_features, self.directions
        p = check_shape("firing_probabilities", self.firing_probabilities, (n_features,))
        check_probabilities("firing_probabilities", p)
        mean, std = check_magnitudes(self.magnitude_mean, self.magnitude_std, like)
        thresholds, factor, correlation = copula.firing_thresholds(p), None, self.correlation
        if correlation is not None:
            copula.check_correlation("correlation", correlation, n_features)
            correlation = correlation.to(like.device)
            factor = copula.copula_factor(correlation).to(like)
        self._set(
            firing_probabilities=p.to(like.device),  # keeps its own precision, as correlation
            correlation=correlation,
            magnitude_mean=mean,
            magnitude_std=std,
            _thresholds=thresholds.to(like),
            _factor=factor,
        )

    @property
    def true_l0(self) -> float:
        """The exact expected number of nonzero features per input, Σ p_i Φ(mean_i / std_i)."""
        survives = positive_share(self.magnitude_mean, self.magnitude_std)
        return float((self.firing_probabilities.double() * survives).sum())

    def joint_firing_probabilities(self) -> Float[Tensor, "n_features n_features"]:
        """The exact P(i and j both fire), in float64 (before the clipping of magnitudes)."""
        return copula.joint_firing_probabilities(self.firing_probabilities, self.correlation)

    def firing_correlation(self) -> Float[Tensor, "n_features n_features"]:
        """The exact correlation of the binary firings, in float64; see `copula`."""
        return copula.firing_correlation(self.firing_probabilities, self.correlation)

    def sample_feature_acts(
        self, n: int, generator: GeneratorLike
    ) -> Float[Tensor, "{n} {self.n_features}"]:
        """Draw `n` rows of feature activations, (n, n_features), from `generator`."""
        check_positive_int("n", n)
        generator = check_generator("generator", generator)
        like = self.directions
        noise = torch.randn(
            (2, n, self.n_features), generator=generator, device=like.device, dtype=like.dtype
        )
        gaussian = noise[0] if self._factor is None else noise[0] @ self._factor.T
        magnitudes = noise[1].mul_(self.magnitude_std).add_(self.magnitude_mean).relu_()
        return magnitudes.mul_(gaussian > self._thresholds)

    def support(self) -> tuple[Float[Tensor, "n_states n_features"], Float[Tensor, " n_states"]]:
        """All activations that occur, (n_states, n_features), and their probabilities, in float64.

        Rows are distinct and sorted, each has a probability above 0, and these sum to 1.

        Raises:
            ValueError: if magnitudes vary, features are correlated, or there are more than 16.
        """
        check_constant_magnitudes(self.magnitude_std)
        self._check_countable()
        p, mean = self.firing_probabilities.double(), torch.as_tensor(self.magnitude_mean).double()
        bits = torch.arange(2**self.n_features, device=p.device)[:, None]
        fires = bits.bitwise_right_shift(torch.arange(self.n_features, device=p.device)) % 2 == 1
        probabilities = torch.where(fires, p, 1 - p).prod(dim=1)
        return merge_states(fires * mean.relu(), probabilities)

    def _check_countable(self) -> None:
        correlation = self.correlation
        if correlation is not None and bool((correlation - correlation.diag().diag()).any()):
            raise ValueError(
                "support() needs features that fire independently: correlation must be None or "
                "diagonal, got other entries (a copula's states have no closed-form probabilities)"
            )
        if self.n_features > _MAX_FEATURES:
            raise ValueError(
                f"support() lists 2 ** n_features states: n_features must be at most "
                f"{_MAX_FEATURES} ({MAX_STATES:,} states), got {self.n_features}"
            )


def make_correlated_world(
    firing_probabilities: Float[Tensor, " n_features"],
    correlation: Float[Tensor, "n_features n_features"] | None,
    directions: Float[Tensor, "n_features d_in"],
    *,
    magnitude_mean: Float[Tensor, " n_features"] | float = 1.0,
    magnitude_std: Float[Tensor, " n_features"] | float = 0.0,
) -> CopulaWorld:
    """The `CopulaWorld` of these directions (rows of norm 1) and firing law, and its errors.

    A `correlation` of None stands for features that fire independently.
    """
    return CopulaWorld(
        feature_dict=make_feature_dictionary(directions),
        firing_probabilities=firing_probabilities,
        correlation=correlation,
        magnitude_mean=magnitude_mean,
        magnitude_std=magnitude_std,
    )


def make_independent_world(
    firing_probabilities: Float[Tensor, " n_features"],
    directions: Float[Tensor, "n_features d_in"],
    *,
    magnitude_mean: Float[Tensor, " n_features"] | float = 1.0,
    magnitude_std: Float[Tensor, " n_features"] | float = 0.0,
) -> CopulaWorld:
    """The `CopulaWorld` whose features fire independently; it raises what `CopulaWorld` raises."""
    return make_correlated_world(
        firing_probabilities,
        None,
        directions,
        magnitude_mean=magnitude_mean,
        magnitude_std=magnitude_std,
    )


def make_fifty_feature_world(
    *,
    generator: GeneratorLike,
    d_in: int = 100,
    dtype: torch.dtype = torch.float32,
) -> CopulaWorld:
    """The world of "Sparse but Wrong" with 50 features in 100 dimensions; its true L0 is 10.95.

    p_i = 0.345·(50 − i − 1)/50 + 0.05, as in the paper's code (its text says p_0 = 0.345, but only
    the code's 0.388 fits its figures); magnitudes 1 ± 0.15. `generator` draws the orthonormal
    directions.

    Raises:
        ValueError: for d_in below 50, where no 50 directions are orthonormal.
    """
    index = torch.arange(50, dtype=torch.float64)
    return make_correlated_world(
        0.345 * (50 - index - 1) / 50 + 0.05,
        make_random_correlation(50, seed=CORRELATION_SEED),
        make_orthonormal_directions(50, d_in, generator=generator, dtype=dtype),
        magnitude_std=0.15,
    )


def make_five_feature_world(
    *,
    generator: GeneratorLike,
    correlation: float = 0.4,
    signs: Sequence[int] = (1, 1, 1, 1),
    superposed: bool = False,
    n_repulsion_steps: int = 4,
    d_in: int = 20,
    dtype: torch.dtype = torch.float32,
) -> CopulaWorld:
    """The world of "Sparse but Wrong" with 5 features, p = 0.4 each, in 20 dimensions; true L0 2.

    The copula correlates feature 0 with feature j by `signs[j − 1] · correlation`, and the others
    not at all. Directions are orthonormal, or if `superposed` random and repelled for
    `n_repulsion_steps`. Magnitudes 1 ± 0.15.

    Raises:
        ValueError: if 4·correlation² > 1, where no such correlation exists, or signs are not ±1.
    """
    check_in_range("correlation", correlation, -0.5, 0.5)
    if len(signs) != 4 or any(sign not in (-1, 1) for sign in signs):
        raise ValueError(f"signs must be four of +1 and -1, got {tuple(signs)}")
    matrix = torch.eye(5, dtype=torch.float64)
    matrix[0, 1:] = matrix[1:, 0] = correlation * torch.tensor(signs, dtype=torch.float64)
    if superposed:
        directions = make_superposed_directions(
            5, d_in, generator=generator, n_repulsion_steps=n_repulsion_steps, dtype=dtype
        )
    else:
        directions = make_orthonormal_directions(5, d_in, generator=generator, dtype=dtype)
    p = torch.full((5,), 0.4, dtype=torch.float64)
    return make_correlated_world(p, matrix, directions, magnitude_std=0.15)
