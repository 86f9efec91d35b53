"""An interpolated Kneser–Ney model of n-grams of tokens, counted by sorting packed integers.

Its cross-entropy is what the last n − 1 tokens tell of the next one: a line to hold a neural
model's against. Sources: Kneser & Ney, "Improved backing-off for m-gram language modeling" (1995);
Chen & Goodman, "An empirical study of smoothing techniques for language modeling" (1999), for the
interpolated form and the discount; Heafield et al., "Scalable modified Kneser–Ney language model
estimation" (2013), for the counts where nothing precedes an n-gram.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer
from torch import Tensor

from saebook._checks import check_in_range, check_instance, check_int_at_least

Rows = Integer[np.ndarray, "n_contexts n_ctx"] | Integer[Tensor, "n_contexts n_ctx"]
_Keys = Int64[np.ndarray, "n_contexts n_windows"]

_KEY_BITS = 63  # of an int64 that is not negative


@dataclass(frozen=True, eq=False, kw_only=True)
class NGrams:
    """The counts behind an interpolated Kneser–Ney model, made by `fit_ngrams`.

    Taught in "SAEs on a language model".

    Attributes:
        unigram: probability of each token where no context is known, (vocab_size,).
        discounts: what is taken off each count, of orders 2 … n.
        tables: the n-grams and their counts, of orders 2 … n.
    """

    unigram: Float64[np.ndarray, " vocab_size"]
    discounts: tuple[float, ...]
    tables: tuple[_Table, ...]

    @property
    def n(self) -> int:
        """The order: a token is predicted from at most n − 1 before it."""
        return 1 + len(self.tables)

    @property
    def vocab_size(self) -> int:
        """The number of tokens that can follow."""
        return len(self.unigram)

    def log_probabilities(self, tokens: Rows) -> Float64[np.ndarray, "n_contexts n_ctx_minus_1"]:
        """Natural log-probability of each token given those before it, (n_contexts, n_ctx − 1).

        Column i is the token of index i + 1, as index 0 is never predicted. Its context is the
        n − 1 tokens before it, fewer near the start of a row. A context that training never saw
        gives way to its shorter end.

        Raises:
            TypeError, ValueError: for tokens that are no table of at least two columns, or outside
                0 … vocab_size − 1.
        """
        rows = _check_tokens(tokens, self.vocab_size)
        p = self.unigram[rows[:, 1:]]
        levels = list(zip(self.tables, self.discounts, strict=True))
        for k, (table, discount) in enumerate(levels[: rows.shape[1] - 1], start=2):
            keys = _pack(rows, k, _n_bits(self.vocab_size))
            p[:, k - 2 :] = table.interpolate(keys, p[:, k - 2 :], discount)
        return np.log(p)

    def cross_entropy(self, tokens: Rows) -> float:
        """Mean over the predicted tokens of −ln p, in nats per token.

        Raises what `log_probabilities` raises.
        """
        return -float(self.log_probabilities(tokens).mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class _Table:
    """The n-grams of one order, each packed into an integer, ascending, and their counts.

    The n-grams of one context lie side by side, so running sums of the counts give its total.
    """

    keys: Int64[np.ndarray, " n_types"]
    running: Int64[np.ndarray, " n_types_plus_1"]
    bits: int

    @property
    def counts(self) -> Int64[np.ndarray, " n_types"]:
        return np.diff(self.running)

    def interpolate(
        self, keys: _Keys, lower: Float[np.ndarray, "n_contexts n_windows"], discount: float
    ) -> Float[np.ndarray, "n_contexts n_windows"]:
        """max(c − D, 0) / c(context) + D · types(context) / c(context) · lower; else `lower`."""
        order = np.argsort(keys, axis=None)  # neighbours in the table are looked up together
        asked, fallback = keys.ravel()[order], lower.ravel()[order]
        last = (1 << self.bits) - 1
        first, here = (np.searchsorted(self.keys, key) for key in (asked & ~last, asked))
        end = np.searchsorted(self.keys, asked | last, side="right")
        seen = here < np.searchsorted(self.keys, asked, side="right")
        count = self.running[here + seen] - self.running[here]
        total = self.running[end] - self.running[first]
        kept = np.maximum(count - discount, 0) + discount * (end - first) * fallback
        p = np.empty(keys.size)
        p[order] = np.where(total > 0, kept / np.maximum(total, 1), fallback)
        return p.reshape(keys.shape)


def fit_ngrams(
    tokens: Rows, *, vocab_size: int, n: int = 5, discount: float | None = None
) -> NGrams:
    """Count n-grams within the rows and smooth them by interpolated Kneser–Ney.

    With h a context, h′ its shorter end, D the discount of the order and • any token:

        p(w | h) = max(a(hw) − D, 0) / a(h•) + D · #{w : a(hw) > 0} / a(h•) · p(w | h′)
        p(w)     = (a(w) + 1) / (a(•) + vocab_size)

    In the highest order, a counts occurrences. In lower ones, a counts the distinct tokens that
    precede the n-gram; at the start of a row nothing does, and each such occurrence counts. Tokens
    of index 0 (the document separator) serve as context only. For n = 1 the model is the add-one
    unigram of occurrences.

    Taught in "SAEs on a language model"; sources in the module's docstring.

    Args:
        tokens: rows of equal length, each starting with the separator; no n-gram crosses rows.
        discount: D of all orders, above 0 and at most 1; None estimates n₁ / (n₁ + 2n₂) for each
            order, from the numbers of n-grams with a = 1 and a = 2.

    Raises:
        TypeError, ValueError: for tokens that are no table of at least two columns and at least n,
            or outside 0 … vocab_size − 1; n-grams of more than 63 bits; a discount outside (0, 1];
            or none given where no n-gram of some order has a = 1.
    """
    rows = _check_tokens(tokens, check_int_at_least("vocab_size", vocab_size, 2))
    bits = _n_bits(vocab_size)
    if check_int_at_least("n", n, 1) * bits > _KEY_BITS:
        limit = _KEY_BITS // bits
        raise ValueError(f"n must be at most {limit} for {vocab_size} tokens, got {n}")
    if n > rows.shape[1]:
        raise ValueError(f"n must be at most n_ctx of tokens, {rows.shape[1]}, got {n}")
    if discount is not None:
        check_in_range("discount", discount, 0, 1, open_minimum=True)
    tables = _count(rows, n, bits)
    words = tables[0].keys & ((1 << bits) - 1) if tables else rows[:, 1:].ravel()
    return NGrams(
        unigram=(np.bincount(words, minlength=vocab_size) + 1) / (len(words) + vocab_size),
        discounts=tuple(
            _estimated_discount(table.counts, k) if discount is None else float(discount)
            for k, table in enumerate(tables, start=2)
        ),
        tables=tables,
    )


def _count(rows: Int64[np.ndarray, "n_contexts n_ctx"], n: int, bits: int) -> tuple[_Table, ...]:
    """The tables of orders 2 … n; the n-grams of an order are the ends of those one longer."""
    tables: list[_Table] = []
    for k in range(n, 1, -1):
        if not tables:
            found = _pack(rows, k, bits).ravel()
        else:
            ends = tables[-1].keys & ((1 << k * bits) - 1)
            found = np.concatenate([ends, _pack(rows[:, :k], k, bits).ravel()])
        keys, counts = np.unique(found, return_counts=True)
        running = np.concatenate([[0], counts.cumsum()])
        tables.append(_Table(keys=keys, running=running, bits=bits))
    return tuple(reversed(tables))


def _pack(rows: Int64[np.ndarray, "n_contexts n_ctx"], k: int, bits: int) -> _Keys:
    """Each run of k tokens of a row as one integer, the last token in its lowest bits."""
    n_windows = rows.shape[1] - k + 1
    keys = rows[:, :n_windows].copy()
    for j in range(1, k):
        keys <<= bits
        keys |= rows[:, j : j + n_windows]
    return keys


def _n_bits(vocab_size: int) -> int:
    return (vocab_size - 1).bit_length()


def _estimated_discount(counts: Int64[np.ndarray, " n_types"], k: int) -> float:
    ones, twos = (int((counts == a).sum()) for a in (1, 2))
    if ones == 0:
        raise ValueError(f"discount must be given if no {k}-gram has a count of 1, got None")
    return ones / (ones + 2 * twos)


def _check_tokens(tokens: Rows, vocab_size: int) -> Int64[np.ndarray, "n_contexts n_ctx"]:
    check_instance("tokens", tokens, (np.ndarray, Tensor))
    rows = np.asarray(tokens)
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"tokens must hold integers, got dtype {rows.dtype}")
    if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] < 2:
        raise ValueError(
            f"tokens must have shape (n_contexts, n_ctx) with n_ctx of at least 2, got {rows.shape}"
        )
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"tokens must be in [0, {vocab_size - 1}], got {low} … {high}")
    return rows.astype(np.int64)
