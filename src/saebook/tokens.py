"""Byte-pair tokenizers and contexts: text in, rows of token ids out.

A tokenizer here is one of Hugging Face's. Every row starts with its document separator, as
sae-lens' `prepend_bos` does. Taught in the chapter "SAEs on a language model".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from saebook._checks import check_int_at_least

__all__ = [
    "SEPARATOR",
    "count_bytes",
    "make_contexts",
    "next_token_losses",
    "token_strings",
    "train_tokenizer",
]

SEPARATOR = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair tokenizer like GPT-2's, learned from `texts`.

    Raises:
        ValueError: for a vocabulary too small for the 256 bytes and the separator.
    """
    check_int_at_least("vocab_size", vocab_size, 257)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR
    )


def make_contexts(
    tokenizer: Any, texts: Sequence[str], *, n_ctx: int, max_contexts: int | None = None
) -> Int[Tensor, "n_contexts {n_ctx}"]:
    """Join the texts, each after a separator, and cut them into rows `(n_contexts, n_ctx)`.

    Each row is a separator and the next `n_ctx − 1` tokens of the stream. What does not fill the
    last row is left out.

    Args:
        tokenizer: a Hugging Face tokenizer with a `bos_token_id`.
        n_ctx: tokens a row, separator included.
        max_contexts: no more rows than this.

    Raises:
        ValueError: for texts that do not fill one row, or a tokenizer without a separator.
    """
    check_int_at_least("n_ctx", n_ctx, 2)
    separator = tokenizer.bos_token_id
    if separator is None:
        raise ValueError("tokenizer must have a bos_token, which starts every context, got none")
    ids = (
        tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        if texts
        else []
    )
    stream = torch.tensor(list(chain.from_iterable([separator, *each] for each in ids)))
    n_contexts = len(stream) // (n_ctx - 1)
    if n_contexts == 0:
        raise ValueError(
            f"texts must fill at least one context of {n_ctx} tokens, got {len(stream)} tokens"
        )
    n_contexts = min(n_contexts, max_contexts or n_contexts)
    rows = stream[: n_contexts * (n_ctx - 1)].view(n_contexts, n_ctx - 1)
    return torch.cat([torch.full((n_contexts, 1), separator), rows], dim=1)


def check_ids(name: str, ids: Tensor, vocab_size: int) -> Tensor:
    """Return the tensor `ids` if all of its entries are tokens of a vocabulary of this size."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{name} must hold ids in [0, {vocab_size - 1}], got values from {low} to {high}"
        )
    return ids


def next_token_losses(
    logits: Float[Tensor, "n_contexts n_ctx vocab"], tokens: Int[Tensor, "n_contexts n_ctx"]
) -> Float[Tensor, "n_contexts n_ctx-1"]:
    """Cross-entropy in nats of each token after the first of its row, predicted one before it."""
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    return each.view(len(tokens), -1)


def token_strings(tokenizer: Any) -> list[str]:
    """What each token of the vocabulary decodes to; a part of a character becomes �."""
    return [tokenizer.decode([i]) for i in range(len(tokenizer))]


def count_bytes(tokenizer: Any, tokens: Int[Tensor, "n_contexts n_ctx"]) -> int:
    """The number of UTF-8 bytes that the tokens after the first of each row stand for.

    Separators stand for none.
    """
    special = torch.tensor(tokenizer.all_special_ids)
    byte_level = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    n_bytes = torch.tensor([len(token) for token in byte_level])  # one character stands for a byte
    n_bytes[special] = 0
    return int(n_bytes[tokens[:, 1:]].sum())
