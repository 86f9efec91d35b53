"""The estimate of the true L0: on a world where it is known, and its tables worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

from calls import called
from saebook.metrics import code_length
from saebook.training import TrainingOptions
from saebook.true_l0 import TrueL0Estimate, estimate_true_l0, sae_statistics, summarise_seeds
from saebook.worlds import (
    make_independent_world,
    make_orthonormal_directions,
    make_superposed_directions,
)

N_FEATURES, D_IN = 12, 16


def make_world(p: float):
    """Twelve features that fire independently; the true L0 is 12 p."""
    directions = make_orthonormal_directions(
        N_FEATURES, D_IN, generator=torch.Generator().manual_seed(0)
    )
    probabilities = torch.full((N_FEATURES,), p)
    return make_independent_world(probabilities, directions, magnitude_std=0.15)


def estimate(p: float = 0.25, **changes) -> TrueL0Estimate:
    """An estimate by three seeds at six k; arguments can be changed one by one."""
    settings = {
        "sample_batch": make_world(p).sample,
        "d_in": D_IN,
        "d_sae": N_FEATURES,
        "ks": [1, 2, 3, 4, 5, 6],
        "seeds": 3,
        "steps": 300,
        "batch_size": 128,
        "lr": 1e-2,
        "n_samples": 500,
        "generator": torch.Generator().manual_seed(1),
    }
    settings.update(changes)
    return called(estimate_true_l0, settings.pop("sample_batch"), **settings)


def short(**changes) -> TrueL0Estimate:
    """An estimate of a few steps, for all but the estimate itself."""
    return estimate(**{"ks": [1, 2.5], "seeds": [4, 7], "steps": 4, "batch_size": 16} | changes)


@pytest.mark.parametrize("true_l0", [2, 3, 4])
def test_the_estimate_is_within_one_of_the_true_l0(true_l0):
    found = estimate(true_l0 / N_FEATURES)
    assert make_world(true_l0 / N_FEATURES).true_l0 == pytest.approx(true_l0)
    assert abs(found.value - true_l0) <= 1
    assert found.verdict == "found"
    assert found.value == found.by_k["code_length"].idxmin()
    low, high = found.interval
    assert low < found.value < high
    assert found.by_k["c_dec"].min() < 0.5 * found.by_k["c_dec"].max()


def test_the_sweep_has_one_row_a_k_and_seed_in_the_order_of_the_saes():
    found = short()
    assert list(found.sweep.columns) == ["k", "seed", "mse", "code_length", "c_dec", "s_n"]
    assert found.sweep["k"].tolist() == [1, 1, 2.5, 2.5]
    assert found.sweep["seed"].tolist() == [4, 7, 4, 7]
    assert [sae.cfg.k for sae in found.saes] == [1, 1, 2.5, 2.5]
    assert list(found.by_k.index) == [1, 2.5]
    assert list(found.by_k.columns) == ["mse", "code_length", "c_dec", "s_n"]
    assert found.n == N_FEATURES // 2


def test_the_cosines_of_the_sweep_are_those_of_a_loop_over_pairs_of_latents():
    found = short()
    for c_dec, sae in zip(found.sweep["c_dec"], found.saes, strict=True):
        rows = sae.W_dec.detach().double()
        cosines = [
            abs(float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm())))
            for i in range(N_FEATURES)
            for j in range(i)
        ]
        assert c_dec == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


def test_errors_and_projections_of_the_sweep_are_those_of_a_loop_over_the_sample():
    world, stream = make_world(0.25), torch.Generator().manual_seed(1)
    found = short(n=2)
    for size in [16, 4096, 16, 4096, 16, 16, 64]:  # three rounds, two looks, half a step of polish
        world.sample(size, stream)
    x = world.sample(500, stream).double()
    for row, sae in zip(found.sweep.itertuples(), found.saes, strict=True):
        W_enc, b_enc, W_dec, b_dec = (
            getattr(sae, name).detach().double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        )
        norms = W_dec.square().sum(1).sqrt()
        weighted = ((x - b_dec) @ W_enc + b_enc).clamp(min=0) * norms
        kept = weighted >= weighted.flatten().sort(descending=True)[0][int(row.k * 500) - 1]
        errors = [
            float(((weighted[i] * kept[i] / norms) @ W_dec + b_dec - x[i]).square().sum())
            for i in range(500)
        ]
        assert row.mse == pytest.approx(sum(errors) / 500, rel=1e-4)
        projections = sorted((float(d @ (row - b_dec)) for d in W_dec for row in x), reverse=True)
        assert row.s_n == pytest.approx(projections[2 * 500], rel=1e-4)


def test_a_number_of_seeds_counts_from_zero():
    assert short(seeds=2).sweep["seed"].tolist() == [0, 1, 0, 1]
    pd.testing.assert_frame_equal(short(seeds=2).sweep, short(seeds=[0, 1]).sweep)


def test_equal_generators_give_equal_sweeps_and_others_do_not():
    torch.manual_seed(5)
    first = short(generator=torch.Generator().manual_seed(3)).sweep
    torch.manual_seed(6)
    pd.testing.assert_frame_equal(short(generator=torch.Generator().manual_seed(3)).sweep, first)
    other = short(generator=torch.Generator().manual_seed(4)).sweep
    assert not (other["c_dec"] == first["c_dec"]).any()


def test_statistics_of_an_sae_worked_out_by_hand():
    # Two latents, each reading and writing one axis, so their cosine is 0. Of the activations 2
    # and 1 of two inputs, k = 0.5 keeps one, which leaves the squared error 1 to the other input.
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=0.5, d_in=2, d_sae=2))
    for weight in (sae.W_enc, sae.W_dec):
        weight.data.copy_(torch.eye(2))
    x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    # The projections on the decoder, in descending order, are 2, 1, 0, 0; s_n is entry n · 2.
    latent_acts = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    bits = code_length(x, latent_acts, latent_acts, torch.eye(2)).total
    expected = {"mse": 0.5, "code_length": bits, "c_dec": 0.0}
    assert sae_statistics(sae, x, n=0) == expected | {"s_n": 2.0}
    assert sae_statistics(sae, x, n=1) == expected | {"s_n": 0.0}


# At k = 1 seed 1 has the smaller error and cosine, but the larger projection; at k = 2 seed 1 has
# the smaller error, but seed 0 the smaller cosine and projection.
SWEEP = pd.DataFrame(
    {
        "k": [1, 1, 2, 2],
        "seed": [0, 1, 0, 1],
        "mse": [5.0, 4.0, 3.0, 2.0],
        "c_dec": [0.4, 0.3, 0.1, 0.2],
        "s_n": [0.5, 0.6, 0.7, 0.8],
    }
)


@pytest.mark.parametrize(
    ("statistic", "by_k"),
    [
        ("smallest", {"mse": [4.0, 2.0], "c_dec": [0.3, 0.1], "s_n": [0.5, 0.7]}),
        ("lowest_error", {"mse": [4.0, 2.0], "c_dec": [0.3, 0.2], "s_n": [0.6, 0.8]}),
    ],
)
def test_seeds_are_summarised_as_by_hand(statistic, by_k):
    expected = pd.DataFrame(by_k, index=pd.Index([1, 2], name="k"))
    shuffled = SWEEP.iloc[[2, 1, 3, 0]]
    pd.testing.assert_frame_equal(summarise_seeds(SWEEP, statistic), expected)
    pd.testing.assert_frame_equal(summarise_seeds(shuffled, statistic), expected)


def test_the_smallest_value_of_each_metric_is_the_default():
    pd.testing.assert_frame_equal(summarise_seeds(SWEEP), summarise_seeds(SWEEP, "smallest"))


@pytest.mark.parametrize("statistic", ["smallest", "lowest_error"])
def test_the_estimate_summarises_its_sweep_by_the_statistic_asked_for(statistic):
    found = short(statistic=statistic)
    pd.testing.assert_frame_equal(found.by_k, summarise_seeds(found.sweep, statistic))


def estimate_of(lengths: dict[float, float]) -> TrueL0Estimate:
    by_k = pd.DataFrame({"code_length": lengths.values()}, index=list(lengths))
    return TrueL0Estimate(by_k=by_k, sweep=by_k, n=0, saes=[])


@pytest.mark.parametrize(
    ("lengths", "interval"),
    [
        # 110 is the most that counts as short: half-way from 100 to 120, a fifth of 100 to 150.
        ({1: 300, 2: 120, 3: 100, 4: 150}, (2.5, 3.2)),
        ({2: 200, 4: 120, 6: 100, 10: 140}, (5, 7)),
        # A dip outside counts: there the code is short as well.
        ({1: 120, 2: 100, 3: 130, 4: 108, 5: 112}, (1.5, 4.5)),
        ({1: 103, 2: 100, 3: 200}, (0, 2.1)),
        ({1: 200, 2: 100, 3: 103}, (1.9, math.inf)),
        ({1: 100}, (0, math.inf)),
    ],
)
def test_the_interval_ends_where_the_code_is_a_tenth_longer(lengths, interval):
    assert estimate_of(lengths).interval == pytest.approx(interval)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ({1: 300, 2: 110, 3: 100, 4: 150}, ""),
        ({1: 100, 2: 200, 3: 300}, "the shortest code is at k = 1, an edge of the sweep"),
        ({1: 300, 2: 200, 3: 100}, "the shortest code is at k = 3, an edge of the sweep"),
        # From 2.5 to 6.6 are 4.1, more than 4 and than 0.6 times 3.
        ({2: 120, 3: 100, 6: 107, 7: 112}, "codes from k = 2.5 to 6.6 are about as short"),
        # The same width at a k of 10 is less than 0.6 times k.
        ({9: 120, 10: 100, 13: 107, 14: 112}, ""),
        ({1: 200, 2: 100, 3: 103}, "codes from k = 1.9 to more are about as short"),
    ],
)
def test_the_verdict_and_its_reason(lengths, reason):
    found = estimate_of(lengths)
    assert found.reason.startswith(reason)
    assert bool(found.reason) == bool(reason)
    assert found.verdict == ("cannot tell" if reason else "found")


def test_in_superposition_the_code_tells_what_the_cosines_do_not():
    """Twenty-four features in sixteen dimensions, of which 2.4 fire."""
    directions = make_superposed_directions(24, 16, generator=torch.Generator().manual_seed(0))
    world = make_independent_world(torch.full((24,), 0.1), directions, magnitude_std=0.15)
    found = estimate(
        sample_batch=world.sample,
        d_in=16,
        d_sae=24,
        ks=[1, 1.5, 2, 2.5, 3, 4, 6],
        steps=900,
        n_samples=4000,
        lr=3e-3,
        dead_feature_window=50,
    )
    assert found.verdict == "found"
    assert abs(found.value - 2.4) <= 0.5


BAD = {
    "ks must hold at least one k, got none": {"ks": []},
    "ks must be a sequence of k, got int": {"ks": 3},
    "seeds must be a sequence of whole numbers, or how many, got float": {"seeds": 2.5},
    "sample_batch must be a function of .*, got Tensor": {"sample_batch": torch.zeros(16, D_IN)},
    r"k must be at least 1 / batch_size = 0\.0625 at every step, got 0\.05": {"ks": [0.05, 1]},
    r"ks must increase, got \[3, 2\]": {"ks": [3, 2]},
    r"ks must increase, got \[2, 2\]": {"ks": [2, 2]},
    r"ks must be in \(0, 12\], got 0": {"ks": [0, 1]},
    r"ks must be in \(0, 12\], got 13": {"ks": [1, 13]},
    "ks must be a number, got 'two' of type str": {"ks": ["two"]},
    r"statistic must be one of \['lowest_error', 'smallest'\], got 'mean'": {"statistic": "mean"},
    r"n must be in \[0, 11\], got 12": {"n": 12},
    r"n must be in \[0, 11\], got -1": {"n": -1},
    "n_samples must be at least 1, got 0": {"n_samples": 0},
    "seeds must be at least 1, got 0": {"seeds": 0},
    "seeds must be at least 0, got -1": {"seeds": [0, -1]},
    "seeds must be an int, got 0.5": {"seeds": [0.5]},
    "steps must be at least 1, got 0": {"steps": 0},
    "steps must be an int, got 2.5": {"steps": 2.5},
    "generator must be a torch.Generator .*, got None": {"generator": None},
    "generator must be a torch.Generator .*, got '7'": {"generator": "7"},
    "d_in must be at least 1, got 0": {"d_in": 0},
    "d_sae must be at least 1, got 0": {"d_sae": 0},
    "batch_size must be at least 1, got 0": {"batch_size": 0},
    r"lr must be in \(0, inf\), got 0": {"lr": 0},
    "n must be an int, got 2.5": {"n": 2.5},
    "cfgs must hold at least one": {"seeds": []},
    r"sample_batch must return a tensor of shape \(16, 16\), got \(16, 15\)": {
        "sample_batch": lambda n, g: make_world(0.25).sample(n, g)[:, 1:]
    },
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_its_name_value_and_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        short(**BAD[message])


@pytest.mark.usefixtures("unchecked")
def test_the_generator_has_no_default():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'generator'"):
        estimate_true_l0(
            make_world(0.25).sample,
            TrainingOptions(steps=1, batch_size=256, lr=2e-3, dead_feature_window=100),
            d_in=D_IN,
            d_sae=N_FEATURES,
            ks=[1],
        )


def test_an_unknown_statistic_of_seeds_is_refused():
    message = r"statistic must be one of \['lowest_error', 'smallest'\], got 'median'"
    with pytest.raises(ValueError, match=message):
        summarise_seeds(SWEEP, "median")
