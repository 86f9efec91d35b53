"""What an SAE has to beat, behind one interface and counted by one standard.

Every baseline is fitted on training data and then codes inputs with at most l0 atoms each,

    fit(x, generator=…) → encode(x, l0) → reconstruct(x, l0),

as x̂ = centre + codes · dictionary. `account` measures one of them, `evaluate_baselines` many, by
the error, the share of variance, the bits of a code, the parameters and the time. What scikit-learn
has is scikit-learn's. `encode` returns all n · n_atoms codes: give it inputs in parts where that is
too much memory.
"""

from saebook.baselines.accounting import (
    description_length,
)
from saebook.baselines.atoms import (
    DataPoints,
    DictionaryLearning,
    RandomDictionary,
    TrueDictionary,
)
from saebook.baselines.base import (
    AtomBaseline,
    Baseline,
)
from saebook.baselines.clusters import (
    KMeans,
    KMeansGain,
    ResidualVQ,
)
from saebook.baselines.compare import (
    account,
    evaluate_baselines,
)
from saebook.baselines.documents import (
    LEAST_FLOOR,
    DocumentAutoencoders,
    sigmoid_floor,
    train_document_autoencoders,
)
from saebook.baselines.frozen_sae import (
    FrozenSAE,
)
from saebook.baselines.linear import (
    ICA,
    NMF,
    PCA,
    MeanOnly,
    PCATopK,
)
from saebook.baselines.pursuit import (
    orthogonal_matching_pursuit,
)
from saebook.baselines.sae import (
    SAEDictionary,
)

__all__ = [
    "ICA",
    "LEAST_FLOOR",
    "NMF",
    "PCA",
    "AtomBaseline",
    "Baseline",
    "DataPoints",
    "DictionaryLearning",
    "DocumentAutoencoders",
    "FrozenSAE",
    "KMeans",
    "KMeansGain",
    "MeanOnly",
    "PCATopK",
    "RandomDictionary",
    "ResidualVQ",
    "SAEDictionary",
    "TrueDictionary",
    "account",
    "description_length",
    "evaluate_baselines",
    "orthogonal_matching_pursuit",
    "sigmoid_floor",
    "train_document_autoencoders",
]
