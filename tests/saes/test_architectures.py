"""The scheduled BatchTopK SAE and its place in sae-lens."""

from __future__ import annotations

import pytest
import torch
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TrainingSAE
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput

from saebook.saes import (
    ScheduledBatchTopKTrainingSAE,
    ScheduledBatchTopKTrainingSAEConfig,
    turned,
    widened,
    with_k,
)


def make_config(**changes) -> ScheduledBatchTopKTrainingSAEConfig:
    settings = {
        "d_in": 4,
        "d_sae": 8,
        "k": 2,
        "initial_k": 6,
        "transition_k_start_step": 10,
        "transition_k_duration_steps": 20,
    }
    return ScheduledBatchTopKTrainingSAEConfig(**{**settings, **changes})


@pytest.mark.parametrize(("step", "k"), [(0, 6), (10, 6), (20, 4), (25, 3), (30, 2), (500, 2)])
def test_k_stays_then_moves_in_a_straight_line_then_stays(step, k):
    assert make_config().k_at(step) == k


def test_k_can_rise_and_may_jump():
    assert make_config(initial_k=1, k=3).k_at(20) == 2
    jumping = make_config(transition_k_duration_steps=0)
    assert (jumping.k_at(9), jumping.k_at(10)) == (6, 2)


def test_without_an_initial_k_the_schedule_is_constant():
    cfg = make_config(initial_k=None)
    assert {cfg.k_at(step) for step in range(0, 50, 10)} == {2}


def test_a_training_step_keeps_as_many_activations_as_the_schedule_says():
    sae = ScheduledBatchTopKTrainingSAE(make_config())
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    output = sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients={},
            dead_neuron_mask=None,
            n_training_steps=25,
            is_logging_step=False,
        )
    )
    assert int((output.feature_acts > 0).sum()) == 3 * 50
    assert int((sae.encode(x) > 0).sum()) == 3 * 50


def test_sae_lens_finds_saves_and_loads_the_architecture(tmp_path):
    assert get_sae_training_class("scheduled_batchtopk")[0] is ScheduledBatchTopKTrainingSAE
    sae = ScheduledBatchTopKTrainingSAE(make_config())
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path)
    assert isinstance(loaded, ScheduledBatchTopKTrainingSAE)
    assert loaded.cfg.k_at(20) == 4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, r"k must be in \(0, 8\], got 0"),
        ({"initial_k": 9}, r"initial_k must be in \(0, 8\], got 9"),
        ({"transition_k_start_step": -1}, "transition_k_start_step must be at least 0, got -1"),
        (
            {"transition_k_duration_steps": 2.5},
            "transition_k_duration_steps must be an int, got 2.5",
        ),
    ],
)
def test_bad_schedules_are_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_config(**changes)


def test_with_k_keeps_another_number_of_activations_and_leaves_the_original_alone():
    sae = ScheduledBatchTopKTrainingSAE(make_config())
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    before = sae.encode(x)
    assert int((with_k(sae, 3).encode(x) > 0).sum()) == 3 * 50
    assert torch.equal(sae.encode(x), before)
    with pytest.raises(ValueError, match=r"k must be in \(0, 8\], got 9"):
        with_k(sae, 9)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "matryoshka_batchtopk"])
def test_a_widened_sae_has_the_old_latents_first_and_fresh_ones_after_them(architecture):
    sae_class, cfg_class = get_sae_training_class(architecture)
    extra = {"matryoshka_widths": [2, 4]} if "matryoshka" in architecture else {}
    torch.manual_seed(0)
    sae = sae_class(cfg_class(d_in=3, d_sae=4, **({"k": 2} if extra else {}), **extra))
    for weight in sae.parameters():
        weight.data = torch.rand_like(weight)
    before = {name: weight.clone() for name, weight in sae.named_parameters()}
    wide = widened(sae, 3, seed=7)
    assert type(wide) is type(sae)
    assert wide.cfg.d_sae == 7
    for name, weight in wide.named_parameters():
        old = weight if name == "b_dec" else weight[:, :4] if name == "W_enc" else weight[:4]
        torch.testing.assert_close(old, before[name])
    assert float(wide.W_dec[4:].detach().norm(dim=1).min()) > 0.05
    assert extra == {} or wide.cfg.matryoshka_widths == [2, 7]
    assert sae.cfg.d_sae == 4
    torch.testing.assert_close(widened(sae, 3, seed=7).W_dec, wide.W_dec)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("n_new", "error"), [(0, ValueError), (1.5, TypeError)])
def test_widening_wants_a_positive_number_of_latents(n_new, error):
    sae = ScheduledBatchTopKTrainingSAE(make_config())
    with pytest.raises(error, match="n_new must be"):
        widened(sae, n_new, seed=0)


def absence_and_presence(b_dec: list[float]) -> StandardTrainingSAE:
    """A latent that fires unless the first feature is there, and one for the second feature."""
    sae = StandardTrainingSAE(
        StandardTrainingSAEConfig(d_in=2, d_sae=2, apply_b_dec_to_input=False)
    )
    sae.W_enc.data = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    sae.W_dec.data = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    sae.b_enc.data = torch.tensor([1.0, -0.5])
    sae.b_dec.data = torch.tensor(b_dec)
    return sae


def test_a_latent_that_means_an_absence_is_turned_and_others_are_not():
    sae = absence_and_presence([1.0, 0.0])
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(sae(x)[:2], x[:2])  # it reconstructs: 1 − 1 = 0 and 1 − 0 = 1
    changed = turned(sae, x)
    torch.testing.assert_close(changed.W_dec, torch.eye(2))
    torch.testing.assert_close(changed.W_enc, torch.eye(2))
    torch.testing.assert_close(changed.b_enc, torch.tensor([0.0, -0.5]))
    torch.testing.assert_close(changed.b_dec, sae.b_dec)
    assert sae.W_dec[0, 0] == -1


@pytest.mark.parametrize(
    ("along", "share", "is_turned"),
    [(0.04, 0.1, False), (0.06, 0.1, True), (0.06, 0.2, False), (-1.0, 0.1, False)],
)
def test_a_latent_is_turned_from_a_share_of_its_mean_activation_on(along, share, is_turned):
    sae = absence_and_presence([along, 0.0])
    x = torch.tensor([[0.5, 0.0], [0.5, 0.0], [9.0, 0.0]])  # the first is active twice, at 0.5
    assert bool(turned(sae, x, share=share).W_dec[0, 0] > 0) == is_turned


def test_a_silent_latent_is_not_turned():
    x = torch.tensor([[5.0, 0.0], [6.0, 0.0]])
    assert turned(absence_and_presence([1.0, 0.0]), x).W_dec[0, 0] == -1


@pytest.mark.usefixtures("unchecked")
def test_turning_refuses_bad_input():
    sae, x = absence_and_presence([1.0, 0.0]), torch.zeros(3, 2)
    with pytest.raises(TypeError, match="sae must be TrainingSAE"):
        turned(torch.zeros(2), x)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got \(3, 4\)"):
        turned(sae, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"share must be in \[0, inf\], got -1"):
        turned(sae, x, share=-1)
