"""Models and texts load whole or not at all, through sae-lens' bridge, with no network."""

import dataclasses
import json
import shutil

import pytest
import torch
from datasets import Dataset, DatasetDict
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from saebook.language import LoadError, load_language_model, load_texts, run_replaced
from saebook.language import model as language_model


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("SAEBOOK_MODEL", raising=False)
    monkeypatch.delenv("SAEBOOK_TEXT", raising=False)


def test_the_embedded_model_loads_and_its_card_says_what_it_is():
    model = load_language_model()
    assert model.name == "embedded"
    assert isinstance(model.bridge, SAETransformerBridge)
    assert model.d_model == model.card["plan"]["d_model"]
    assert model.n_ctx == model.card["n_ctx"]
    assert len(model.vocabulary) == model.card["vocab_size"]


def test_the_embedded_model_and_its_tokenizer_are_small():
    files = list(language_model.FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) < 12e6
    assert {file.suffix for file in files} <= {".json", ".md", ".safetensors"}


def test_a_saved_model_gives_the_logits_of_its_own_class(saved_model):
    model = load_language_model(str(saved_model))
    tokens = torch.tensor([[0, 5, 9, 200, 7]])
    whole = AutoModelForCausalLM.from_pretrained(saved_model)(tokens).logits
    assert torch.allclose(model.bridge(tokens), whole, atol=1e-5)


def save_llama(folder, **options):
    """Put a tiny Llama in place of the model in a folder."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    cfg = LlamaConfig(vocab_size=300, num_hidden_layers=2, bos_token_id=0, eos_token_id=0, **shape)
    cfg.update(options)
    LlamaForCausalLM(cfg).save_pretrained(folder)


@pytest.mark.parametrize("trained", [True, False])
def test_a_model_is_put_on_the_device_that_is_asked_for(saved_model, trained):
    save_llama(saved_model)
    model = load_language_model(str(saved_model), trained=trained, device="meta")
    assert model.device.type == "meta"
    assert {weight.device.type for weight in model.bridge.parameters()} == {"meta"}
    logits = run_replaced(model, torch.tensor([[0, 5, 9]]), "blocks.0.hook_out", torch.zeros_like)
    assert logits.device.type == "meta"
    assert logits.shape == (1, 3, 300)


def test_a_prompt_starts_with_the_models_own_separator(saved_model):
    tokenizer = AutoTokenizer.from_pretrained(saved_model)
    tokenizer.add_special_tokens({"bos_token": "<s>"})  # takes an id that the model lacks
    model = dataclasses.replace(load_language_model(str(saved_model)), tokenizer=tokenizer)
    ids = model.prompt("cat 1 sat")
    assert ids[0, 0] == tokenizer.bos_token_id == 300
    assert tokenizer.decode(ids[0, 1:]) == "cat 1 sat"


def test_contexts_are_as_long_as_the_model_takes_but_not_longer(saved_model):
    model = load_language_model(str(saved_model))
    texts = ["cat 1 sat on mat 3, and dog 1 did not"] * 20
    assert model.contexts(texts).shape[1] == model.n_ctx == 16
    assert model.contexts(texts, n_ctx=5, max_contexts=2).shape == (2, 5)
    for n_ctx in (0, 17):
        with pytest.raises(ValueError, match=rf"n_ctx must be in \[2, 16\], got {n_ctx}"):
            model.contexts(texts, n_ctx=n_ctx)


def test_contexts_of_a_model_of_long_contexts_stay_short_unless_asked_for(saved_model):
    save_llama(saved_model, max_position_embeddings=131_072)
    model = load_language_model(str(saved_model))
    texts = ["cat 1 sat on mat 3, and dog 1 did not"] * 200
    assert model.n_ctx == 131_072
    assert model.contexts(texts).shape[1] == 256
    assert model.contexts(texts, n_ctx=1000).shape[1] == 1000


def test_the_environment_names_the_model_and_the_text(saved_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SAEBOOK_MODEL", str(saved_model))
    assert load_language_model().d_model == 16
    Dataset.from_dict({"text": [f"document {i}" for i in range(40)]}).save_to_disk(tmp_path / "d")
    monkeypatch.setenv("SAEBOOK_TEXT", str(tmp_path / "d"))
    assert load_texts("train") == [f"document {i}" for i in range(38)]
    assert load_texts("held-out") == ["document 38", "document 39"]


def test_a_data_set_of_splits_gives_its_training_part(tmp_path):
    parts = {name: Dataset.from_dict({"text": [name] * 20}) for name in ("test", "train")}
    DatasetDict(parts).save_to_disk(tmp_path / "d")
    assert set(load_texts("train", str(tmp_path / "d"))) == {"train"}
    assert len(load_texts("train", str(tmp_path / "d"), share=0.5)) == 10


def test_an_untrained_model_has_other_weights_and_is_the_same_each_time(saved_model):
    tokens = torch.tensor([[0, 5, 9]])
    trained, *fresh = (
        load_language_model(str(saved_model), trained=trained).bridge(tokens)
        for trained in (True, False, False)
    )
    assert torch.equal(*fresh)
    assert not torch.allclose(trained, fresh[0])


@pytest.mark.parametrize("name", ["no/such-model-here", "/no/such/folder"])
def test_an_unknown_model_is_named_with_what_to_do(name):
    with pytest.raises(LoadError, match=f"model '{name}' could not be loaded(.|\n)*What to do"):
        load_language_model(name)


def test_an_unknown_data_set_is_named_with_what_to_do():
    with pytest.raises(
        LoadError, match="data set 'no/such-data' could not be loaded(.|\n)*network"
    ):
        load_texts("train", "no/such-data")


def test_a_data_set_without_text_is_refused(tmp_path):
    Dataset.from_dict({"words": ["a", "b"]}).save_to_disk(tmp_path / "d")
    with pytest.raises(LoadError, match="must have a column 'text'"):
        load_texts("train", str(tmp_path / "d"))
    Dataset.from_dict({"text": ["", " "]}).save_to_disk(tmp_path / "e")
    with pytest.raises(LoadError, match="must hold at least 2 documents with text, got 0"):
        load_texts("train", str(tmp_path / "e"))


def test_truncated_weights_are_refused(saved_model):
    weights = saved_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LoadError, match="could not be loaded"):
        load_language_model(str(saved_model))


def test_weights_that_lack_a_part_are_refused(saved_model):
    from safetensors.torch import load_file, save_file

    weights = saved_model / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if "h.1.mlp.c_fc" not in k}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"is incomplete: it lacks .*h\.1\.mlp\.c_fc"):
        load_language_model(str(saved_model))


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the embedded model that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(language_model.FOLDER, folder)
    monkeypatch.setattr(language_model, "FOLDER", folder)
    return folder


def test_a_damaged_embedded_model_is_refused(copy):
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-10] ^= 1
    weights.write_bytes(content)
    with pytest.raises(LoadError, match=r"model\.safetensors is damaged: its SHA-256"):
        load_language_model()


def test_an_embedded_model_without_a_file_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match="is incomplete"):
        load_language_model()


def test_an_embedded_model_with_half_a_card_is_refused(copy):
    card = copy / "card.json"
    card.write_text(card.read_text(encoding="utf-8")[:50], encoding="utf-8")
    with pytest.raises(LoadError, match="is incomplete"):
        load_language_model()


def test_hook_points_of_blocks_that_are_not_there_are_refused(saved_model):
    model = load_language_model(str(saved_model))
    assert model.hook_after_block(1) in model.bridge.hook_dict
    with pytest.raises(ValueError, match=r"block must be in \[0, 1\], got 2"):
        model.hook_after_block(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"split": "all"}, "split must be one of"), ({"split": "train", "share": 2}, "share must be")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_texts(**arguments)


def test_the_card_is_complete():
    card = json.loads((language_model.FOLDER / "card.json").read_text(encoding="utf-8"))
    losses = card["held_out_nats"]
    assert {"model", "1-gram", "5-gram"} <= set(losses)
    assert losses["model"]["per_token"] < losses["5-gram"]["per_token"]
