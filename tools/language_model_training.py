"""Train the small language model that the book interprets: GPT-2's architecture, from nothing.

`make language-model` calls this. The trainer is a plain loop with what a long run needs: a progress
bar, and checkpoints that an interrupted run goes on from, with the same result. Taught in the
chapter "SAEs on a language model".
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from saebook import _checkpoints
from saebook._checks import check_one_of, check_positive, check_positive_int
from saebook._running import step_bar
from saebook.language.tokens import check_ids

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """All settings of the model and of its training.

    Attributes:
        d_model, n_layers, n_heads: size of the transformer.
        steps: training steps.
        batch_size: contexts a step.
        lr: highest learning rate of AdamW; it rises over `warm_up_steps` and falls along a half
            cosine to a tenth.
        weight_decay: of AdamW, on matrices only.
        dtype: of the activations: "float32" or "bfloat16", which is faster where the processor has
            instructions for it.
        seed: draws the initial weights and the order of the contexts.
    """

    d_model: int = 128
    n_layers: int = 6
    n_heads: int = 4
    steps: int = 5000
    batch_size: int = 16
    lr: float = 3e-3
    warm_up_steps: int = 200
    weight_decay: float = 0.1
    dtype: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "steps", "batch_size", "warm_up_steps"):
            check_positive_int(name, getattr(self, name))
        check_positive("lr", self.lr)
        check_one_of("dtype", self.dtype, DTYPES)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads = {self.n_heads}, got {self.d_model}"
            )

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        done = max(0.0, step - self.warm_up_steps) / max(1, self.steps - self.warm_up_steps)
        cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.lr * min(1.0, (step + 1) / self.warm_up_steps) * cosine


def train_language_model(
    contexts: Int[Tensor, "n_contexts n_ctx"],
    *,
    vocab_size: int,
    plan: TrainingPlan,
    separator: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    progress: bool = True,
) -> GPT2LMHeadModel:
    """Train a GPT-2 of the plan's size to predict each next token of the contexts.

    Args:
        contexts: token ids, one row a context.
        vocab_size: size of the vocabulary.
        separator: the token that starts a document.
        device: where to train.
        checkpoint: a file to save the run to. A run that was killed goes on from it and ends with
            the same weights; the file is removed at the end.
        checkpoint_every: steps between two saves.
        progress: show a progress bar when standard error is a terminal.

    Raises:
        ValueError: for fewer contexts than a batch, ids outside the vocabulary, or a checkpoint of
            another run.
    """
    check_positive_int("checkpoint_every", checkpoint_every)
    _check_contexts(contexts, vocab_size, plan.batch_size)
    model: Any = _fresh_model(contexts.shape[1], vocab_size, plan, separator)
    model.to(device)
    optimizer = torch.optim.AdamW(
        _groups(model, plan.weight_decay), lr=plan.lr, betas=(0.9, 0.95), fused=True
    )
    path = Path(checkpoint) if checkpoint else None
    run = _checkpoints.digest(asdict(plan), {"contexts": contexts}) if path else ""
    start = _resume(path, run, model, optimizer) if path and path.exists() else 0
    bar = step_bar(range(start, plan.steps), "a language model", progress=progress)
    for step in bar:
        if path and step > start and step % checkpoint_every == 0:
            _checkpoints.save(path, _state(model, optimizer), run=run, step=step, log=None)
        loss = _train_step(model, optimizer, _batch(contexts, plan, step).to(device), plan, step)
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
    if path:
        path.unlink(missing_ok=True)
    return model.eval().cpu()


def _check_contexts(contexts: Tensor, vocab_size: int, batch_size: int) -> None:
    check_positive_int("vocab_size", vocab_size)
    if len(contexts) < batch_size:
        raise ValueError(
            f"contexts must hold at least one batch of {batch_size} rows, got {len(contexts)}"
        )
    check_ids("contexts", contexts, vocab_size)


def _fresh_model(
    n_ctx: int, vocab_size: int, plan: TrainingPlan, separator: int
) -> GPT2LMHeadModel:
    cfg = GPT2Config(
        vocab_size=vocab_size,
        n_positions=n_ctx,
        n_embd=plan.d_model,
        n_layer=plan.n_layers,
        n_head=plan.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=separator,
        eos_token_id=separator,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)  # the initialisation draws from the global generator
        return GPT2LMHeadModel(cfg)


def _groups(model: GPT2LMHeadModel, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not."""
    weights = list(model.parameters())
    return [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]


def _batch(contexts: Tensor, plan: TrainingPlan, step: int) -> Tensor:
    """The rows of a step: each epoch is a new random order of the contexts."""
    per_epoch = len(contexts) // plan.batch_size
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
    order = torch.randperm(len(contexts), generator=generator)
    return contexts[order[place * plan.batch_size : (place + 1) * plan.batch_size]]


def _train_step(
    model: GPT2LMHeadModel,
    optimizer: torch.optim.Optimizer,
    rows: Tensor,
    plan: TrainingPlan,
    step: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = plan.lr_at(step)
    wide = DTYPES[plan.dtype]
    with torch.enable_grad():
        with torch.autocast(rows.device.type, wide, enabled=wide is not torch.float32):
            logits = model(rows).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), rows[:, 1:].flatten()
        )
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _state(model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and Adam's moments by name; tied weights once."""
    state = {}
    for name, weight in model.named_parameters():
        state[f"weights.{name}"] = weight.detach()
        for key, value in optimizer.state[weight].items():
            state[f"adam.{key}.{name}"] = value
    return state


def _resume(path: Path, run: str, model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer) -> int:
    """Take over a checkpoint; return how many steps it has seen."""
    state, step, _ = _checkpoints.load(path, run=run)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state[f"weights.{name}"])
            optimizer.state[weight] = {
                key: state[f"adam.{key}.{name}"].to(weight.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
            optimizer.state[weight]["step"] = state[f"adam.step.{name}"]
    return step
