"""A causal language model and its text: the book's own, or any of Hugging Face's.

The book's own model is small, was trained on docstrings (`make language-model`) and lies in the
package, so nothing is fetched. `SAEBOOK_MODEL` and `SAEBOOK_TEXT` name others. Every model is
loaded into sae-lens' `SAETransformerBridge`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from saebook import smollm2
from saebook._checks import check_in_range, check_one_of
from saebook._files import file_digest
from saebook.language.docstrings import HELD_OUT, SPLITS, read_docstrings
from saebook.language.tokens import make_contexts, separator_id, token_strings

EMBEDDED = "embedded"
DOCSTRINGS = "docstrings"
FOLDER = Path(__file__).parent / "embedded"
LONGEST = 256  # tokens of a context by default: the logits of 16 such can fill gigabytes
CARD = "card.json"

Hook = Callable[..., Tensor]


class LoadError(ValueError):
    """A model or a text that cannot be loaded: what was asked for, what is wrong, what to do."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LanguageModel:
    """A language model with what reading it takes.

    Some models have logits for ids that no token has, to round a size up. They are left out.

    Attributes:
        name: what it was loaded as.
        bridge: the model with hook points; sae-lens' SAEs can be attached to it.
        tokenizer: Hugging Face's, with a separator that starts each context.
        n_ctx: the most tokens of a context that the model takes.
        n_parameters: number of weights, tied ones once.
        card: of the embedded model, what `make language-model` wrote of it; else empty.
    """

    name: str
    bridge: SAETransformerBridge = field(repr=False)
    tokenizer: Any = field(repr=False)
    n_ctx: int
    n_parameters: int
    card: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.bridge.cfg.d_model)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return int(self.bridge.cfg.n_layers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.bridge.W_U.device

    @cached_property
    def vocabulary(self) -> list[str]:
        """What each token stands for."""
        return token_strings(self.tokenizer)[: self.bridge.W_U.shape[1]]

    def hook_after_block(self, block: int) -> str:
        """The hook point of the residual stream after a block, counted from 0."""
        if not 0 <= block < self.n_layers:
            raise ValueError(f"block must be in [0, {self.n_layers - 1}], got {block}")
        return f"blocks.{block}.hook_out"

    def contexts(
        self, texts: Sequence[str], *, n_ctx: int | None = None, max_contexts: int | None = None
    ) -> Int[Tensor, "n_contexts n_ctx"]:
        """Texts as rows of token ids, see `tokens.make_contexts`.

        Args:
            n_ctx: tokens of a row; by default as many as the model takes, but at most 256, since
                the memory that a row needs grows with its length times the vocabulary.

        Raises:
            ValueError: for rows longer than the model takes, or what `make_contexts` raises.
        """
        length = min(self.n_ctx, LONGEST) if n_ctx is None else n_ctx
        check_in_range("n_ctx", length, 2, self.n_ctx)
        return make_contexts(self.tokenizer, texts, n_ctx=length, max_contexts=max_contexts)

    def prompt(self, text: str) -> Int[Tensor, "1 n_tokens"]:
        """The token ids of one text behind the model's own separator."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([[separator_id(self.tokenizer), *ids]])

    @torch.no_grad()
    def logits(
        self, tokens: Int[Tensor, "n_contexts n_ctx"], hooks: Sequence[tuple[str, Hook]] = ()
    ) -> Float[Tensor, "n_contexts n_ctx vocab"]:
        """Logits of the token that follows each, on the model's device.

        Args:
            hooks: names of hook points, and what is done to the activations there.
        """
        found = self.bridge.run_with_hooks(
            tokens.to(self.device), fwd_hooks=list(hooks), return_type="logits"
        )
        return found[..., : len(self.vocabulary)]


def load_language_model(
    name: str | None = None, *, trained: bool = True, device: str | torch.device = "cpu"
) -> LanguageModel:
    """Load a causal language model in single precision.

    Args:
        name: "embedded", "smollm2-135m" (see `saebook.smollm2`), a folder that Hugging Face's
            `save_pretrained` wrote, or a name on its hub; by default what the environment variable
            `SAEBOOK_MODEL` says, else "embedded".
        trained: if not, the same architecture with the random weights of a fresh model, drawn with
            seed 0.
        device: where its weights are put, such as "cpu" or "cuda".

    Raises:
        LoadError: for an unknown name, an incomplete or damaged file, or a hub that cannot be
            reached.
    """
    name = name or os.environ.get("SAEBOOK_MODEL") or EMBEDDED
    source = _source(name)
    card = _checked_card() if name == EMBEDDED else {}
    tokenizer, model = _whole_model(name, source)
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    if not trained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the initialisation draws from the global generator
            model = AutoModelForCausalLM.from_config(model.config)
    n_parameters = sum(weight.numel() for weight in model.parameters())  # the bridge splits some
    bridge = SAETransformerBridge.boot_transformers(
        source, hf_model=model.eval().to(device), tokenizer=tokenizer, device=device
    )
    return LanguageModel(
        name=name,
        bridge=bridge,
        tokenizer=tokenizer,
        n_ctx=int(bridge.cfg.n_ctx),
        n_parameters=n_parameters,
        card=card,
    )


def _source(name: str) -> str:
    """The folder of a model that comes with the book or is fetched; else its name."""
    if name == smollm2.NAME:
        try:
            return str(smollm2.fetch())
        except smollm2.FetchError as error:
            raise LoadError(str(error)) from error
    return str(FOLDER) if name == EMBEDDED else name


def _whole_model(name: str, source: str) -> tuple[Any, Any]:
    """Tokenizer and model from a folder or the hub, if no weight is missing.

    Hugging Face would draw a missing weight at random and only warn.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, use_safetensors=True
        )
    except Exception as error:  # Hugging Face's loaders raise what their parts raise
        raise LoadError(_advice("SAEBOOK_MODEL", "model", name, EMBEDDED, error)) from error
    model, info = loaded
    lacking = sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"]))
    if lacking:
        raise LoadError(
            f"model {name!r} is incomplete: it lacks {', '.join(lacking[:3])}"
            f"{' and more' if len(lacking) > 3 else ''}. Save or download it again."
        )
    return tokenizer, model


def load_texts(split: str, name: str | None = None, *, share: float = 1.0) -> list[str]:
    """The documents of a split.

    Args:
        split: "train" or "held-out".
        name: "docstrings", a folder that `datasets.Dataset.save_to_disk` wrote, or a data set on
            Hugging Face's hub, with a column "text"; by default what the environment variable
            `SAEBOOK_TEXT` says, else "docstrings". Of a data set the last twentieth is held out.
        share: how much of the split to read, see `docstrings.read_docstrings`; of a data set the
            first documents.

    Raises:
        LoadError: for an unknown name, a data set without text, or a hub that cannot be reached.
    """
    check_one_of("split", split, SPLITS)
    check_in_range("share", share, 0, 1, open_minimum=True)
    name = name or os.environ.get("SAEBOOK_TEXT") or DOCSTRINGS
    if name == DOCSTRINGS:
        return read_docstrings(split, share=share)
    documents = _dataset_texts(name)
    cut = round(len(documents) * (1 - HELD_OUT))
    documents = documents[:cut] if split == "train" else documents[cut:]
    return documents[: max(1, round(len(documents) * share))]


def _dataset_texts(name: str) -> list[str]:
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk  # slow to import

    try:
        found = load_from_disk(name) if Path(name).is_dir() else load_dataset(name)
    except Exception as error:  # datasets raises what its parts raise
        raise LoadError(_advice("SAEBOOK_TEXT", "data set", name, DOCSTRINGS, error)) from error
    if isinstance(found, DatasetDict):
        found = found["train"] if "train" in found else next(iter(found.values()))
    if not isinstance(found, Dataset) or "text" not in found.column_names:
        raise LoadError(f"data set {name!r} must have a column 'text', got {found.column_names}")
    documents = [text for text in found["text"] if text and text.strip()]
    if len(documents) < 2:
        raise LoadError(
            f"data set {name!r} must hold at least 2 documents with text, got {len(documents)}"
        )
    return documents


def _checked_card() -> dict[str, Any]:
    """The card of the embedded model, whose files are as it says."""
    try:
        card = json.loads((FOLDER / CARD).read_text(encoding="utf-8"))
        found = {name: file_digest(FOLDER / name) for name in card["files"]}
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise LoadError(
            f"the embedded model in {FOLDER} is incomplete: {error}. Restore the folder with git, "
            "or make it anew with 'make language-model'."
        ) from error
    for name, digest in card["files"].items():
        if found[name] != digest:
            raise LoadError(
                f"{FOLDER / name} is damaged: its SHA-256 starts with {found[name][:12]}, expected "
                f"{digest[:12]}. Restore it with git, or make it anew with 'make language-model'."
            )
    return dict(card)


def _advice(variable: str, kind: str, name: str, default: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0][:200]
    return (
        f"{kind} {name!r} could not be loaded: {type(error).__name__}: {reason}\n"
        f"Expected: {default!r}, a folder on this machine, or a name on Hugging Face's hub, which "
        f"must be reachable unless the files were downloaded before.\n"
        f"What to do: check the name and the network, or unset {variable} to use {default!r}."
    )
