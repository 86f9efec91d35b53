"""Toy models of superposition: more features than dimensions, many models in one program.

A toy model writes n features into d dimensions, h = a W, and reads them back, ReLU(h Wᵀ + b). A row
of W is a feature's direction. Weights carry a leading `n_models` axis, so that a sweep over
sparsities, importances and initial weights trains at once.

Source: Elhage et al., "Toy Models of Superposition" (arXiv 2209.10652).
"""

from saebook.toy_models.models import (
    ToyModels,
    make_toy_models,
)
from saebook.toy_models.pairs import (
    PairLosses,
    pair_loss,
    pair_losses,
)
from saebook.toy_models.task import (
    Pairs,
    Target,
    ToyTask,
    make_toy_task,
)
from saebook.toy_models.training import (
    feature_dimensionality,
    feature_errors,
    mean_loss,
    train_toy_models,
)

__all__ = [
    "PairLosses",
    "Pairs",
    "Target",
    "ToyModels",
    "ToyTask",
    "feature_dimensionality",
    "feature_errors",
    "make_toy_models",
    "make_toy_task",
    "mean_loss",
    "pair_loss",
    "pair_losses",
    "train_toy_models",
]
