"""How single-minded a unit is, measured without a judge: what it fires on, in tokens and classes.

A unit is a latent, a cluster, a principal component, a neuron or a random direction, and fires
where its activation is above 0; whoever has signed scores takes a threshold off them first. Two
kinds of measure: the entropy of the tokens among a unit's examples (0 bits for one token only), and
the F1 of the best detector of the kind "the token is v", which also sees what the unit misses. A
token is the current one or the one before. Szegedy et al., "Intriguing properties of neural
networks" (arXiv 1312.6199), is why examples are drawn from the top *and* uniformly: the top of a
random direction looks single-minded too. The measures are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
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

_UNITS_AT_ONCE = 128  # bounds the memory to a few tables of this width

Detection = tuple[Float[Tensor, " n_units"], Int[Tensor, " n_units"]]

_CLASSES: dict[str, Callable[[str], bool]] = {
    "leading_space": lambda s: s.startswith(" "),
    "word_piece": lambda s: s[:1].isalpha(),
    "upper_start": lambda s: s.strip()[:1].isupper(),
    "all_upper": lambda s: s.isupper() and sum(map(str.isalpha, s)) > 1,
    "digit": lambda s: any(map(str.isdigit, s)),
    "underscore": lambda s: "_" in s,
    "punctuation": lambda s: bool(s.strip()) and not any(map(str.isalnum, s)),
    "opening_bracket": lambda s: any(c in "([{" for c in s),
    "closing_bracket": lambda s: any(c in ")]}" for c in s),
    "quote": lambda s: any(c in "\"'`“”‘’" for c in s),
    "newline": lambda s: "\n" in s,
    "blank": lambda s: s.isspace(),
    "non_ascii": lambda s: not s.isascii(),
}


def token_classes(
    strings: Sequence[str],
) -> tuple[tuple[str, ...], Bool[Tensor, "vocab_size n_classes"]]:
    """Which classes of characters each token of a vocabulary belongs to, and their names.

    The table has shape (vocab_size, n_classes). `leading_space`; `word_piece`, starts with a
    letter; `upper_start`, its first visible character is upper case; `all_upper`, two letters or
    more and all upper case; `digit`, `underscore`, `opening_bracket`, `closing_bracket`, `quote`
    and `newline`, holds one; `punctuation`, visible but without letters and digits; `blank`, white
    space only; `non_ascii`. A token may be in several.

    Args:
        strings: each token's text as it reads, with spaces as spaces (" the", not "Ġthe").

    Raises:
        ValueError: for an empty vocabulary.
    """
    if not strings:
        raise ValueError("strings must have at least one token, got none")
    table = [[belongs(string) for belongs in _CLASSES.values()] for string in strings]
    return tuple(_CLASSES), torch.tensor(table)


def token_entropy(
    tokens: Int[Tensor, "n_examples n_units"], vocab_size: int
) -> Float[Tensor, " n_units"]:
    """Entropy in bits of the tokens among each unit's examples, (n_units,).

        Ĥ = −Σ p̂ log₂ p̂ + (m − 1) / (2 n ln 2)

    over the m different tokens of a unit's n examples; the second term is Miller and Madow's
    correction (1955) of the bias of the first. Ĥ is cut off at log₂ min(n, vocab_size), the most
    that n examples can show: compare units by equal numbers of examples. NaN without any.

    Args:
        tokens: the token of each example, −1 for none.

    Raises:
        TypeError, ValueError: for another number of axes, or tokens outside −1 … vocab_size − 1.
    """
    check_positive_int("vocab_size", vocab_size)
    _check_tokens("tokens", tokens, ("n_examples", "n_units"), -1, vocab_size - 1)
    n_units = tokens.shape[1]
    shown = tokens >= 0
    n = shown.sum(0).double()
    keys = tokens + vocab_size * torch.arange(n_units, device=tokens.device)
    found, counts = keys[shown].unique(return_counts=True)
    unit, c = found // vocab_size, counts.double()
    plug_in = n.log2() - torch.zeros_like(n).index_add(0, unit, c * c.log2()) / n
    correction = (unit.bincount(minlength=n_units) - 1) / (2 * n * math.log(2))
    return (plug_in + correction).clamp(min=0).minimum(n.clamp(max=vocab_size).log2())


def best_token_f1(
    active: Bool[Tensor, "n_tokens n_units"], tokens: Int[Tensor, " n_tokens"], vocab_size: int
) -> Detection:
    """The largest F1 of "the token is v" as a detector of where a unit fires, and that v.

        F1(v) = 2 #{fires and token = v} / (#{fires} + #{token = v})

    Both have shape (n_units,); for a unit that never fires they are NaN and −1. A unit of density p
    that knows nothing of the text scores 2pq / (p + q) with the token of frequency q, so a dense
    one scores more by chance. To judge a unit by its top activations, let `active` mark those. With
    the tokens before, `tokens` shifted by one, it is a detector by context.

    Raises:
        TypeError, ValueError: for shapes that do not fit, no rows, or tokens outside
            0 … vocab_size − 1.
    """
    _check_table("active", active, "n_tokens", "n_units")
    check_positive_int("vocab_size", vocab_size)
    _check_tokens("tokens", tokens, (len(active),), 0, vocab_size - 1)
    sizes = tokens.bincount(minlength=vocab_size)
    parts = [
        _best_f1(_token_hits(part, tokens, vocab_size), sizes, part.sum(0))
        for part in active.split(_UNITS_AT_ONCE, dim=1)
    ]
    f1, token = zip(*parts, strict=True)
    return torch.cat(f1), torch.cat(token)


def best_class_f1(
    active: Bool[Tensor, "n_tokens n_units"], classes: Bool[Tensor, "n_tokens n_classes"]
) -> Detection:
    """The largest F1 of "the token is of this class" as in `best_token_f1`, and the class's index.

    Args:
        classes: of each token of the text: the table of `token_classes` indexed by the tokens.

    Raises:
        TypeError, ValueError: for shapes that do not fit, or no rows.
    """
    _check_table("active", active, "n_tokens", "n_units")
    _check_table("classes", classes, len(active), "n_classes")
    members, sizes = classes.float().T, classes.sum(0)
    parts = [
        _best_f1(members @ part.float(), sizes, part.sum(0))
        for part in active.split(_UNITS_AT_ONCE, dim=1)
    ]
    f1, index = zip(*parts, strict=True)
    return torch.cat(f1), torch.cat(index)


def measure_units(
    acts: Float[Tensor, "n_tokens n_units"],
    tokens: Int[Tensor, " n_tokens"],
    previous: Int[Tensor, " n_tokens"],
    classes: Bool[Tensor, "n_tokens n_classes"],
    *,
    n_examples: int,
    generator: GeneratorLike,
) -> pd.DataFrame:
    """Every measure of every unit, one row a unit, in their order.

    Columns: `density`, the share of tokens where it fires; `entropy_top` and `entropy_uniform`, in
    bits, of the current token among `n_examples` top-activating and as many uniformly drawn firing
    positions (all, where there are fewer); `previous_entropy_top` and `previous_entropy_uniform`,
    of the token before those; `token_f1`, `previous_f1` and `class_f1`, of the best detector of
    each kind, over all of the text; `best_f1`, the largest of the three; `chance_f1`, the F1 that
    the best of these detectors would have if the unit fired as often but regardless of the text.
    All but the density is NaN for a unit that never fires.

    Args:
        acts: a unit fires where it is above 0.
        previous: the token before each.
        classes: of each token, as in `best_class_f1`.
        generator: breaks ties among activations and draws the uniform examples, without
            replacement.

    Raises:
        TypeError, ValueError: for shapes that do not fit, activations that are not finite, negative
            tokens, n_examples below 1, or a generator that is none.
    """
    n_tokens = len(check_shape("acts", acts, ("n_tokens", "n_units")))
    check_int_at_least("n_tokens of acts", n_tokens, 1)
    if not bool(acts.sum().isfinite()):  # the full check takes as much memory as acts
        check_finite("acts", acts)
    _check_tokens("tokens", tokens, (n_tokens,), 0)
    _check_tokens("previous", previous, (n_tokens,), 0)
    _check_table("classes", classes, n_tokens, "n_classes")
    check_positive_int("n_examples", n_examples)
    generator = check_generator("generator", generator)
    order = torch.randperm(n_tokens, generator=generator)
    text = (tokens[order], previous[order], classes[order])
    parts = [
        _measures(part[order], *text, n_examples=n_examples, generator=generator)
        for part in acts.split(_UNITS_AT_ONCE, dim=1)
    ]
    return pd.concat(parts, ignore_index=True)


def _measures(
    acts: Tensor,
    tokens: Tensor,
    previous: Tensor,
    classes: Tensor,
    *,
    n_examples: int,
    generator: torch.Generator,
) -> pd.DataFrame:
    """`measure_units` of a few units; ties fall as the rows do, which are in random order."""
    active = acts > 0
    random = torch.rand(acts.shape, generator=generator)
    top, uniform = (_largest(scores, active, n_examples) for scores in (acts, random))
    columns = {"density": active.double().mean(0)}
    f1 = {"class_f1": best_class_f1(active, classes)[0]}
    for before, text in (("", tokens), ("previous_", previous)):
        vocab_size = int(text.max()) + 1
        for name, places in (("top", top), ("uniform", uniform)):
            shown = torch.where(places >= 0, text[places], -1)
            columns[f"{before}entropy_{name}"] = token_entropy(shown, vocab_size)
        f1[f"{before or 'token_'}f1"] = best_token_f1(active, text, vocab_size)[0]
    columns |= {name: f1[name] for name in ("token_f1", "previous_f1", "class_f1")}
    columns["best_f1"] = torch.stack(list(f1.values())).amax(0)
    p, q = columns["density"], _largest_share(tokens, previous, classes)
    columns["chance_f1"] = (2 * p * q / (p + q)).where(p > 0, math.nan)
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def _largest(scores: Tensor, active: Tensor, n: int) -> Int[Tensor, "n_examples n_units"]:
    """The places of the n largest scores among the active, −1 where there are no more."""
    among = scores.masked_fill(~active, -math.inf).T.contiguous()
    values, places = among.topk(min(n, len(scores)), dim=1)
    return places.masked_fill(values == -math.inf, -1).T


def _largest_share(tokens: Tensor, previous: Tensor, classes: Tensor) -> float:
    """The share of the text on which the most frequent of all detectors says yes."""
    counts = (tokens.bincount(), previous.bincount(), classes.sum(0))
    return max(int(count.max()) for count in counts) / len(tokens)


def _token_hits(
    active: Bool[Tensor, "n_tokens n_units"], tokens: Int[Tensor, " n_tokens"], vocab_size: int
) -> Int[Tensor, "vocab_size n_units"]:
    hits = torch.zeros(vocab_size, active.shape[1], dtype=torch.int32, device=active.device)
    return hits.index_add_(0, tokens, active.int())


def _best_f1(
    hits: Tensor, sizes: Int[Tensor, " n_detectors"], fires: Int[Tensor, " n_units"]
) -> Detection:
    f1, index = (2 * hits / (sizes[:, None] + fires).clamp(min=1)).max(0)
    return f1.where(fires > 0, math.nan), index.where(fires > 0, -1)


def _check_table(name: str, value: Tensor, rows: int | str, columns: str) -> None:
    """Refuse what is not a Boolean table with at least one row and one column."""
    if value.dtype != torch.bool:
        raise TypeError(f"{name} must be Boolean, got dtype {value.dtype}")
    if value.ndim != 2 or 0 in value.shape or (rows != len(value) and isinstance(rows, int)):
        raise ValueError(f"{name} must have shape ({rows}, {columns}), got {tuple(value.shape)}")


def _check_tokens(
    name: str, value: Tensor, shape: Sequence[int | str], low: int, high: float = math.inf
) -> None:
    if value.is_floating_point() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got dtype {value.dtype}")
    fits = value.ndim == len(shape) and all(
        want == have or isinstance(want, str) for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(value.shape)}")
    if value.numel():
        for extreme in (value.min(), value.max()):
            check_in_range(name, int(extreme), low, high)
