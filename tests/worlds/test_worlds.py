import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens.synthetic import ActivationGenerator, FeatureDictionary
from scipy.stats import multivariate_normal, norm

from saebook.worlds import (
    CopulaWorld,
    copula,
    make_correlated_world,
    make_fifty_feature_world,
    make_five_feature_world,
    make_independent_world,
    make_orthonormal_directions,
    make_random_correlation,
    make_superposed_directions,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair_correlation(rho: float) -> torch.Tensor:
    return torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)


def two_feature_world(**settings) -> CopulaWorld:
    defaults = {
        "firing_probabilities": torch.tensor([0.3, 0.6]),
        "correlation": None,
        "directions": torch.eye(2, 3),
    }
    return make_correlated_world(**(defaults | settings))


@pytest.fixture(scope="module")
def fifty() -> CopulaWorld:
    return make_fifty_feature_world(generator=generator())


@pytest.fixture(scope="module")
def fifty_acts(fifty: CopulaWorld) -> torch.Tensor:
    return fifty.sample_feature_acts(100_000, generator(1))


# Sampling


def test_the_fifty_feature_world_is_the_one_of_the_paper(fifty):
    p = fifty.firing_probabilities
    assert (fifty.n_features, fifty.d_in, fifty.directions.shape) == (50, 100, (50, 100))
    assert p[0].item() == pytest.approx(0.3881)
    assert p[-1].item() == pytest.approx(0.05)
    assert p.sum().item() == pytest.approx(10.9525)
    assert fifty.true_l0 == pytest.approx(10.9525, abs=1e-8)  # relu removes 1.3e-11 of it
    torch.testing.assert_close(fifty.directions @ fifty.directions.T, torch.eye(50))


def test_each_feature_fires_as_often_as_its_probability_says(fifty, fifty_acts):
    p = fifty.firing_probabilities
    standard_error = (p * (1 - p) / len(fifty_acts)).sqrt()
    z = ((fifty_acts > 0).double().mean(0) - p) / standard_error
    assert z.abs().max() < 4.5


def test_the_sampled_l0_agrees_with_the_true_l0(fifty, fifty_acts):
    counts = (fifty_acts > 0).double().sum(1)
    standard_error = counts.std() / math.sqrt(len(counts))
    assert abs(counts.mean() - fifty.true_l0) < 4 * standard_error


def test_magnitudes_have_the_stated_mean_and_standard_deviation(fifty_acts):
    fired = fifty_acts[fifty_acts > 0].double()
    assert abs(fired.mean() - 1) < 4 * 0.15 / math.sqrt(len(fired))
    assert abs(fired.std() - 0.15) < 4 * 0.15 / math.sqrt(2 * len(fired))


def test_true_l0_counts_out_magnitudes_that_are_clipped_to_zero():
    mean, std, p = torch.tensor([0.5, -0.2]), torch.tensor([1.0, 0.4]), torch.tensor([0.5, 0.8])
    world = two_feature_world(firing_probabilities=p, magnitude_mean=mean, magnitude_std=std)
    expected = 0.5 * norm.cdf(0.5) + 0.8 * norm.cdf(-0.5)
    assert world.true_l0 == pytest.approx(expected, rel=1e-6)
    counts = (world.sample_feature_acts(100_000, generator()) > 0).double().sum(1)
    assert abs(counts.mean() - expected) < 4 * counts.std() / math.sqrt(len(counts))


@pytest.mark.parametrize(("mean", "expected"), [(1.0, 0.9), (0.0, 0.0), (-1.0, 0.0)])
def test_true_l0_of_constant_magnitudes_counts_the_positive_ones(mean, expected):
    world = two_feature_world(magnitude_mean=mean, magnitude_std=0.0)
    assert world.true_l0 == pytest.approx(expected)
    acts = world.sample_feature_acts(100, generator())
    assert set(acts.unique().tolist()) <= {0.0, max(mean, 0.0)}


def test_features_of_probability_zero_and_one_never_and_always_fire():
    world = two_feature_world(
        firing_probabilities=torch.tensor([0.0, 1.0]), correlation=pair_correlation(0.5)
    )
    acts = world.sample_feature_acts(1000, generator())
    assert acts[:, 0].count_nonzero() == 0
    assert acts[:, 1].count_nonzero() == 1000
    assert world.true_l0 == 1.0


def test_inputs_are_activations_times_directions(fifty):
    x, acts = fifty.sample_with_feature_acts(64, generator(3))
    torch.testing.assert_close(x, acts @ fifty.directions)
    assert not x.requires_grad


def test_the_three_ways_of_sampling_agree_and_repeat_from_the_same_seed(fifty):
    x, acts = fifty.sample_with_feature_acts(32, generator(3))
    assert torch.equal(fifty.sample(32, generator=generator(3)), x)
    assert torch.equal(fifty.sample_feature_acts(32, generator(3)), acts)
    assert not torch.equal(fifty.sample(32, generator(4)), x)


def test_making_and_sampling_worlds_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    world = make_five_feature_world(generator=generator(), superposed=True)
    world.sample(10, generator())
    make_random_correlation(5, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_identity_correlation_samples_the_same_as_independence():
    independent = two_feature_world()
    identity = two_feature_world(correlation=torch.eye(2))
    same = [world.sample(50, generator()) for world in (independent, identity)]
    torch.testing.assert_close(*same)


def test_a_bias_of_the_feature_dictionary_is_added_to_the_inputs():
    feature_dict = FeatureDictionary(2, 3, bias=2.0, initializer=None, seed=0)
    world = CopulaWorld(feature_dict=feature_dict, firing_probabilities=torch.zeros(2))
    x = world.sample(4, generator())
    torch.testing.assert_close(x, feature_dict.bias.detach().expand(4, 3))


def test_firing_agrees_with_sae_lens_activation_generator(fifty, fifty_acts):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        acts = ActivationGenerator(
            50,
            fifty.firing_probabilities.float(),
            std_firing_magnitudes=0.15,
            correlation_matrix=fifty.correlation + 1e-6 * torch.eye(50),  # its Cholesky is float32
        ).sample(len(fifty_acts))
    ours, theirs = (torch.cov((a > 0).double().T) for a in (fifty_acts, acts))
    p = fifty.joint_firing_probabilities()
    standard_error = (2 * p / len(acts)).sqrt()  # an upper bound for a pair's difference
    assert ((ours - theirs).abs() / standard_error).max() < 4.5


@pytest.mark.parametrize("correlated", [True, False])
def test_a_world_moves_to_float64_with_the_same_truth(correlated):
    world = two_feature_world(
        correlation=pair_correlation(-0.4) if correlated else None, magnitude_std=0.1
    )
    double = world.to(dtype=torch.float64)
    assert double.sample(5, generator()).dtype == double.directions.dtype == torch.float64
    assert world.sample(5, generator()).dtype == torch.float32
    assert double.true_l0 == pytest.approx(world.true_l0, rel=1e-6)
    torch.testing.assert_close(double.firing_correlation(), world.firing_correlation())


# Support


def test_the_support_of_independent_features_is_every_combination_with_its_probability():
    world = two_feature_world(magnitude_mean=torch.tensor([1.0, 2.0]))
    acts, p = world.support()
    assert acts.dtype == p.dtype == torch.float64
    assert acts.tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]
    assert p.tolist() == pytest.approx([0.7 * 0.4, 0.7 * 0.6, 0.3 * 0.4, 0.3 * 0.6])


def test_states_that_never_occur_or_cannot_be_told_apart_are_not_in_the_support():
    world = two_feature_world(
        firing_probabilities=torch.tensor([1.0, 0.25]), magnitude_mean=torch.tensor([1.0, -1.0])
    )
    acts, p = world.support()
    assert (acts.tolist(), p.tolist()) == ([[1, 0]], [1])


def test_an_identity_correlation_has_the_support_of_independence():
    supports = [two_feature_world(correlation=c).support() for c in (None, torch.eye(2))]
    torch.testing.assert_close(*supports)


def test_the_support_agrees_with_sampling_and_with_the_true_l0():
    p = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    world = make_independent_world(p, torch.eye(5))
    acts, probabilities = world.support()
    assert len(acts) == 32
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    assert (probabilities @ acts).sum().item() == pytest.approx(world.true_l0)
    drawn = world.sample_feature_acts(50_000, generator()).double()
    code = 2.0 ** torch.arange(5, dtype=torch.float64)
    shares = torch.bincount((drawn @ code).long(), minlength=32) / len(drawn)
    expected = torch.zeros(32, dtype=torch.float64).index_put(
        ((acts @ code).long(),), probabilities
    )
    standard_error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((shares - expected).abs() / standard_error).max() < 4.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"magnitude_std": torch.tensor([0.0, 0.5])},
            r"magnitude_std must be 0 .* got 0\.5 \(contin",
        ),
        ({"correlation": pair_correlation(0.2)}, r"correlation must be None or diagonal"),
    ],
)
def test_a_world_that_is_not_finite_has_no_support(settings, message):
    with pytest.raises(ValueError, match=message):
        two_feature_world(**settings).support()


def test_more_than_sixteen_features_have_too_many_states():
    sixteen = make_independent_world(torch.full((16,), 0.5), torch.eye(16))
    assert len(sixteen.support()[1]) == 65_536
    with pytest.raises(
        ValueError, match=r"n_features must be at most 16 \(65,536 states\), got 17"
    ):
        make_independent_world(torch.full((17,), 0.5), torch.eye(17)).support()


@pytest.mark.parametrize("correlated", [True, False])
def test_draws_are_two_blocks_of_normals_thresholds_first_and_magnitudes_second(correlated):
    correlation = pair_correlation(0.6) if correlated else None
    world = two_feature_world(correlation=correlation, magnitude_std=0.15)
    thresholds, magnitudes = torch.randn((2, 7, 2), generator=generator())
    if correlated:
        second = 0.6 * thresholds[:, 0] + 0.8 * thresholds[:, 1]
        thresholds = torch.stack([thresholds[:, 0], second], dim=1)
    fires = thresholds > torch.tensor(norm.isf([0.3, 0.6])).float()
    expected = (1 + 0.15 * magnitudes).relu() * fires
    torch.testing.assert_close(world.sample_feature_acts(7, generator()), expected)


# Correlated firing


@pytest.mark.parametrize("rho", [-0.95, -0.4, 0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize(("p", "q"), [(0.4, 0.4), (0.05, 0.7), (0.5, 0.01)])
def test_joint_firing_probability_is_the_bivariate_normal_cdf(rho, p, q):
    joint = copula.joint_firing_probabilities(
        torch.tensor([p, q], dtype=torch.float64), pair_correlation(rho)
    )
    oracle = multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf(norm.ppf([p, q]))
    assert joint[0, 1].item() == pytest.approx(oracle, abs=1e-7)
    assert joint[0, 1] == joint[1, 0]
    assert joint.diagonal().tolist() == [p, q]


def test_joint_firing_probability_of_tied_features_is_the_smaller_one():
    p = torch.tensor([0.3, 0.5], dtype=torch.float64)
    together = copula.joint_firing_probabilities(p, pair_correlation(1.0))[0, 1]
    apart = copula.joint_firing_probabilities(p, pair_correlation(-1.0))[0, 1]
    assert together.item() == pytest.approx(0.3, abs=1e-6)
    assert apart.item() == pytest.approx(0.0, abs=1e-6)


def test_at_even_odds_the_firing_correlation_is_the_arcsine_law():
    p = torch.full((2,), 0.5, dtype=torch.float64)
    phi = copula.firing_correlation(p, pair_correlation(0.6))[0, 1]
    assert phi.item() == pytest.approx(2 / math.pi * math.asin(0.6), abs=1e-12)


@given(
    rho=st.floats(-0.99, 0.99),
    p=st.floats(0.001, 0.999),
    q=st.floats(0.001, 0.999),
)
def test_joint_firing_probability_keeps_the_frechet_bounds_and_the_sign(rho, p, q):
    marginals = torch.tensor([p, q], dtype=torch.float64)
    joint = copula.joint_firing_probabilities(marginals, pair_correlation(rho))[0, 1].item()
    assert max(0.0, p + q - 1) - 1e-9 <= joint <= min(p, q) + 1e-9
    assert (joint - p * q) * rho >= -1e-12


def test_sampled_firing_correlation_agrees_with_the_exact_one(fifty, fifty_acts):
    fires = (fifty_acts > 0).double()
    n, joint = len(fires), fifty.joint_firing_probabilities()
    standard_error = (joint * (1 - joint) / n).sqrt()
    assert ((fires.T @ fires / n - joint).abs() / standard_error).max() < 4.5
    off_by = (torch.corrcoef(fires.T) - fifty.firing_correlation()).abs()
    assert off_by.max() < 5 / math.sqrt(n)


def test_firing_correlation_is_weaker_than_the_copulas_with_the_same_sign(fifty):
    upper = torch.triu_indices(50, 50, offset=1).unbind()
    phi, rho = fifty.firing_correlation()[upper], fifty.correlation[upper]
    assert (phi.abs() < rho.abs()).all()
    assert (phi * rho > 0).all()
    torch.testing.assert_close(
        fifty.firing_correlation().diagonal(), torch.ones(50, dtype=torch.float64)
    )


def test_independent_features_have_no_firing_correlation():
    torch.testing.assert_close(
        two_feature_world().firing_correlation(), torch.eye(2, dtype=torch.float64)
    )


def test_a_feature_that_never_fires_has_no_firing_correlation():
    phi = copula.firing_correlation(torch.tensor([0.0, 0.5]), pair_correlation(0.5))
    assert phi[0, 1].isnan()
    assert phi.diagonal().tolist() == [1.0, 1.0]


@given(seed=st.integers(0, 10_000), size=st.integers(1, 12))
def test_the_factor_reproduces_its_correlation(seed, size):
    correlation = make_random_correlation(size, seed=seed)
    factor = copula.copula_factor(correlation)
    torch.testing.assert_close(factor @ factor.T, correlation, atol=2e-6, rtol=0)
    assert torch.equal(factor, factor.tril())


def test_the_factor_of_a_matrix_with_rounding_errors_keeps_firing_probabilities_exact():
    factor = copula.copula_factor(pair_correlation(1 + 5e-7))  # eigenvalue −5e-7
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(factor.norm(dim=1), ones, atol=1e-14, rtol=0)


def test_a_singular_correlation_ties_features_together():
    world = two_feature_world(
        firing_probabilities=torch.full((2,), 0.4), correlation=pair_correlation(1.0)
    )
    fires = world.sample_feature_acts(2000, generator()) > 0
    assert (fires[:, 0] != fires[:, 1]).float().mean() < 0.002


# The random correlation matrix


def test_the_random_correlation_is_the_papers_own_matrix():
    # From a separate run, in float32, of the steps of the paper's public code.
    correlation = make_random_correlation(50, seed=42)
    expected = torch.tensor([-0.196769, 0.186252, 0.201200, 0.229420, -0.030203]).double()
    torch.testing.assert_close(correlation[0, 1:6], expected, atol=2e-6, rtol=0)


@given(seed=st.integers(0, 2**31), size=st.integers(2, 20))
def test_the_random_correlation_is_a_correlation_matrix(seed, size):
    correlation = make_random_correlation(size, seed=seed)
    copula.check_correlation("correlation", correlation, size)
    assert torch.linalg.eigvalsh(correlation).min() > 0
    assert torch.equal(correlation, make_random_correlation(size, seed=seed))


def test_shares_and_strengths_hold_exactly_where_nothing_is_clipped():
    correlation = make_random_correlation(30, seed=0, strength_range=(0.01, 0.02))
    values = correlation[torch.triu_indices(30, 30, offset=1).unbind()]
    linked = values[values.abs() > 1e-9]
    n_pairs = 30 * 29 // 2
    assert len(linked) == n_pairs - int(n_pairs * 0.3)
    assert (linked > 0).sum() == len(linked) // 2
    assert linked.abs().min() >= 0.01
    assert linked.abs().max() <= 0.02


def test_two_features_are_correlated_within_the_strength_range():
    strength = make_random_correlation(2, seed=3, correlated_share=1.0, positive_share=0.0)[0, 1]
    assert -0.9 <= strength <= -0.3


# The five-feature world


@pytest.mark.parametrize("correlation", [-0.5, -0.4, 0.0, 0.3, 0.5])
def test_the_five_feature_world_has_true_l0_two_at_every_correlation(correlation):
    world = make_five_feature_world(generator=generator(), correlation=correlation)
    assert world.true_l0 == pytest.approx(2)
    assert world.correlation[0].tolist() == [1.0] + 4 * [correlation]
    assert torch.equal(world.correlation[1:, 1:], torch.eye(4, dtype=torch.float64))
    counts = (world.sample_feature_acts(20_000, generator(1)) > 0).double().sum(1)
    assert abs(counts.mean() - 2) < 4 * counts.std() / math.sqrt(len(counts))


def test_the_five_feature_world_takes_a_sign_for_each_pair():
    world = make_five_feature_world(generator=generator(), correlation=0.4, signs=(1, 1, -1, -1))
    assert world.correlation[0].tolist() == [1.0, 0.4, 0.4, -0.4, -0.4]
    assert world.firing_correlation()[0].sign().tolist() == [1, 1, 1, -1, -1]


def test_directions_of_the_five_feature_world_are_orthonormal_unless_superposed():
    def cosines(superposed):
        d = make_five_feature_world(generator=generator(), superposed=superposed).directions
        return d @ d.T

    torch.testing.assert_close(cosines(False), torch.eye(5))
    assert (cosines(True) - torch.eye(5)).abs().max() > 0.05
    torch.testing.assert_close(cosines(True).diagonal(), torch.ones(5))


# Directions


@given(n_features=st.integers(1, 8), extra=st.integers(0, 5), seed=st.integers(0, 1000))
def test_orthonormal_directions_are_orthonormal(n_features, extra, seed):
    directions = make_orthonormal_directions(
        n_features, n_features + extra, generator=generator(seed)
    )
    torch.testing.assert_close(
        directions @ directions.T, torch.eye(n_features), atol=1e-6, rtol=1e-6
    )


def test_orthonormal_directions_have_no_preferred_sign():
    firsts = [make_orthonormal_directions(1, 2, generator=generator(s))[0, 0] for s in range(200)]
    positive = torch.stack(firsts).sign().sum().item()
    assert abs(positive) < 4 * math.sqrt(200)


def test_repulsion_lowers_the_cosines_of_superposed_directions():
    def overlap(steps):
        d = make_superposed_directions(12, 6, generator=generator(), n_repulsion_steps=steps)
        torch.testing.assert_close(d.norm(dim=1), torch.ones(12))
        return (d @ d.T - torch.eye(12)).square().sum().item()

    assert overlap(0) > overlap(5) > overlap(100)
    assert overlap(200) >= 12 * (12 / 6 - 1) - 1e-3  # the Welch bound


def test_superposed_directions_can_be_made_where_gradients_are_off():
    with torch.no_grad():
        d = make_superposed_directions(3, 2, generator=generator(), n_repulsion_steps=2)
    assert not d.requires_grad


def test_directions_and_worlds_come_in_the_wanted_type():
    world = make_fifty_feature_world(generator=generator(), dtype=torch.float64)
    assert world.sample(2, generator()).dtype == torch.float64
    eye = torch.eye(50, dtype=torch.float64)
    torch.testing.assert_close(world.directions @ world.directions.T, eye)


# Errors name the argument, its value and what was expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"firing_probabilities": torch.tensor([0.3, 1.2])}, r"firing_prob.*\[0, 1\].*1.2 at.*1"),
        ({"firing_probabilities": torch.tensor([-0.1, 0.2])}, r"firing_probabilities.*-0.1 at"),
        ({"firing_probabilities": torch.tensor([0.3, math.nan])}, r"firing_prob.*nan at"),
        ({"correlation": pair_correlation(1.2)}, r"correlation.*smallest eigenvalue of -0.2"),
        ({"correlation": pair_correlation(math.nan)}, r"correlation must be finite, got nan"),
        (
            {"correlation": torch.tensor([[1.0, 0.2], [0.3, 1.0]])},
            r"correlation must be symmetric.*0.1",
        ),
        ({"correlation": 2 * torch.eye(2)}, r"correlation must have ones on its diagonal, got 2"),
        ({"directions": torch.ones(2, 3)}, r"directions.*norm 1, got norm 1.73"),
        ({"directions": torch.full((2, 3), math.inf)}, r"directions must be finite, got inf"),
        ({"magnitude_std": -0.1}, r"magnitude_std.*\[0, inf\].*-0.1"),
        ({"magnitude_std": torch.tensor([0.1, -0.5])}, r"magnitude_std.*-0.5"),
        ({"magnitude_mean": math.nan}, r"magnitude_mean.*nan"),
        ({"magnitude_mean": torch.tensor([1.0, math.inf])}, r"magnitude_mean.*finite, got inf"),
    ],
)
def test_a_world_refuses_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        two_feature_world(**settings)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"firing_probabilities": torch.full((3,), 0.1)}, r"firing_prob.*shape \(2\), got \(3,\)"),
        ({"correlation": torch.eye(3)}, r"correlation must have shape \(2, 2\), got \(3, 3\)"),
        ({"correlation": torch.eye(2, 3)}, r"correlation must have shape \(2, 2\), got \(2, 3\)"),
        ({"directions": torch.ones(3)}, r"directions must have shape \(n_features, d_in\)"),
        ({"magnitude_std": torch.ones(3)}, r"magnitude_std must have shape \(2\), got \(3,\)"),
    ],
)
def test_a_world_refuses_wrong_shapes(settings, message):
    defaults = {"firing_probabilities": torch.full((2,), 0.2), "correlation": None}
    with pytest.raises(ValueError, match=message):
        make_correlated_world(**(defaults | {"directions": torch.eye(2)} | settings))


@pytest.mark.usefixtures("unchecked")
def test_a_world_refuses_values_of_the_wrong_type():
    p, directions = torch.full((2,), 0.2), torch.eye(2)
    with pytest.raises(TypeError, match="feature_dict must be FeatureDictionary"):
        CopulaWorld(feature_dict=directions, firing_probabilities=p)
    with pytest.raises(TypeError, match=r"firing_probabilities must be a torch.Tensor, got list"):
        make_independent_world([0.2, 0.2], directions)
    with pytest.raises(TypeError, match=r"firing_probabilities must hold floating.*int64"):
        make_independent_world(torch.ones(2, dtype=torch.int64), directions)
    with pytest.raises(TypeError, match="magnitude_std must be a number, got 'big'"):
        make_independent_world(p, directions, magnitude_std="big")


@pytest.mark.parametrize("n", [0, -3])
def test_sampling_refuses_a_number_of_rows_below_one(n):
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        two_feature_world().sample(n, generator())


@pytest.mark.usefixtures("unchecked")
def test_sampling_requires_a_generator():
    world = two_feature_world()
    with pytest.raises(TypeError, match="generator"):
        world.sample(3)
    for wrong in (None, 4.2):
        with pytest.raises(TypeError, match=rf"generator must be a torch.Generator .* got {wrong}"):
            world.sample(3, wrong)
    with pytest.raises(TypeError, match=r"n must be an int, got 2\.0"):
        world.sample(2.0, generator())


def test_a_frozen_world_cannot_be_changed():
    with pytest.raises(AttributeError):
        two_feature_world().magnitude_std = 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"correlation": 0.6}, r"correlation must be in \[-0.5, 0.5\], got 0.6"),
        ({"correlation": math.nan}, r"correlation.*got nan"),
        ({"signs": (1, 1, 1)}, r"signs must be four of \+1 and -1, got \(1, 1, 1\)"),
        ({"signs": (1, 1, 1, 0)}, r"signs must be four .* got \(1, 1, 1, 0\)"),
        ({"n_repulsion_steps": -1, "superposed": True}, r"n_repulsion_steps.*at least 0, got -1"),
    ],
)
def test_the_five_feature_world_refuses_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_five_feature_world(generator=generator(), **settings)


def test_direction_makers_refuse_impossible_sizes():
    with pytest.raises(ValueError, match="n_features must be at most d_in = 3, got 4"):
        make_orthonormal_directions(4, 3, generator=generator())
    with pytest.raises(ValueError, match="n_features must be at least 1, got 0"):
        make_superposed_directions(0, 3, generator=generator())
    with pytest.raises(ValueError, match="d_in must be at least 1, got 0"):
        make_superposed_directions(3, 0, generator=generator())
    with pytest.raises(ValueError, match="learning_rate"):
        make_superposed_directions(3, 2, generator=generator(), learning_rate=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"correlated_share": 1.5}, r"correlated_share must be in \[0, 1\], got 1.5"),
        ({"positive_share": -0.5}, r"positive_share must be in \[0, 1\], got -0.5"),
        ({"strength_range": (0.5, 0.2)}, r"strength_range\[1\] must be in \[0.5, 1\], got 0.2"),
        ({"strength_range": (-0.5, 0.2)}, r"strength_range\[0\] must be in \[0, 1\], got -0.5"),
        ({"min_eigenvalue": 0.0}, r"min_eigenvalue must be in \(0, 1\], got 0.0"),
        ({"seed": -1}, r"seed must be at least 0, got -1"),
    ],
)
def test_the_random_correlation_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        make_random_correlation(4, **({"seed": 0} | settings))


@pytest.mark.usefixtures("unchecked")
def test_arrays_of_other_libraries_are_refused_by_name():
    with pytest.raises(
        TypeError, match=r"firing_probabilities must be a torch.Tensor, got ndarray"
    ):
        copula.joint_firing_probabilities(np.full(2, 0.1), None)
