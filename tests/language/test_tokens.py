"""Text becomes rows of token ids, each led by the separator, and nothing is lost between."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saebook.language import (
    count_bytes,
    make_contexts,
    next_token_losses,
    token_bytes,
    token_strings,
    train_tokenizer,
)
from saebook.language.tokens import SEPARATOR

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
    with pytest.raises(ValueError, match="max_contexts must be at least 1, got 0"):
        make_contexts(tokenizer, TEXTS, n_ctx=5, max_contexts=0)


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
    losses = next_token_losses(lambda rows: p.log(), torch.tensor([[0, 1, 2]]))
    assert torch.allclose(losses, -torch.tensor([[0.25, 0.7]]).log())


@pytest.mark.parametrize("batch_size", [1, 3, 5, 100])
def test_losses_do_not_depend_on_how_many_rows_go_through_at_once(batch_size):
    g = torch.Generator().manual_seed(0)
    table, rows = torch.randn(7, 7, generator=g), torch.randint(7, (10, 4), generator=g)
    losses = next_token_losses(table.__getitem__, rows, batch_size=batch_size)
    by_hand = -table.log_softmax(1)[rows[:, :-1], rows[:, 1:]]
    assert torch.allclose(losses, by_hand)


def sentence_piece(*, space_before):
    """A tokenizer of the other kind: spaces as "▁", bytes as "<0x0A>"; as in Llama or in Gemma."""
    pieces = ["<unk>", "<s>", *[f"<0x{b:02X}>" for b in range(256)]]
    pieces += ["▁", "▁▁", "▁the", "▁c", "at", "é", *"abcdefghijklmnopqrstuvwxyz."]
    made = Tokenizer(models.Unigram([(p, -len(pieces)) for p in pieces], 0, byte_fallback=True))
    before = [normalizers.Prepend("▁")] if space_before else []
    made.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("space_before", [True, False])
@given(texts=st.lists(st.text(alphabet="the cat é\n£—", min_size=1), min_size=1, max_size=4))
def test_spaces_and_bytes_of_sentence_piece_are_those_of_the_text(texts, space_before):
    tokenizer = sentence_piece(space_before=space_before)
    rows = make_contexts(tokenizer, texts, n_ctx=2)  # a token a row, so that none is left out
    assert count_bytes(tokenizer, rows) == sum(len(text.encode()) for text in texts)
    read = b"".join(token_bytes(tokenizer)[i] for i in rows[:, 1:].flatten())
    assert read.decode() == "".join(f"<s>{' ' * space_before}{text}" for text in texts)


def test_a_part_of_a_character_reads_as_a_mark():
    strings = token_strings(sentence_piece(space_before=True))
    assert strings[2 + 0x0A] == "\n"
    assert strings[2 + 0xE2] == "�"
    assert strings[2 + 256] == " "


def test_the_letters_of_bytes_are_those_of_hugging_face(tokenizer):
    """Its own decoder is the oracle, for the separator, every byte and every merge."""
    ids = range(len(tokenizer))
    assert token_strings(tokenizer) == [tokenizer.decode([i]) for i in ids]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_of = token_bytes(tokenizer)
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in alphabet]
    assert {bytes_of[i] for i in letters} == {bytes([b]) for b in range(256)}


def test_an_id_without_a_token_stands_for_nothing(tokenizer):
    bare = copy.deepcopy(tokenizer)
    model = json.loads(bare.backend_tokenizer.to_str())
    model["model"]["vocab"]["zz"] = 285
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(model)))
    assert token_strings(made)[280:] == ["", "", "", "", "", "zz"]
