"""Activations at a hook point of a language model, and its losses with them replaced.

The first position of every context is the separator, whose activation is the same in all contexts
and, in large models, many times longer than others. Replacements leave it alone. The model
works on its own device; what comes of it is where the tokens are, unless said otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from saebook._checks import check_positive_int
from saebook.language.model import LanguageModel
from saebook.language.tokens import check_ids, next_token_losses

Replace = Callable[[Tensor], Tensor]


@torch.no_grad()
def collect_activations(
    model: LanguageModel,
    tokens: Int[Tensor, "n_contexts n_ctx"],
    hook_name: str,
    *,
    batch_size: int = 32,
    path: str | Path | None = None,
    progress: bool = True,
) -> Float[Tensor, "n_contexts n_ctx d_model"]:
    """Activations at a hook point, (n_contexts, n_ctx, d_model), a few contexts at a time.

    They are on the CPU, whatever the model's device.

    Args:
        hook_name: such as `LanguageModel.hook_after_block` gives.
        batch_size: contexts in one pass of the model.
        path: a file to keep the activations in, memory-mapped, for more than fit in memory. It
            appears under its name only once it is whole; a file that is there is replaced.
        progress: show a progress bar when standard error is a terminal.

    Raises:
        ValueError: for an unknown hook point, or tokens that are no contexts of this model.
    """
    check_positive_int("batch_size", batch_size)
    check_tokens(model, tokens)
    stop = _layer_after(check_hook(model, hook_name))
    shape = (*tokens.shape, model.d_model)
    partial = Path(f"{path}.partial") if path else None
    out = _allocate(partial, shape)
    rows = tqdm(tokens.split(batch_size), desc="Activations", disable=None if progress else True)
    for i, batch in enumerate(rows):
        acts = _activations_of(model, batch, hook_name, stop)
        out[i * batch_size : i * batch_size + len(batch)] = acts.cpu().numpy()
    if not (partial and path and isinstance(out, np.memmap)):
        return torch.from_numpy(out)
    out.flush()
    del out
    os.replace(partial, path)
    return torch.from_numpy(np.lib.format.open_memmap(path, mode="r+"))


@torch.no_grad()
def run_replaced(
    model: LanguageModel,
    tokens: Int[Tensor, "n_contexts n_ctx"],
    hook_name: str | None = None,
    replace: Replace | None = None,
) -> Float[Tensor, "n_contexts n_ctx vocab"]:
    """Logits with `replace(activations)` in place of the activations, but for the first position.

    They are on the model's device, and so are the activations.

    Args:
        hook_name: where; may be None only if nothing is replaced.
        replace: takes and gives (n_contexts, n_ctx − 1, d_model); None runs the model as it is.

    Raises:
        ValueError: for an unknown or missing hook point, unfit tokens, or a replacement of another
            shape.
    """
    check_tokens(model, tokens)
    if replace is not None or hook_name is not None:
        hook_name = check_hook(model, hook_name)
    if replace is None or hook_name is None:
        return model.logits(tokens)

    def hook(acts: Tensor, hook: object) -> Tensor:
        new = replace(acts[:, 1:])
        if new.shape != acts[:, 1:].shape:
            raise ValueError(
                f"replace must keep the shape {tuple(acts[:, 1:].shape)}, got {tuple(new.shape)}"
            )
        return torch.cat([acts[:, :1], new.to(acts)], dim=1)

    return model.logits(tokens, [(hook_name, hook)])


def token_losses(
    model: LanguageModel,
    tokens: Int[Tensor, "n_contexts n_ctx"],
    hook_name: str | None = None,
    replace: Replace | None = None,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "n_contexts n_ctx-1"]:
    """Cross-entropy in nats of each token after the first, with activations replaced if wanted.

    Raises what `run_replaced` raises.
    """
    return next_token_losses(
        lambda batch: run_replaced(model, batch, hook_name, replace), tokens, batch_size=batch_size
    )


def check_tokens(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Return `tokens` if they are at least one context of the model."""
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens must be a torch.Tensor of int64 ids, got {kind}")
    if tokens.ndim != 2 or len(tokens) == 0 or not 2 <= tokens.shape[1] <= model.n_ctx:
        raise ValueError(
            f"tokens must have shape (n_contexts, 2 … {model.n_ctx}), got {tuple(tokens.shape)}"
        )
    return check_ids("tokens", tokens, len(model.vocabulary))


def check_hook(model: LanguageModel, hook_name: str | None) -> str:
    """Return `hook_name` if the model has that hook point."""
    if hook_name is None or hook_name not in model.bridge.hook_dict:
        like = (hook_name or "")[:9]
        near = [name for name in model.bridge.hook_dict if like and name.startswith(like)]
        raise ValueError(
            f"hook_name must be a hook point of {model.name!r}, such as "
            f"{(near or [model.hook_after_block(0)])[0]!r}, got {hook_name!r}"
        )
    return hook_name


def _layer_after(hook_name: str) -> int | None:
    """The first block that the activations at a hook point do not need."""
    parts = hook_name.split(".")
    return int(parts[1]) + 1 if parts[0] == "blocks" else None


def _activations_of(
    model: LanguageModel, tokens: Tensor, hook_name: str, stop: int | None
) -> Tensor:
    found: list[Tensor] = []
    stop = stop if stop is not None and stop < model.n_layers else None
    model.bridge.run_with_hooks(
        tokens.to(model.device),
        fwd_hooks=[(hook_name, lambda acts, hook: found.append(acts))],
        return_type=None,
        stop_at_layer=stop,
    )
    return found[0]


def _allocate(path: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    if path is None:
        return np.empty(shape, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
