"""Two features in a small world where the expected loss can be told without sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_finite, check_instance, check_shape
from saebook._running import one_thread
from saebook.toy_models.steps import Weights, descend
from saebook.toy_models.task import ToyTask

NODES = 64  # Gauss–Legendre nodes along each magnitude when a loss is measured
FITTING_NODES = 12  # and while weights are fitted
FITTING_STEPS = 1000
FITTING_LR = 1e-2


@dataclass(frozen=True, eq=False, kw_only=True)
class PairLosses:
    """Expected losses of three ways to store two features in one dimension, each (n_models,).

    Attributes:
        first_only: feature 0 has the dimension, feature 1 is ignored; W = (1, 0), best bias.
        second_only: the other way round.
        antipodal: W = (1, −1) and no bias: I₀ + I₁ times p₀ p₁ / 6.
        antipodal_fitted: the lowest loss that descent from there finds.
        W: its weights, (n_models, 2, 1).
        b: its biases, (n_models, 2).
    """

    first_only: Float[Tensor, " n_models"]
    second_only: Float[Tensor, " n_models"]
    antipodal: Float[Tensor, " n_models"]
    antipodal_fitted: Float[Tensor, " n_models"]
    W: Float[Tensor, "n_models 2 1"]
    b: Float[Tensor, "n_models 2"]


def _check_pair_task(task: ToyTask) -> None:
    check_instance("task", task, ToyTask)
    found = (task.n_features, task.pairs, task.target)
    if found != (2, "independent", "identity"):
        raise ValueError(
            "task must have 2 features that are independent and the target identity, "
            f"got {task.n_features} features, {task.pairs}, target {task.target}"
        )


def _support(task: ToyTask, nodes: int) -> tuple[Tensor, Tensor]:
    """Inputs (2, n) and their weights (n_models, n): no feature, one of them, or both."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    x, w = (torch.from_numpy(v).to(task.density) for v in ((points + 1) / 2, weights / 2))
    zero, one = torch.zeros_like(x), torch.ones(1, dtype=x.dtype)
    both = torch.cartesian_prod(x, x).T
    acts = torch.cat(
        [zero[:1].repeat(2, 1), torch.stack([x, zero]), torch.stack([zero, x]), both], 1
    )
    p, q = task.density[:, :1], task.density[:, 1:]
    shares = [((1 - p) * (1 - q), one), (p * (1 - q), w), ((1 - p) * q, w)]
    both_weights = (w[:, None] * w).flatten()
    return acts, torch.cat([share * each for share, each in [*shares, (p * q, both_weights)]], 1)


def pair_loss(
    W: Float[Tensor, "n_models 2 d_hidden"], b: Float[Tensor, "n_models 2"], task: ToyTask
) -> Float[Tensor, " n_models"]:
    """The exact expected loss of each linear tied model of two features, (n_models,).

    A quadrature over the magnitudes, with 64 nodes along each, takes the place of samples; its
    error is below a thousandth of the loss.

    Args:
        W: directions of the features, one a row.
        b: biases of the outputs.
        task: two independent features for each model, and the target identity.

    Raises:
        ValueError, TypeError: for another kind of task, or shapes that do not fit.
    """
    _check_pair_task(task)
    check_finite("W", check_shape("W", W, (task.n_models, 2, "d_hidden")))
    check_finite("b", check_shape("b", b, (task.n_models, 2)))
    acts, weights = _support(task, NODES)
    losses = []
    with torch.no_grad(), one_thread():
        for W_one, b_one, importance, weight in zip(W, b, task.importance, weights, strict=True):
            out = (W_one @ (W_one.mT @ acts) + b_one[:, None]).relu_()  # (2, n)
            losses.append(importance @ out.sub_(acts).square_() @ weight)
    return torch.stack(losses)


def pair_losses(task: ToyTask) -> PairLosses:
    """The expected losses of three ways to store two features in one dimension.

    Ignoring a feature costs its variance, and storing both antipodally costs their interference;
    both have closed forms. For the fitted antipodal pair, scales and biases descend on the exact
    loss. Where ignoring is better the descent may lead there.

    Args:
        task: two independent features for each model, and the target identity.

    Raises:
        ValueError, TypeError: for another kind of task.

    Source: Elhage et al. (arXiv 2209.10652), "Superposition as a phase change", with the costs
    worked out for these magnitudes.
    """
    _check_pair_task(task)
    ignored = task.importance * task.target_variance
    product = task.density.prod(1)
    W = torch.tensor([[1.0], [-1.0]]).to(task.density).repeat(task.n_models, 1, 1)
    b = torch.zeros_like(task.density)
    acts, shares = _support(task, FITTING_NODES)
    batch = acts.expand(task.n_models, -1, -1).contiguous()
    descend(
        Weights(W=W, b=b, W_in=W, relu_hidden=False),
        lambda: (batch, batch),
        task.importance[..., None] * shares[:, None],
        batch_size=acts.shape[1],
        steps=FITTING_STEPS,
        lr=FITTING_LR,
        progress=False,
    )
    return PairLosses(
        first_only=ignored[:, 1],
        second_only=ignored[:, 0],
        antipodal=task.importance.sum(1) * product / 6,
        antipodal_fitted=pair_loss(W, b, task),
        W=W,
        b=b,
    )
