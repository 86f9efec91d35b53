"""Train many SAEs at once, to one measured L0, or on the exact loss of a finite world."""

from saebook.training.continuation import (
    follow_minima,
)
from saebook.training.engine.batches import (
    SampleBatch,
)
from saebook.training.ensembles import (
    Ensemble,
    train_ensemble,
)
from saebook.training.initial import (
    Init,
)
from saebook.training.log import (
    TrainingLog,
)
from saebook.training.matched_l0 import (
    MatchedSAEs,
    train_at_l0,
)
from saebook.training.options import (
    TrainingOptions,
)
from saebook.training.population import (
    train_population,
)
from saebook.training.recipes import (
    train_and_polish,
    train_thoroughly,
)
from saebook.training.resampling import (
    Resampling,
)
from saebook.training.schedules import (
    learning_rates,
)
from saebook.training.stationarity import (
    ExpectedLoss,
    expected_loss,
)
from saebook.training.sweeps import (
    Sweep,
    sweep,
)

__all__ = [
    "Ensemble",
    "ExpectedLoss",
    "Init",
    "MatchedSAEs",
    "Resampling",
    "SampleBatch",
    "Sweep",
    "TrainingLog",
    "TrainingOptions",
    "expected_loss",
    "follow_minima",
    "learning_rates",
    "sweep",
    "train_and_polish",
    "train_at_l0",
    "train_ensemble",
    "train_population",
    "train_thoroughly",
]
