"""saebook: what sae-lens lacks for telling right sparse autoencoders from wrong ones.

Packages hold the library; the names below are those that one meets first. They are imported when
they are first used, so that `import saebook` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebook.baselines import evaluate_baselines as evaluate_baselines
    from saebook.evaluation import evaluate as evaluate
    from saebook.language import collect_activations as collect_activations
    from saebook.language import load_language_model as load_language_model
    from saebook.metrics import match_features as match_features
    from saebook.saes import inference_sae as inference_sae
    from saebook.toy_models import train_toy_models as train_toy_models
    from saebook.training import train_and_polish as train_and_polish
    from saebook.training import train_at_l0 as train_at_l0
    from saebook.training import train_ensemble as train_ensemble
    from saebook.training import train_population as train_population
    from saebook.true_l0 import estimate_true_l0 as estimate_true_l0

__version__ = "0.2.0"

_HOMES = {
    "collect_activations": "language",
    "estimate_true_l0": "true_l0",
    "evaluate": "evaluation",
    "evaluate_baselines": "baselines",
    "inference_sae": "saes",
    "load_language_model": "language",
    "match_features": "metrics",
    "train_and_polish": "training",
    "train_at_l0": "training",
    "train_ensemble": "training",
    "train_population": "training",
    "train_toy_models": "toy_models",
}
__all__ = sorted(_HOMES)
_ROOMS = {*_HOMES.values(), "plots", "worlds"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
