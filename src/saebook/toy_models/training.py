"""Train toy models of superposition, and measure what they have learnt."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_instance,
    check_positive,
    check_positive_int,
)
from saebook._running import one_thread
from saebook.toy_models.models import ToyModels
from saebook.toy_models.steps import Batch, Weights, descend
from saebook.toy_models.task import ToyTask
from saebook.training.options import TrainingOptions

CHUNK = 2**18  # entries of one tensor while errors are measured


def train_toy_models(
    models: ToyModels,
    task: ToyTask,
    options: TrainingOptions,
    *,
    generator: GeneratorLike,
) -> ToyModels:
    """Train every model on its task, all in one stacked program; return the trained models.

    Adam (betas 0.9 and 0.999) at a constant rate for half of the steps, then falling linearly to
    0. Models share no parameter, so that each ends as it would alone on the same batches.

    Args:
        models: initial weights, which stay as they are.
        task: one task for each model.
        options: steps, batch_size, lr before it falls, and progress.
        generator: draws the batches.

    Raises:
        ValueError, TypeError: for an unusable argument, or a task for other models.

    Source: Elhage et al. (arXiv 2209.10652).
    """
    _check_task(models, task)
    options.only("steps", "batch_size", "lr", "progress")
    generator = check_generator("generator", generator)
    W, b = models.W.clone(), models.b.clone()
    W_in = W if models.W_in is None else models.W_in.clone()
    weights = Weights(W=W, b=b, W_in=W_in, relu_hidden=models.relu_hidden)
    acts = W.new_empty(task.n_models, task.n_features, options.batch_size)

    def next_batch() -> Batch:
        task.draw(options.batch_size, generator, out=acts)
        return acts, task.target_of(acts)

    scale = task.importance[..., None] / options.batch_size
    descend(
        weights,
        next_batch,
        scale,
        batch_size=options.batch_size,
        steps=options.steps,
        lr=check_positive("lr", options.lr),
        progress=options.progress,
    )
    trained_in = None if weights.tied else W_in
    return ToyModels(W=W, b=b, W_in=trained_in, relu_hidden=models.relu_hidden)


def _check_task(models: ToyModels, task: ToyTask) -> None:
    check_instance("models", models, ToyModels)
    check_instance("task", task, ToyTask)
    if task.density.shape != models.b.shape:
        raise ValueError(
            f"task must be for {models.n_models} models of {models.b.shape[1]} features, got "
            f"{task.n_models} of {task.n_features}"
        )
    if task.density.dtype != models.W.dtype:
        raise TypeError(f"task must have the dtype {models.W.dtype}, got {task.density.dtype}")


def feature_errors(
    models: ToyModels, task: ToyTask, *, n_samples: int, generator: GeneratorLike
) -> Float[Tensor, "n_models n_features"]:
    """The mean squared error of each feature, (n_models, n_features), on fresh inputs.

    Importance is not in it. An ignored feature has at best `task.target_variance`.

    Raises:
        ValueError, TypeError: for an unusable argument, or a task for other models.
    """
    _check_task(models, task)
    check_positive_int("n_samples", n_samples)
    generator = check_generator("generator", generator)
    total = torch.zeros_like(models.b)
    chunk = max(1, CHUNK // models.b.numel())
    with torch.no_grad(), one_thread():
        for start in range(0, n_samples, chunk):
            acts = task.sample(min(chunk, n_samples - start), generator=generator)
            total += (models(acts) - task.target_of(acts)).square_().sum(1)
    return total / n_samples


def mean_loss(
    models: ToyModels, task: ToyTask, *, n_samples: int, generator: GeneratorLike
) -> Float[Tensor, " n_models"]:
    """Σ_i importance_i · error_i on fresh inputs, (n_models,); raises as `feature_errors` does."""
    errors = feature_errors(models, task, n_samples=n_samples, generator=generator)
    return (task.importance * errors).sum(-1)


def feature_dimensionality(
    W: Float[Tensor, "*models n_features d_hidden"],
) -> Float[Tensor, "*models n_features"]:
    """D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)², the share of a dimension that feature i has for itself.

    It is 1 for a direction that no other feature uses, 1/2 for each of two antipodal features, and
    0 for a zero row. Σ D_i is at most the rank of W. Shape (*models, n_features).

    Raises:
        ValueError, TypeError: for fewer than two axes, or values that are not finite.

    Source: Elhage et al. (arXiv 2209.10652), "The geometry of superposition".
    """
    if check_finite("W", W).ndim < 2:
        raise ValueError(f"W must have shape (*models, n_features, d_hidden), got {tuple(W.shape)}")
    squares = W.square().sum(-1)  # (*models, n_features)
    overlap = (W @ W.mT).square().sum(-1)
    return torch.where(overlap > 0, squares.square() / overlap, 0.0)
