"""Do a latent's directions do what they seem to? Steering, ablation, and random directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from saebook._checks import (
    GeneratorLike,
    check_finite,
    check_generator,
    check_in_range,
    check_int_at_least,
    check_positive_int,
    check_shape,
)
from saebook.language.activations import Replace, run_replaced
from saebook.language.model import LanguageModel


def check_latent(sae: SAE[Any], latent: int) -> int:
    """Return `latent` if the SAE has it."""
    check_int_at_least("latent", latent, 0)
    d_sae = int(sae.cfg.d_sae)
    if latent >= d_sae:
        raise ValueError(f"latent must be in [0, {d_sae - 1}], got {latent}")
    return latent


@torch.no_grad()
def logit_effect(
    model: LanguageModel, directions: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n vocab"]:
    """What a small step along each direction adds to the logits by the direct path, (n, vocab).

    The direct path goes from the residual stream through the model's own final norm, which centres
    (layer norm) or does not (RMSNorm), to the unembedding. The norm's scale is that of the
    direction alone, and the mean over the vocabulary is taken off, so only the order and the ratios
    in a row mean something.

    Raises:
        ValueError: for directions of another width.
    """
    check_finite("directions", check_shape("directions", directions, ("n", model.d_model)))
    W_U = model.bridge.W_U[:, : len(model.vocabulary)]
    norm = model.bridge.ln_final.original_component
    steps = directions.to(W_U)
    effect = (norm(steps) - norm(torch.zeros_like(steps))) @ W_U  # less the norm's bias
    return (effect - effect.mean(1, keepdim=True)).to(directions)


def top_tokens(effect: Float[Tensor, "n vocab"], n_tokens: int) -> Int[Tensor, "n {n_tokens}"]:
    """The tokens that each row raises most, (n, n_tokens)."""
    check_in_range("n_tokens", check_positive_int("n_tokens", n_tokens), 1, effect.shape[1])
    return effect.topk(n_tokens, dim=1).indices


def steer(direction: Float[Tensor, " d_model"], strength: float) -> Replace:
    """A replacement that adds `strength` times the unit vector along `direction` everywhere."""
    check_in_range("strength", strength)
    norm = check_finite("direction", direction).norm()
    if norm == 0:
        raise ValueError("direction must not be zero")
    step = strength * direction / norm
    return lambda acts: acts + step.to(acts)


def ablate_latent(
    sae: SAE[Any], latent: int, direction: Float[Tensor, " d_model"] | None = None
) -> Replace:
    """A replacement that takes a latent's contribution off and leaves all else, errors included.

    Args:
        sae: a sae-lens SAE in the form in which it is used, see `evaluation.inference_sae`.
        latent: its index.
        direction: a direction to take the same length off along, in place of the latent's own: the
            control.

    Raises:
        ValueError: for an index out of range.
    """
    check_latent(sae, latent)
    one = torch.zeros(1, sae.cfg.d_sae).to(sae.b_dec)
    one[0, latent] = 1
    row = (sae.decode(one) - sae.b_dec)[0]
    along = row if direction is None else direction.to(row)
    along = along * (row.norm() / along.norm())
    return lambda acts: acts - sae.encode(acts)[..., latent, None] * along


def random_directions_like(
    direction: Float[Tensor, " d_model"], n: int, *, generator: GeneratorLike
) -> Float[Tensor, "{n} d_model"]:
    """`n` random directions of the norm of `direction` and on its device, uniform on the sphere."""
    check_positive_int("n", n)
    generator = check_generator("generator", generator)
    rows = torch.randn(n, len(direction), generator=generator, device=generator.device)
    rows = rows.to(direction)
    return rows * (direction.norm() / rows.norm(dim=1, keepdim=True))


@torch.no_grad()
def group_log_odds(
    model: LanguageModel,
    tokens: Int[Tensor, "n_contexts n_ctx"],
    group: Sequence[int] | Int[Tensor, " n_group"],
    hook_name: str,
    replace: Replace | None = None,
    *,
    where: Bool[Tensor, "n_contexts n_ctx"] | None = None,
    batch_size: int = 16,
) -> Float[Tensor, " n_positions"]:
    """The log-odds that the next token is one of a group, at each position but the first.

    Args:
        group: token ids.
        replace: what is done to the activations at `hook_name`; None for nothing.
        where: which positions to report; by default all but the first of each context.

    Raises:
        ValueError: for an empty group, ids outside the vocabulary, or what `run_replaced` raises.
    """
    ids = torch.as_tensor(group)
    size = len(model.vocabulary)
    if ids.numel() == 0 or int(ids.min()) < 0 or int(ids.max()) >= size:
        raise ValueError(f"group must hold token ids in [0, {size - 1}], got {ids.tolist()}")
    found = []
    for batch in tokens.split(check_positive_int("batch_size", batch_size)):
        log_p = run_replaced(model, batch, hook_name, replace).log_softmax(-1)
        inside = log_p[..., ids.to(log_p.device)].logsumexp(-1).to(tokens.device)
        found.append(inside - torch.log1p(-inside.exp().clamp(max=1 - 1e-6)))
    odds = torch.cat(found)
    if where is None:
        where = torch.ones_like(tokens, dtype=torch.bool)
        where[:, 0] = False
    return odds[where]
