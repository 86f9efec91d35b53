"""Steering adds, ablation subtracts, the direct path is the model's own; all checked by hand."""

import pytest
import torch
import transformers
from sae_lens import StandardSAE, StandardSAEConfig
from torch.nn.functional import normalize

from saebook.language import (
    ablate_latent,
    collect_activations,
    group_log_odds,
    load_language_model,
    logit_effect,
    mean_ablation,
    random_directions_like,
    run_replaced,
    steer,
    token_losses,
    top_tokens,
)

CUDA = torch.cuda.is_available()
SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
HOOK = "blocks.0.hook_out"
TOKENS = torch.tensor([[0, 4, 9, 200], [0, 8, 7, 6]])


@pytest.fixture(scope="module")
def model(_saved_once):
    return load_language_model(str(_saved_once))


def fresh(kind, **options):
    """A tiny model of one of Hugging Face's architectures, drawn with seed 0."""
    config, causal = (getattr(transformers, kind + end) for end in ("Config", "ForCausalLM"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return causal(config(**SHAPE, **options)).eval()


def with_tokenizer_of(folder, hf):
    """The folder, in which another model of Hugging Face's takes the place of the one there."""
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    hf.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def sae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = StandardSAE(StandardSAEConfig(d_in=16, d_sae=5))
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return made


def test_steering_adds_the_unit_direction_times_the_strength():
    acts = torch.zeros(2, 3, 4)
    steered = steer(torch.tensor([0.0, 3.0, 0.0, 4.0]), 10.0)(acts)
    assert torch.equal(steered, torch.tensor([0.0, 6.0, 0.0, 8.0]).expand(2, 3, 4))


def test_ablation_takes_off_exactly_what_zeroing_the_latent_would(sae):
    acts = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(2))
    f = sae.encode(acts)
    zeroed = f.clone()
    zeroed[..., 2] = 0
    difference = sae.decode(f) - sae.decode(zeroed)
    assert difference.abs().max() > 0.1
    assert torch.allclose(ablate_latent(sae, 2)(acts), acts - difference, atol=1e-5)


def test_the_control_takes_off_the_same_length_along_another_direction(sae):
    acts = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(2))
    own = acts - ablate_latent(sae, 2)(acts)
    other = acts - ablate_latent(sae, 2, 7 * torch.eye(16)[3])(acts)
    assert torch.allclose(own.norm(dim=-1), other.norm(dim=-1), atol=1e-5)
    assert (other[..., :3] == 0).all() and (other[..., 4:] == 0).all()


def test_the_direct_effect_is_the_derivative_of_the_logits_after_the_last_block(model):
    """At the last hook point the direct path is the only one; its scale differs by position."""
    hook = model.hook_after_block(1)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(3)).double()
    norm, W_U = model.bridge.ln_final.weight.double(), model.bridge.W_U.double()
    acts = collect_activations(model, TOKENS, hook).double()

    def logits(acts):
        centred = acts - acts.mean(-1, keepdim=True)
        return (centred / centred.pow(2).mean(-1, keepdim=True).sqrt() * norm) @ W_U

    clean = run_replaced(model, TOKENS, hook, None)
    assert torch.allclose(
        clean - clean.mean(-1, keepdim=True),
        (logits(acts) - logits(acts).mean(-1, keepdim=True)).float()
        + (model.bridge.ln_final.bias @ model.bridge.W_U)
        - (model.bridge.ln_final.bias @ model.bridge.W_U).mean(),
        atol=1e-3,
    )
    effect = logit_effect(model, direction[None].float())[0]
    by_hand = logits(direction)  # the numerator is linear; the norm's scale is the direction's own
    assert torch.allclose(effect.double(), by_hand - by_hand.mean(), atol=1e-3)


@pytest.mark.parametrize("kind", ["Llama", "Gemma"])
def test_the_direct_effect_is_that_of_the_models_own_final_norm(kind, saved_model):
    """Llama's RMSNorm does not centre; Gemma's scales by one plus its weight."""
    hf = fresh(kind, vocab_size=300, num_key_value_heads=2, head_dim=4)
    hf.model.norm.weight.data = torch.linspace(0.1, 2, 16)
    model = load_language_model(with_tokenizer_of(saved_model, hf))
    directions = torch.randn(20, 16, generator=torch.Generator().manual_seed(1)) + 1
    weight = hf.model.norm.weight + (kind == "Gemma")
    by_hand = (directions * weight) @ hf.lm_head.weight.T
    by_hand -= by_hand.mean(1, keepdim=True)
    effect = logit_effect(model, directions)
    assert torch.allclose(normalize(effect), normalize(by_hand), atol=1e-5)
    assert torch.equal(top_tokens(effect, 5), top_tokens(by_hand, 5))


def test_ids_that_no_token_has_are_left_out(saved_model):
    """GPT-NeoX rounds its vocabulary up; here by 64 ids, which their own rows promote most."""
    hf = fresh("GPTNeoX", vocab_size=364)
    model = load_language_model(with_tokenizer_of(saved_model, hf))
    rows = hf.lm_head.weight.detach()[300:]
    group = top_tokens(logit_effect(model, rows), 10)
    assert len(model.vocabulary) == 300
    assert group.max() < 300
    logits = run_replaced(model, TOKENS, model.hook_after_block(1), steer(rows[20], 50.0))
    assert torch.allclose(model.logits(TOKENS), hf(TOKENS).logits[..., :300], atol=1e-5)
    assert logits.shape == (2, 4, 300)
    p = hf(TOKENS).logits[..., :300].softmax(-1)[..., [5, 299]].sum(-1)
    assert torch.allclose(
        group_log_odds(model, TOKENS, [5, 299], HOOK), torch.logit(p)[:, 1:].flatten(), atol=1e-4
    )
    with pytest.raises(ValueError, match=r"group must hold token ids in \[0, 299\], got \[320\]"):
        group_log_odds(model, TOKENS, [320], HOOK)
    with pytest.raises(ValueError, match=r"tokens must hold ids in \[0, 299\]"):
        run_replaced(model, torch.tensor([[0, 320]]))


@pytest.mark.parametrize("device", ["cpu", "meta", *["cuda"] * CUDA])
def test_directions_and_replacements_are_on_the_device_of_what_they_get(sae, device):
    direction, acts = torch.ones(16, device=device), torch.ones(2, 3, 16, device=device)
    rows = random_directions_like(direction, 3, generator=torch.Generator().manual_seed(0))
    assert rows.device.type == device
    for replace in (
        steer(torch.ones(16), 2.0),
        mean_ablation(torch.ones(16)),
        ablate_latent(sae.to(device), 2),
        ablate_latent(sae, 2, torch.ones(16)),
    ):
        assert replace(acts).device.type == device
        assert replace(acts).shape == acts.shape


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_on_a_gpu_the_numbers_are_those_of_the_cpu(saved_model, model):
    there = load_language_model(str(saved_model), device="cuda")
    direction = torch.linspace(-1, 1, 16)
    for measure in (
        lambda m: collect_activations(m, TOKENS, HOOK),
        lambda m: logit_effect(m, direction[None]),
        lambda m: group_log_odds(m, TOKENS, [5, 9], HOOK, steer(direction, 2.0)),
        lambda m: token_losses(m, TOKENS, HOOK, mean_ablation(direction)),
    ):
        found = measure(there)
        assert found.device.type == "cpu"
        assert torch.allclose(found, measure(model), atol=1e-3)


def test_top_tokens_are_the_largest_effects_in_order():
    effect = torch.tensor([[0.0, 3.0, -1.0, 2.0]])
    assert top_tokens(effect, 2).tolist() == [[1, 3]]


def test_group_log_odds_are_those_of_the_softmax(model):
    p = run_replaced(model, TOKENS, HOOK, None).softmax(-1)[..., [5, 9]].sum(-1)
    found = group_log_odds(model, TOKENS, [5, 9], HOOK)
    assert torch.allclose(found, torch.logit(p)[:, 1:].flatten(), atol=1e-4)
    where = torch.zeros(TOKENS.shape, dtype=torch.bool)
    where[1, 2] = True
    assert group_log_odds(model, TOKENS, [5, 9], HOOK, where=where).tolist() == pytest.approx(
        [torch.logit(p[1, 2]).item()], abs=1e-4
    )


def test_steering_along_a_row_of_the_unembedding_favours_its_token(model):
    hook = model.hook_after_block(1)
    direction = model.bridge.W_U[:, 42] / model.bridge.ln_final.weight
    before, after = (
        group_log_odds(model, TOKENS, [42], hook, replace)
        for replace in (None, steer(direction, 50.0))
    )
    assert (after > before).all()


def test_random_directions_have_the_norm_and_come_from_the_generator():
    direction = torch.full((400,), 0.25)
    rows = random_directions_like(direction, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rows.norm(dim=1), torch.tensor(5.0))
    cosines = rows @ direction / 25
    assert cosines.abs().max() < 5 / 20  # five standard errors of a cosine in 400 dimensions
    again = random_directions_like(direction, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows, again)


@pytest.mark.parametrize("latent", [5, 100])
def test_a_latent_out_of_range_is_named(sae, latent):
    with pytest.raises(ValueError, match=rf"latent must be in \[0, 4\], got {latent}"):
        ablate_latent(sae, latent)


def test_other_bad_input_is_named(model, sae):
    with pytest.raises(ValueError, match="latent must be at least 0"):
        ablate_latent(sae, -1)
    with pytest.raises(ValueError, match=r"n_tokens must be in \[1, 4\], got 5"):
        top_tokens(torch.zeros(1, 4), 5)
    with pytest.raises(ValueError, match="direction must not be zero"):
        steer(torch.zeros(16), 1.0)
    with pytest.raises(ValueError, match=r"group must hold token ids in \[0, 299\]"):
        group_log_odds(model, TOKENS, [300], HOOK)
    with pytest.raises(ValueError, match="group must hold token ids"):
        group_log_odds(model, TOKENS, [], HOOK)
