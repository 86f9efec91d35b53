"""One table of what trained SAEs do on a world whose features are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.synthetic import feature_uniqueness
from torch import Tensor

from saebook._checks import check_instance, check_rows, check_sequence, check_shape, check_unit_rows
from saebook.metrics.absorption import detector_f1
from saebook.metrics.matching import match_features
from saebook.metrics.reconstruction import l0, shrinkage, variance_explained
from saebook.saes.transforms import inference_sae

RECOVERED = 0.9  # cosine above which a matched latent counts as its feature


@torch.no_grad()
def evaluate(
    saes: Sequence[TrainingSAE[Any]],
    x: Float[Tensor, "n d_in"],
    feature_acts: Float[Tensor, "n n_features"],
    directions: Float[Tensor, "n_features d_in"],
) -> pd.DataFrame:
    """Measures of each SAE as it is used after training, one row an SAE, in their order.

    Columns: `l0`; `variance_explained`, a share of the variance round the mean; `signed_mcc`, the
    mean cosine of features and their latents, see `metrics.signed_mcc`; `recovered`, the number of
    features whose latent has a cosine above 0.9; `f1`, the mean over features that fire of their
    latents' F1 as detectors; `shrinkage`, the mean over features of the share of an activation
    that their latents report; `dead`, the share of latents that no input makes fire; `uniqueness`,
    the number of features that are some live latent's nearest, over that of live latents, by
    sae-lens' `feature_uniqueness`.

    Args:
        saes: sae-lens training SAEs.
        x: inputs that they were not trained on.
        feature_acts: the true activations behind `x`.
        directions: of the features, rows of norm 1.

    Raises:
        TypeError, ValueError: for other things than training SAEs, or shapes that do not fit.
    """
    check_unit_rows("directions", directions)
    n_features, d_in = directions.shape
    check_rows("x", x, d_in)
    check_shape("feature_acts", feature_acts, (len(x), n_features))
    for sae in check_sequence("saes", saes, "training SAEs"):
        check_instance("saes", sae, TrainingSAE)
    return pd.DataFrame([_measures(sae, x, feature_acts, directions) for sae in saes])


def _measures(
    sae: TrainingSAE[Any], x: Tensor, feature_acts: Tensor, directions: Tensor
) -> dict[str, float]:
    used = inference_sae(sae)
    latent_acts = used.encode(x)
    matching = match_features(used.W_dec, directions)
    contributions = latent_acts * used.W_dec.norm(dim=1)
    live = latent_acts.any(0)
    return {
        "l0": l0(latent_acts),
        "variance_explained": variance_explained(x, used.decode(latent_acts)),
        "signed_mcc": matching.cosine.mean().item(),
        "recovered": int((matching.cosine > RECOVERED).sum()),
        "f1": detector_f1(latent_acts, feature_acts, matching.latent).nanmean().item(),
        "shrinkage": shrinkage(contributions, feature_acts, matching.latent).nanmean().item(),
        "dead": 1 - live.double().mean().item(),
        "uniqueness": feature_uniqueness(used.W_dec[live], directions),
    }
