"""Text becomes rows of token ids, each led by the separator, and nothing is lost between."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from saebook.tokens import (
    SEPARATOR,
    count_bytes,
    make_contexts,
    next_token_losses,
    token_strings,
    train_tokenizer,
)

TEXTS = ["the cat sat on the mat and the cat sat still", "naïve café: £3 — ok\n\n    indented"] * 8


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=280)


def test_the_separator_is_token_zero_and_every_byte_has_a_token(tokenizer):
    assert tokenizer.bos_token == tokenizer.eos_token == SEPARATOR
    assert tokenizer.bos_token_id == 0
    assert len(tokenizer) == 280


@given(text=st.text(max_size=40))
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if SEPARATOR not in text:
        assert whole == text


def test_rows_hold_the_stream_in_order_behind_a_separator(tokenizer):
    rows = make_contexts(tokenizer, ["aaa", "bb"], n_ctx=4)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in ("aaa", "bb")]
    stream = [0, *ids[0], 0, *ids[1]]
    assert (rows[:, 0] == 0).all()
    assert rows[:, 1:].flatten().tolist() == stream[: 3 * len(rows)]
    assert len(rows) == len(stream) // 3


def test_no_more_contexts_than_asked_for(tokenizer):
    assert make_contexts(tokenizer, TEXTS, n_ctx=5, max_contexts=2).shape == (2, 5)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), min_size=20))
def test_bytes_are_those_of_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = torch.tensor([[0, *ids]])
    assert count_bytes(tokenizer, rows) == len(text.encode())


def test_each_token_has_its_string(tokenizer):
    strings = token_strings(tokenizer)
    ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    assert "".join(strings[i] for i in ids) == "the cat"


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_text_too_short_for_a_context_is_an_error(tokenizer, texts):
    with pytest.raises(ValueError, match="texts must fill at least one context of 8 tokens"):
        make_contexts(tokenizer, texts, n_ctx=8)


def test_a_vocabulary_smaller_than_the_bytes_is_an_error():
    with pytest.raises(ValueError, match="vocab_size must be at least 257, got 100"):
        train_tokenizer(TEXTS, vocab_size=100)


def test_a_tokenizer_without_a_separator_is_an_error(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="tokenizer must have a bos_token"):
        make_contexts(bare, TEXTS, n_ctx=8)


def test_a_loss_is_minus_the_log_probability_of_the_token_that_comes_next():
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]])
    losses = next_token_losses(p.log(), torch.tensor([[0, 1, 2]]))
    assert torch.allclose(losses, -torch.tensor([[0.25, 0.7]]).log())
