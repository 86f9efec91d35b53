"""Byte-pair tokenizers and contexts: text in, rows of token ids out.

A tokenizer here is one of Hugging Face's. Every row starts with its document separator, as
sae-lens' `prepend_bos` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from saebook._checks import check_int_at_least, check_positive_int

SEPARATOR = "<|endoftext|>"
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
_BYTES = _PRINTED + sorted(set(range(256)) - set(_PRINTED))  # the others take letters from 256 on
_BYTE_OF = {chr(b if b in _PRINTED else 256 + i - len(_PRINTED)): b for i, b in enumerate(_BYTES)}


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
    if max_contexts is not None:
        check_positive_int("max_contexts", max_contexts)
    separator = separator_id(tokenizer)
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


def separator_id(tokenizer: Any) -> int:
    """The id of the token that a tokenizer puts between documents."""
    if tokenizer.bos_token_id is None:
        raise ValueError("tokenizer must have a bos_token, which starts every context, got none")
    return int(tokenizer.bos_token_id)


def check_ids(name: str, ids: Tensor, vocab_size: int) -> Tensor:
    """Return the tensor `ids` if all of its entries are tokens of a vocabulary of this size."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{name} must hold ids in [0, {vocab_size - 1}], got values from {low} to {high}"
        )
    return ids


@torch.no_grad()
def next_token_losses(
    predict: Callable[[Tensor], Tensor],
    tokens: Int[Tensor, "n_contexts n_ctx"],
    *,
    batch_size: int = 16,
) -> Float[Tensor, "n_contexts n_ctx-1"]:
    """Cross-entropy in nats of each token after the first of its row, predicted one before it.

    Args:
        predict: a model, from some rows of `tokens` to logits (rows, n_ctx, vocab), on any device.
        batch_size: rows in one pass of the model.
    """
    losses = []
    for rows in tokens.split(check_positive_int("batch_size", batch_size)):
        logits = predict(rows)[:, :-1].flatten(0, 1)
        following = rows[:, 1:].flatten().to(logits.device)
        each = torch.nn.functional.cross_entropy(logits, following, reduction="none")
        losses.append(each.view(len(rows), -1).to(tokens.device))
    return torch.cat(losses)


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of UTF-8 text that each id stands for; none for an id without a token.

    Of the two common kinds. A byte-level vocabulary like GPT-2's writes every byte as a letter.
    SentencePiece writes a space as "▁", and a byte without a token of its own as "<0x0A>".
    """
    vocabulary = tokenizer.get_vocab()
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    read = _byte_level if vocabulary.keys() >= _BYTE_OF.keys() else _sentence_piece
    found = [b""] * (1 + max(vocabulary.values()))
    for piece, i in vocabulary.items():
        found[i] = piece.encode() if piece in added else read(piece)
    return found


def _byte_level(piece: str) -> bytes:
    return bytes(_BYTE_OF[letter] for letter in piece)


def _sentence_piece(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


def token_strings(tokenizer: Any) -> list[str]:
    """What each token of the vocabulary reads as, with its spaces; a part of a character is �."""
    return [each.decode(errors="replace") for each in token_bytes(tokenizer)]


def count_bytes(tokenizer: Any, tokens: Int[Tensor, "n_contexts n_ctx"]) -> int:
    """The number of UTF-8 bytes that the tokens after the first of each row stand for.

    Separators stand for none, and neither does the space that SentencePiece puts before a text.

    Args:
        tokens: rows in the order of the text, as `make_contexts` gives them.
    """
    text = token_bytes(tokenizer)
    n_bytes = torch.tensor([len(each) for each in text])
    n_bytes[torch.tensor(tokenizer.all_special_ids)] = 0
    stream = tokens[:, 1:].flatten()
    total = int(n_bytes[stream].sum())
    first = tokenizer("a", add_special_tokens=False)["input_ids"][0]
    if not text[first].startswith(b" "):
        return total
    spaced = torch.tensor([each.startswith(b" ") for each in text])
    starts = stream[:-1] == tokenizer.bos_token_id
    return total - int(spaced[stream[1:]][starts].sum())
