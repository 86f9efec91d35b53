"""The balanced Matryoshka SAEs: losses by hand, gradients, and their place in sae-lens."""

from __future__ import annotations

import json
import math

import pytest
import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainStepInput

from saebook.saes import (
    BalancedMatryoshkaBatchTopKTrainingSAE,
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAE,
    BalancedMatryoshkaTrainingSAEConfig,
)
from saebook.saes.matryoshka import block_weights, penalty_weights

SHAPE = {"d_in": 6, "d_sae": 5, "matryoshka_widths": [1, 3, 5], "dtype": "float64"}
FORMS = {
    "relu": (BalancedMatryoshkaTrainingSAEConfig, {"l1_coefficient": 0.1}),
    "batchtopk": (BalancedMatryoshkaBatchTopKTrainingSAEConfig, {"k": 2}),
}


def make_sae(form, beta=1.0, **changes):
    cfg_class, settings = FORMS[form]
    cfg = cfg_class(inner_loss_multipliers=beta, **{**SHAPE, **settings, **changes})
    torch.manual_seed(0)
    sae = get_sae_training_class(cfg.architecture())[0](cfg)
    for weight in sae.parameters():
        weight.data = torch.randn_like(weight)
    return sae


def forward(sae, x):
    coefficients = {name: c.value for name, c in sae.get_coefficients().items()}
    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=None,
            n_training_steps=0,
            is_logging_step=False,
        )
    )


@pytest.fixture
def x():
    return torch.randn(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def prefix_error(sae, acts, x, width):
    if sae.cfg.architecture().endswith("batchtopk"):
        acts = acts / sae.W_dec.norm(dim=1)
    x_hat = acts[:, :width] @ sae.W_dec[:width] + sae.b_dec
    return (x - x_hat).square().sum(1).mean()


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_weighted_sum_of_the_prefixes_losses(form, x):
    sae = make_sae(form, [0.3, 2.0])
    output = forward(sae, x)
    expected = 0.0
    for width, beta in zip([1, 3, 5], [0.3, 2.0, 1.0], strict=True):
        loss = prefix_error(sae, output.feature_acts, x, width)
        if form == "relu":
            weighted = output.feature_acts * sae.W_dec.norm(dim=1)
            loss = loss + 0.1 * weighted[:, :width].sum(1).mean()
        expected = expected + beta * loss
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.loss, sum(output.losses.values()))


@pytest.mark.parametrize("form", FORMS)
def test_a_detached_prefix_is_moved_only_by_its_own_reconstruction(form, x):
    sae = (
        make_sae(form, [math.inf, 0.5], l1_coefficient=0.0)
        if form == "relu"
        else make_sae(form, [math.inf, 0.5])
    )
    output = forward(sae, x)
    output.loss.backward()
    moved = sae.W_dec.grad[0].clone()
    sae.zero_grad()
    prefix_error(sae, forward(sae, x).feature_acts, x, 1).backward()
    torch.testing.assert_close(moved, sae.W_dec.grad[0])


def test_a_detached_prefix_pays_its_penalty_once_and_the_others_by_their_weights():
    sae = make_sae("relu", [math.inf, 0.5])
    assert block_weights(sae.cfg) == [math.inf, 0.5, 1.0]
    assert penalty_weights(sae.cfg) == [1.0, 1.5, 1.0]
    assert penalty_weights(make_sae("relu", [0.25, 0.5]).cfg) == [1.75, 1.5, 1.0]


def test_one_multiplier_stands_for_all_inner_prefixes():
    assert block_weights(make_sae("relu", 0.25).cfg) == [0.25, 0.25, 1.0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [0.25, [0.5, math.inf]])
def test_a_saved_sae_comes_back_with_its_multipliers(form, beta, x, tmp_path):
    sae = make_sae(form, beta)
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path)
    assert type(loaded) is type(sae)
    assert loaded.cfg.inner_loss_multipliers == beta
    torch.testing.assert_close(forward(loaded, x).loss, forward(sae, x).loss)


@pytest.mark.parametrize(("form", "kind"), [("relu", "standard"), ("batchtopk", "jumprelu")])
def test_for_inference_it_is_saved_as_an_architecture_that_everyone_has(form, kind, x, tmp_path):
    sae = make_sae(form, 0.25)
    if form == "batchtopk":
        forward(sae, x)  # gives it a threshold
    sae.save_inference_model(tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["architecture"] == kind
    loaded = SAE.load_from_disk(tmp_path)
    if form == "relu":
        torch.testing.assert_close(loaded(x), sae(x))


BAD = {
    "matryoshka_widths must increase strictly, got \\[3, 3, 5\\]": {"matryoshka_widths": [3, 3, 5]},
    "matryoshka_widths must end with d_sae = 5": {"matryoshka_widths": [1, 8]},
    "matryoshka_widths must end with d_sae = 5, the whole SAE, got \\[1, 3\\]": {
        "matryoshka_widths": [1, 3]
    },
    "matryoshka_widths must be at least 1, got 0": {"matryoshka_widths": [0, 5]},
    "matryoshka_widths must be a list of widths": {"matryoshka_widths": []},
    "inner_loss_multipliers must be in .*got -0.5": {"inner_loss_multipliers": -0.5},
    "inner_loss_multipliers must be in .*got nan": {"inner_loss_multipliers": [1.0, math.nan]},
    "inner_loss_multipliers must have one entry per inner prefix, 2": {
        "inner_loss_multipliers": [1.0]
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("message", BAD)
def test_an_unusable_config_is_refused_by_name(form, message):
    cfg_class, settings = FORMS[form]
    with pytest.raises(ValueError, match=message):
        cfg_class(**{**SHAPE, **settings, **BAD[message]})


def test_another_norm_than_l1_is_refused():
    with pytest.raises(ValueError, match="lp_norm must be 1 .* got 2"):
        BalancedMatryoshkaTrainingSAEConfig(lp_norm=2, **SHAPE)


@pytest.mark.parametrize(
    ("form", "sae_class"),
    [
        ("relu", BalancedMatryoshkaTrainingSAE),
        ("batchtopk", BalancedMatryoshkaBatchTopKTrainingSAE),
    ],
)
def test_sae_lens_builds_the_class_that_belongs_to_a_config(form, sae_class):
    assert type(make_sae(form)) is sae_class
