"""Shapes and types of the whole library are checked at run time in every test."""

import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the book; read when PyTorch is imported

import hypothesis
import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("saebook", "typechecks.typecheck")

hypothesis.settings.register_profile(
    "saebook", deadline=None, derandomize=True, max_examples=40, database=None
)
hypothesis.settings.load_profile("saebook")


@pytest.fixture
def unchecked(monkeypatch):
    """Run the library as its users do, without the run-time check of shapes and types.

    The library's own errors for wrong shapes and types are then what is seen.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def book_style():
    """Figures as in a chapter: in the book's style, without a window, closed afterwards."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from saebook import style

    with mpl.rc_context():
        mpl.use("agg")
        style.use()
        yield
        plt.close("all")


@pytest.fixture(scope="session")
def _saved_once(tmp_path_factory):
    """A tiny GPT-2 with a tokenizer, as Hugging Face saves it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from saebook.tokens import train_tokenizer

    folder = tmp_path_factory.mktemp("model")
    texts = [f"cat {i} sat on mat {3 * i}, and dog {i * i} did not" for i in range(200)]
    train_tokenizer(texts, vocab_size=300).save_pretrained(folder)
    cfg = GPT2Config(
        vocab_size=300,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(cfg)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 4  # at GPT-2's small initial weights blocks do next to nothing
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def saved_model(_saved_once, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(_saved_once, tmp_path / "model")
