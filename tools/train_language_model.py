"""Make the embedded language model from nothing: `make language-model`.

Reads the docstrings of the pinned packages, learns a tokenizer, trains a small GPT-2, measures it
against n-grams on held-out text, and puts the result into the package. An interrupted run goes on
where it was. Two cores take about half an hour, a GPU minutes.
"""

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import torch

from language_model_training import TrainingPlan, train_language_model
from ngrams import fit_ngrams
from saebook._files import file_digest
from saebook.language import (
    count_bytes,
    make_contexts,
    next_token_losses,
    read_docstrings,
    train_tokenizer,
)
from saebook.language.docstrings import PACKAGES
from saebook.language.model import CARD, FOLDER

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "_build" / "language_model"
VOCAB_SIZE = 4096
N_CTX = 256
N_SAMPLE = 128


def arguments():
    plan = TrainingPlan()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=plan.steps, help="default: %(default)s")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default=plan.dtype,
        help="of activations; bfloat16 is faster only where the processor has it "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU if there is one",
    )
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder (default: the package's)")
    return parser.parse_args()


def say(text):
    print(f"[language model] {text}", flush=True)


def data():
    """The tokenizer, and the contexts of both splits."""
    say("reading docstrings, about a minute")
    texts = {split: read_docstrings(split) for split in ("train", "held-out")}
    tokenizer = train_tokenizer(texts["train"], vocab_size=VOCAB_SIZE)
    contexts = {split: make_contexts(tokenizer, texts[split], n_ctx=N_CTX) for split in texts}
    known = {text.split("\n\n", 1)[1] for text in texts["train"]}
    repeated = sum(len(t) for t in texts["held-out"] if t.split("\n\n", 1)[1] in known)
    counts = {
        split: {
            "documents": len(texts[split]),
            "characters": sum(map(len, texts[split])),
            "tokens": contexts[split].numel(),
        }
        for split in texts
    }
    counts["held-out"]["share_repeated"] = repeated / counts["held-out"]["characters"]
    say(f"{counts}")
    return tokenizer, contexts, counts


def measure(model, tokenizer, contexts):
    """Held-out cross-entropies in nats of the model and of n-grams, per token and per byte.

    On all held-out contexts and on the first few, which the book measures again.
    """
    say("measuring, a few minutes")
    held_out = contexts["held-out"]
    losses = {"model": next_token_losses(lambda rows: model(rows).logits, held_out).double()}
    for n in (1, 2, 3, 4, 5):
        ngrams = fit_ngrams(contexts["train"].numpy(), vocab_size=VOCAB_SIZE, n=n)
        losses[f"{n}-gram"] = -torch.from_numpy(ngrams.log_probabilities(held_out.numpy()))
    return {
        "held_out_nats": {
            name: averages(each, tokenizer, held_out) for name, each in losses.items()
        },
        "sample_nats": {
            name: averages(each[:N_SAMPLE], tokenizer, held_out[:N_SAMPLE])
            for name, each in losses.items()
        },
        "sample_contexts": N_SAMPLE,
    }


def averages(losses, tokenizer, contexts):
    return {
        "per_token": losses.mean().item(),
        "per_byte": losses.sum().item() / count_bytes(tokenizer, contexts),
    }


def write(model, tokenizer, card, folder):
    """Write everything beside the folder, then put it in place in one move."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    model.half().save_pretrained(new)
    tokenizer.save_pretrained(new)
    card["files"] = {path.name: file_digest(path) for path in sorted(new.iterdir())}
    (new / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (new / "README.md").write_text(model_card(card), encoding="utf-8")
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def model_card(card):
    """The card in words."""
    plan, data = card["plan"], card["data"]
    rows = "\n".join(
        f"| {name} | {loss['per_token']:.3f} | {loss['per_byte']:.3f} |"
        for name, loss in card["held_out_nats"].items()
    )
    return f"""# Model card: the embedded language model

`make language-model` writes this folder; do not edit it by hand.

**Architecture.** GPT-2 (Hugging Face's `GPT2LMHeadModel`): {plan["n_layers"]} blocks, width {plan["d_model"]}, {plan["n_heads"]} heads, contexts of {card["n_ctx"]}
tokens, tied embeddings, weights stored in half precision as safetensors. Own byte-level byte-pair tokenizer, {card["vocab_size"]} tokens.

**Data.** Docstrings of at least 200 characters of {", ".join(card["packages"])}, in the pinned versions, each below its dotted name.
{data["train"]["documents"]} documents, {data["train"]["characters"]} characters, {data["train"]["tokens"]} tokens to train on; a twentieth of the files held out ({data["held-out"]["tokens"]} tokens).
{data["held-out"]["share_repeated"]:.1%} of the held-out text stands word for word in a training file too.

**Training.** {plan["steps"]} steps of {plan["batch_size"]} contexts ({plan["steps"] * plan["batch_size"] * card["n_ctx"]} tokens), AdamW, rate {plan["lr"]} with warm-up and cosine decay,
{plan["dtype"]} activations, on "{card["device"]}"; the last uninterrupted run took {card["minutes_of_last_run"]} minutes.

**Held-out cross-entropy in nats.** The n-grams have interpolated Kneser-Ney smoothing and the same training text and tokenizer.

| | per token | per byte |
| --- | --- | --- |
{rows}

**Use.** To be interpreted, in the book. It writes text that looks like documentation and means nothing. The text's authors hold its
copyright; the packages' licences are permissive (BSD, MIT, Apache 2.0, and Matplotlib's).
"""


def main():
    options = arguments()
    plan = TrainingPlan(steps=options.steps, dtype=options.dtype)
    tokenizer, contexts, counts = data()
    started = time.monotonic()
    model = train_language_model(
        contexts["train"],
        vocab_size=VOCAB_SIZE,
        plan=plan,
        separator=tokenizer.bos_token_id,
        device=options.device,
        checkpoint=WORK / "run.safetensors",
    )
    minutes = (time.monotonic() - started) / 60
    model = model.half().float()  # as it is stored
    card = {
        "packages": PACKAGES,
        "data": counts,
        "plan": asdict(plan),
        "n_ctx": N_CTX,
        "vocab_size": VOCAB_SIZE,
        "device": options.device,
        "minutes_of_last_run": round(minutes, 1),
        **measure(model, tokenizer, contexts),
    }
    write(model, tokenizer, card, options.to)
    say(f"{card['held_out_nats']}")
    say(f"wrote {options.to}")


if __name__ == "__main__":
    main()
