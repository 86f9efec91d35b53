"""Models and texts load whole or not at all, through sae-lens' bridge, with no network."""

import json
import shutil

import pytest
import torch
from datasets import Dataset, DatasetDict
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from transformers import AutoModelForCausalLM

from saebook import language_model
from saebook.language_model import LoadError, load_language_model, load_texts


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
