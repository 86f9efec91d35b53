import math
from dataclasses import replace

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.registry import get_sae_training_class

from calls import called
from saebook.metrics import l0
from saebook.saes import inference_sae
from saebook.training import train_at_l0, train_ensemble
from saebook.training.matched_l0 import _crossing, _Try
from saebook.worlds import make_independent_world, make_orthonormal_directions

SIZE = {"d_in": 8, "d_sae": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WORLD = make_independent_world(
    torch.full((8,), 0.25),
    make_orthonormal_directions(8, 8, generator=generator()),
    magnitude_std=0.25,
)
FAST = {"steps": 100, "batch_size": 64, "lr": 1e-2, "n_samples": 2000, "progress": False}


def standard(coefficient: float) -> StandardTrainingSAEConfig:
    return StandardTrainingSAEConfig(l1_coefficient=coefficient, **SIZE)


def match(**changes):
    settings = {
        "make_cfg": standard,
        "sample_batch": WORLD.sample,
        "target_l0": 2.8,
        "bracket": (0.1, 1.0),
        "seeds": [3, 1],
        "generator": generator(1),
        **FAST,
        **changes,
    }
    return called(train_at_l0, settings.pop("make_cfg"), settings.pop("sample_batch"), **settings)


@pytest.fixture(scope="module")
def matched():
    return match()


def test_every_seed_has_the_target_l0_within_the_tolerance(matched):
    assert len(matched.saes) == len(matched.coefficients) == len(matched.l0s) == 2
    assert all(abs(found / 2.8 - 1) <= 0.02 for found in matched.l0s)


def test_the_l0_told_is_that_on_what_the_generator_draws_after_the_batches(matched):
    stream = generator(1)
    for _ in range(FAST["steps"]):
        WORLD.sample(FAST["batch_size"], stream)
    x = WORLD.sample(2000, stream)
    assert matched.l0s == [l0(sae.encode(x).detach()) for sae in matched.saes]


def test_a_seed_gets_the_sae_that_train_ensemble_gives_its_coefficient(matched):
    training = {name: value for name, value in FAST.items() if name != "n_samples"}
    alone = called(
        train_ensemble,
        [standard(matched.coefficients[0])],
        WORLD.sample,
        seeds=[3],
        generator=generator(1),
        **training,
    )
    torch.testing.assert_close(alone[0].W_dec, matched.saes[0].W_dec, rtol=1e-3, atol=1e-4)


def test_the_coefficients_are_those_that_the_saes_were_trained_with(matched):
    assert matched.coefficients == [sae.cfg.l1_coefficient for sae in matched.saes]


def test_the_same_call_gives_the_same_saes(matched):
    again = match()
    assert again.coefficients == matched.coefficients
    for one, other in zip(matched.saes, again.saes, strict=True):
        assert torch.equal(one.W_dec, other.W_dec)


def test_the_order_is_that_of_the_seeds():
    untrained = match(
        make_cfg=lambda k: TopKTrainingSAEConfig(k=round(k), **SIZE),
        bracket=(1, 6),
        seeds=[3, 1, 2],
        n_grid=2,
        tolerance=1.0,
        steps=1,
        lr=1e-9,
    )
    for seed, sae in zip([3, 1, 2], untrained.saes, strict=True):
        torch.manual_seed(seed)
        fresh = get_sae_training_class("topk")[0](TopKTrainingSAEConfig(k=1, **SIZE))
        torch.testing.assert_close(sae.W_dec, fresh.W_dec)


def test_an_l0_that_rises_with_the_coefficient_is_met_too():
    rising = match(
        make_cfg=lambda k: BatchTopKTrainingSAEConfig(k=k, topk_threshold_lr=0.2, **SIZE),
        bracket=(1.5, 4.0),
        n_grid=2,
        seeds=[0],
    )
    assert abs(rising.l0s[0] / 2.8 - 1) <= 0.02


def test_an_l0_that_rises_from_exactly_0_is_met_too():
    rising = match(
        make_cfg=lambda c: standard(1 / c), bracket=(0.1, 5), n_grid=2, seeds=[0], tolerance=0.2
    )
    assert abs(rising.l0s[0] / 2.8 - 1) <= 0.2


@pytest.mark.parametrize(
    ("curve", "target", "coefficient", "slope"),
    [
        ([(1, 2.0), (4, 8.0)], 4, 2, 1),  # L0 = 2 c
        ([(1, 8.0), (4, 2.0)], 4, 2, -1),  # L0 = 8 / c
        ([(1, 16.0), (2, 9.0), (4, 1.0)], 3, 2 * math.sqrt(2), -2 * math.log2(3)),
        ([(1, 0.0), (1e6, 1.0)], 1e-3, 1e3, 1),  # an L0 of 0 counts as 1e-6
        ([(1, 3.0), (2, 3.0)], 3, 1, math.inf),
    ],
)
def test_a_curve_is_crossed_where_a_line_on_log_log_axes_says(curve, target, coefficient, slope):
    tries = [_Try(*point, sae=None) for point in curve]
    assert _crossing(tries, target) == pytest.approx((coefficient, slope))


def test_seeds_that_meet_the_target_are_not_trained_again():
    loose = match(tolerance=1.0, n_grid=2)
    assert loose.n_trained == 4
    assert loose.coefficients[0] == loose.coefficients[1]


def test_rounds_with_fewer_saes_than_shards_are_trained_too(matched, monkeypatch):
    asked = []

    def train(cfgs, sample_batch, options, **training):
        asked.append((len(cfgs), options.n_shards))
        return train_ensemble(cfgs, sample_batch, replace(options, n_shards=1), **training)

    monkeypatch.setattr("saebook.training.matched_l0.train_ensemble", train)
    assert match(n_shards=3).coefficients == matched.coefficients
    assert asked[:2] == [(4, 3), (2, 2)]
    assert sum(n_saes for n_saes, _ in asked) == matched.n_trained
    assert all(n_shards == min(3, n_saes) for n_saes, n_shards in asked)


def test_an_l0_outside_the_bracket_is_an_error():
    with pytest.raises(ValueError, match=r"target_l0 must be an L0 that bracket reaches, got 7"):
        match(target_l0=7, n_grid=2)


def test_seeds_that_miss_after_the_last_round_are_an_error():
    with pytest.raises(
        RuntimeError, match=r"target_l0 = 2\.8 must be met .* in 1 rounds, got .* 1$"
    ):
        match(tolerance=1e-9, max_rounds=1, n_grid=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_l0": 0}, "target_l0 must be in"),
        ({"tolerance": 0}, "tolerance must be in"),
        ({"n_shards": 0}, "n_shards must be at least 1, got 0"),
        ({"tolerance": math.nan}, "tolerance must be in"),
        ({"bracket": (1.0, 0.1)}, "bracket must rise"),
        ({"bracket": (0.0, 0.1)}, "bracket must be in"),
        ({"bracket": (0.1, 0.2, 0.3)}, "bracket must be two coefficients"),
        ({"seeds": []}, "seeds must be different whole numbers, at least one"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
        ({"seeds": [1, 1]}, "seeds must be different whole numbers"),
        ({"n_grid": 1}, "n_grid must be at least 2"),
        ({"max_rounds": 0}, "max_rounds must be at least 1"),
        ({"n_samples": 0}, "n_samples must be at least 1"),
    ],
)
def test_a_bad_value_is_named(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        match(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"make_cfg": standard(0.1)},
            "make_cfg must be a function from a coefficient .*, got Stand",
        ),
        ({"sample_batch": torch.zeros(64, 8)}, "sample_batch must be a function of .*, got Tensor"),
        ({"bracket": 0.1}, "bracket must be a sequence of two coefficients, got float"),
        ({"seeds": 3.5}, "seeds must be a sequence of whole numbers"),
        ({"make_cfg": lambda _: None}, "make_cfg must give a sae-lens training config, got None"),
        ({"generator": "0"}, "generator must be a torch.Generator"),
        ({"seeds": [0.5]}, "seeds must be an int"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(changes, message, unchecked):
    with pytest.raises(TypeError, match=message):
        match(**changes)


@pytest.mark.parametrize(
    "cfg",
    [
        StandardTrainingSAEConfig(l1_coefficient=0.1, **SIZE),
        JumpReLUTrainingSAEConfig(jumprelu_init_threshold=0.2, **SIZE),
        GatedTrainingSAEConfig(**SIZE),
        TopKTrainingSAEConfig(k=2, **SIZE),
    ],
    ids=lambda cfg: cfg.architecture(),
)
def test_the_sae_for_inference_has_the_outputs_of_the_one_in_training(cfg):
    torch.manual_seed(0)
    sae = get_sae_training_class(cfg.architecture())[0](cfg)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 2, 8)[:, None])
        x = WORLD.sample(50, generator())
        before = {name: value.clone() for name, value in sae.state_dict().items()}
        torch.testing.assert_close(inference_sae(sae)(x), sae(x))
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


def test_batchtopk_for_inference_fires_above_its_threshold():
    torch.manual_seed(0)
    cfg = BatchTopKTrainingSAEConfig(k=2, **SIZE)
    sae = get_sae_training_class("batchtopk")[0](cfg)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 2, 8)[:, None])
        sae.topk_threshold.fill_(0.3)
        x = WORLD.sample(50, generator())
        pre = (x @ sae.W_enc + sae.b_enc) * sae.W_dec.norm(dim=1)
        torch.testing.assert_close(inference_sae(sae).encode(x), pre * (pre > 0.3))
