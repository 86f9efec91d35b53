"""Metrics that sae-lens lacks: of tensors, never of models or worlds."""

from saebook.metrics.absorption import (
    absorption_gap,
    detector_f1,
)
from saebook.metrics.coding import (
    CodeLength,
    code_length,
)
from saebook.metrics.decoders import (
    decoder_pairwise_cosine,
    feature_cosines,
    nth_decoder_projection,
)
from saebook.metrics.hedging import (
    HedgingDegree,
    feature_components,
    hedging_degree,
)
from saebook.metrics.matching import (
    Matching,
    match_features,
    n_recovered,
    reorder_latents,
    signed_mcc,
)
from saebook.metrics.probed_absorption import (
    absorption_fraction,
)
from saebook.metrics.reconstruction import (
    l0,
    mean_squared_error,
    shrinkage,
    variance_explained,
)
from saebook.metrics.true_dictionary import (
    batch_topk_reconstruction,
    true_dictionary_error,
    true_dictionary_error_closed_form,
)

__all__ = [
    "CodeLength",
    "HedgingDegree",
    "Matching",
    "absorption_fraction",
    "absorption_gap",
    "batch_topk_reconstruction",
    "code_length",
    "decoder_pairwise_cosine",
    "detector_f1",
    "feature_components",
    "feature_cosines",
    "hedging_degree",
    "l0",
    "match_features",
    "mean_squared_error",
    "n_recovered",
    "nth_decoder_projection",
    "reorder_latents",
    "shrinkage",
    "signed_mcc",
    "true_dictionary_error",
    "true_dictionary_error_closed_form",
    "variance_explained",
]
