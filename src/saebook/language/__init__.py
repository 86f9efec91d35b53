"""A language model to read: its tokens, activations, interventions, and what latents show."""

from saebook.language.activations import (
    Replace,
    collect_activations,
    run_replaced,
    token_losses,
)
from saebook.language.docstrings import (
    read_docstrings,
)
from saebook.language.examples import (
    Examples,
    highlighted,
    top_examples,
    uniform_examples,
)
from saebook.language.interventions import (
    ablate_latent,
    group_log_odds,
    logit_effect,
    random_directions_like,
    steer,
    top_tokens,
)
from saebook.language.model import (
    LanguageModel,
    LoadError,
    load_language_model,
    load_texts,
)
from saebook.language.monosemanticity import (
    best_class_f1,
    best_token_f1,
    measure_units,
    token_classes,
    token_entropy,
)
from saebook.language.splicing import (
    Splice,
    identity,
    mean_ablation,
    recovered_share,
    splice,
    zero_ablation,
)
from saebook.language.tokens import (
    count_bytes,
    make_contexts,
    next_token_losses,
    token_bytes,
    token_strings,
    train_tokenizer,
)

__all__ = [
    "Examples",
    "LanguageModel",
    "LoadError",
    "Replace",
    "Splice",
    "ablate_latent",
    "best_class_f1",
    "best_token_f1",
    "collect_activations",
    "count_bytes",
    "group_log_odds",
    "highlighted",
    "identity",
    "load_language_model",
    "load_texts",
    "logit_effect",
    "make_contexts",
    "mean_ablation",
    "measure_units",
    "next_token_losses",
    "random_directions_like",
    "read_docstrings",
    "recovered_share",
    "run_replaced",
    "splice",
    "steer",
    "token_bytes",
    "token_classes",
    "token_entropy",
    "token_losses",
    "token_strings",
    "top_examples",
    "top_tokens",
    "train_tokenizer",
    "uniform_examples",
    "zero_ablation",
]
