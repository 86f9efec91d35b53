"""What a language model loses when a reconstruction takes the place of its activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import check_shape
from saebook.language.activations import Replace, token_losses
from saebook.language.model import LanguageModel


def identity(acts: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    """The activations themselves: splicing them in changes nothing."""
    return acts


def zero_ablation(acts: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
    """Zeros."""
    return torch.zeros_like(acts)


def mean_ablation(mean: Float[Tensor, " d_model"]) -> Replace:
    """A replacement of every activation by the `mean`."""
    return lambda acts: mean.to(acts).expand_as(acts)


def recovered_share(clean: float, spliced: float, ablated: float) -> float:
    """(ablated − spliced) / (ablated − clean): 1 for no loss, 0 for no better than the ablation.

    Raises:
        ValueError: if the ablation does not raise the loss, so that nothing can be recovered.
    """
    if not ablated > clean:
        raise ValueError(f"ablated must be above clean = {clean:g}, got {ablated:g}")
    return (ablated - spliced) / (ablated - clean)


@dataclass(frozen=True, kw_only=True)
class Splice:
    """Mean cross-entropies in nats per token, and the shares recovered.

    Attributes:
        clean: of the model as it is.
        zero: with the activations replaced by zeros.
        mean: with the activations replaced by their mean.
        table: one row a replacement, with `loss`, `loss_recovered` (against `zero`) and
            `loss_recovered_mean` (against `mean`, which is harder to beat). A share is NaN if its
            ablation does not raise the loss: then there is nothing to recover.
    """

    clean: float
    zero: float
    mean: float
    table: pd.DataFrame


def splice(
    model: LanguageModel,
    tokens: Int[Tensor, "n_contexts n_ctx"],
    hook_name: str,
    replacements: Mapping[str, Replace],
    *,
    mean: Float[Tensor, " d_model"],
) -> Splice:
    """Losses on the same tokens for each replacement at a hook point.

    The first position is never replaced, but what it predicts counts in every mean.

    Args:
        replacements: functions of activations (n_contexts, n_ctx − 1, d_model), by name.
        mean: the activations' mean, for the mean ablation.

    Raises:
        ValueError: what `activations.run_replaced` raises, or a mean of another width.
    """
    check_shape("mean", mean, (model.d_model,))

    def loss(replace: Replace | None) -> float:
        return token_losses(model, tokens, hook_name, replace).double().mean().item()

    clean, zero, by_mean = loss(None), loss(zero_ablation), loss(mean_ablation(mean))

    def share(spliced: float, ablated: float) -> float:
        return recovered_share(clean, spliced, ablated) if ablated > clean else math.nan

    rows = {}
    for name, replace in replacements.items():
        found = loss(replace)
        rows[name] = {
            "loss": found,
            "loss_recovered": share(found, zero),
            "loss_recovered_mean": share(found, by_mean),
        }
    return Splice(
        clean=clean, zero=zero, mean=by_mean, table=pd.DataFrame.from_dict(rows, orient="index")
    )
