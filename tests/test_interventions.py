"""Steering adds, ablation subtracts, the direct path is the model's own; all checked by hand."""

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from saebook.activations import collect_activations, run_replaced
from saebook.interventions import (
    ablate_latent,
    group_log_odds,
    logit_effect,
    random_directions_like,
    steer,
    top_tokens,
)
from saebook.language_model import load_language_model

HOOK = "blocks.0.hook_out"
TOKENS = torch.tensor([[0, 4, 9, 200], [0, 8, 7, 6]])


@pytest.fixture(scope="module")
def model(_saved_once):
    return load_language_model(str(_saved_once))


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
    # along the direction, at equal norm: the change of the numerator
    centred = direction - direction.mean()
    by_hand = (centred * norm) @ W_U
    assert torch.allclose(effect.double(), by_hand - by_hand.mean(), atol=1e-4)


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
    with pytest.raises(ValueError, match="direction must not be zero"):
        steer(torch.zeros(16), 1.0)
    with pytest.raises(ValueError, match=r"group must hold token ids in \[0, 299\]"):
        group_log_odds(model, TOKENS, [300], HOOK)
    with pytest.raises(ValueError, match="group must hold token ids"):
        group_log_odds(model, TOKENS, [], HOOK)
