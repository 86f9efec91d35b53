import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saebook import metrics
from saebook.worlds import make_orthonormal_directions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def eye(*size: int) -> torch.Tensor:
    return torch.eye(*size, dtype=torch.float64)


def degree(W_control, W_extended, seed=0, **settings):
    return metrics.hedging_degree(W_control, W_extended, generator=generator(seed), **settings)


SIZES = st.integers(2, 7)
SEEDS = st.integers(0, 10_000)


# The hedging degree


def test_hedging_degree_of_a_small_case_worked_by_hand():
    # One latent, (3, 4)/5 with hedging, gives up its second feature: δ = (0.4, −0.8, 0), and the
    # new latent takes (0, 1, 0). In three dimensions |cos| with a random line has the mean 1/2.
    W_control = torch.tensor([[3.0, 4.0, 0.0]])
    W_extended = torch.tensor([[2.0, 0.0, 0.0], [0.0, 7.0, 0.0]])
    found = degree(W_control, W_extended, n_subspaces=2000)
    delta_norm = math.sqrt(0.8)
    assert found.projection == pytest.approx(0.8)
    assert found.delta_norm == pytest.approx(delta_norm)
    assert found.n_new == 1
    assert found.null.shape == (2000,)
    standard_error = found.null_std / math.sqrt(2000)
    assert standard_error == pytest.approx(delta_norm / math.sqrt(12 * 2000), rel=0.05)
    assert abs(found.null_mean - delta_norm / 2) < 4 * standard_error
    expected = (0.8 - found.null_mean) / (1 - found.null_mean)
    assert found.degree == pytest.approx(expected)
    assert 0.6 < found.degree < 0.66


def source_degree(W_control, W_extended, generator, n_subspaces):
    """The equations, with least squares for the projection."""
    control, extended = (
        W.numpy() / np.linalg.norm(W.numpy(), axis=1)[:, None] for W in (W_control, W_extended)
    )
    new = extended[len(control) :]
    delta = extended[: len(control)] - control

    def projected(rows):
        coefficients = np.linalg.lstsq(rows.T, delta.T, rcond=None)[0]
        return np.mean([np.linalg.norm(column) for column in (rows.T @ coefficients).T])

    randoms = [
        torch.randn(new.shape, generator=generator, dtype=torch.float64) for _ in range(n_subspaces)
    ]
    p = projected(new)
    p_rand = np.mean([projected(rows.numpy()) for rows in randoms])
    return p, p_rand, max(0.0, (p - p_rand) / (1 - p_rand))


@given(d_sae=st.integers(1, 5), n_new=st.integers(1, 5), seed=SEEDS)
def test_hedging_degree_agrees_with_its_definition_by_least_squares(d_sae, n_new, seed):
    W_control, new = randn(d_sae, 6, seed=seed), randn(n_new, 6, seed=seed + 1)
    moved = W_control + 0.3 * randn(d_sae, n_new, seed=seed + 2) @ new
    W_extended = torch.cat([moved, new])
    found = degree(W_control, W_extended, seed, n_subspaces=5)
    p, p_rand, h = source_degree(W_control, W_extended, generator(seed), 5)
    assert found.projection == pytest.approx(p)
    assert found.null_mean == pytest.approx(p_rand)
    assert found.degree == pytest.approx(h)


@given(d_sae=st.integers(1, 5), n_new=st.integers(1, 5), seed=SEEDS)
def test_a_rotation_and_the_order_and_length_of_new_latents_change_nothing(d_sae, n_new, seed):
    W_control = randn(d_sae, 6, seed=seed)
    old, new = W_control + 0.5 * randn(d_sae, 6, seed=seed + 1), randn(n_new, 6, seed=seed + 2)
    base = degree(W_control, torch.cat([old, new]), n_subspaces=2)
    rotation = make_orthonormal_directions(6, 6, generator=generator(seed), dtype=torch.float64)
    turned = degree(W_control @ rotation, torch.cat([old, new]) @ rotation, n_subspaces=2)
    assert turned.projection == pytest.approx(base.projection)
    assert turned.delta_norm == pytest.approx(base.delta_norm)
    order = torch.randperm(n_new, generator=generator(seed))
    lengths = 1 + randn(n_new, 1, seed=seed).abs()
    shuffled = degree(W_control, torch.cat([old, (lengths * new)[order]]), n_subspaces=2)
    assert shuffled.projection == pytest.approx(base.projection)
    assert shuffled.degree == pytest.approx(base.degree)


def test_changes_of_norm_one_inside_the_span_of_the_new_latents_have_degree_one():
    # Each old latent turns by 60° in the plane of two new ones, so that ‖δ‖ = 1.
    angles = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    plane = [torch.stack([a.cos(), a.sin()], dim=1) for a in (angles, angles + math.pi / 3)]
    control, old = (torch.nn.functional.pad(rows, (0, 38)) for rows in plane)
    found = degree(control, torch.cat([old, eye(2, 40)]))
    assert found.projection == pytest.approx(1)
    assert found.delta_norm == pytest.approx(1)
    assert found.degree == pytest.approx(1)


def test_changes_orthogonal_to_the_new_latents_have_degree_zero():
    W_extended = torch.cat([eye(2, 8) + 0.5 * eye(8)[2:4], eye(8)[6:]])
    found = degree(eye(2, 8), W_extended)
    assert found.projection == pytest.approx(0, abs=1e-12)
    assert found.null_mean > 0.1
    assert found.degree == 0


def test_latents_that_did_not_change_have_degree_zero():
    found = degree(eye(4)[:2], 3 * eye(4)[:3])
    assert (found.degree, found.projection, found.delta_norm, found.null_mean) == (0, 0, 0, 0)


def test_random_changes_agree_with_the_null_and_its_closed_form():
    d_in, n_new, n_trials = 100, 25, 40
    W_control = randn(60, d_in)
    W_extended = torch.cat([W_control + 0.3 * randn(60, d_in, seed=1), randn(n_new, d_in, seed=2)])
    found = degree(W_control, W_extended, n_subspaces=n_trials)
    assert abs(found.projection - found.null_mean) < 4 * found.null_std
    # E‖Pδ‖² = (n_new / d_in)·‖δ‖² exactly, its share of ‖δ‖² being Beta(n_new/2, (d_in − n_new)/2)
    # distributed. By Jensen E‖Pδ‖ is below the root, to second order by less than 1 in 4 n_new.
    closed = math.sqrt(n_new / d_in) * found.delta_norm
    below = closed / (4 * n_new)
    error = 4 * found.null_std / math.sqrt(n_trials)
    assert closed - below - error < found.null_mean < closed + error


def test_linearly_dependent_new_latents_span_no_more_than_their_rank():
    W_control = randn(3, 6)
    old, new = W_control + randn(3, 6, seed=1) / 3, randn(1, 6, seed=2)
    once = degree(W_control, torch.cat([old, new]), n_subspaces=2)
    thrice = degree(W_control, torch.cat([old, new, -new, 2 * new]), n_subspaces=2)
    assert thrice.projection == pytest.approx(once.projection)
    assert thrice.n_new == 3


def test_the_null_is_that_of_its_generator_and_needs_no_gradient():
    W_control = torch.nn.Parameter(randn(3, 6))
    W_extended = torch.cat([W_control + randn(3, 6, seed=1) / 3, randn(2, 6, seed=2)])
    one, same, other = (degree(W_control, W_extended, seed).null for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not one.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"W_control": torch.ones(4)}, r"W_control must have shape \(d_sae, d_in\), got \(4,\)"),
        (
            {"W_extended": torch.ones(3, 5)},
            r"W_extended must have shape \(d_sae \+ n_new, 4\), got \(3, 5\)",
        ),
        (
            {"W_extended": torch.ones(2, 4)},
            "W_extended must have more rows than W_control, got 0 more",
        ),
        ({"W_extended": torch.ones(1, 4)}, "more rows than W_control, got -1 more"),
        (
            {"W_extended": torch.ones(6, 4)},
            "W_extended must have fewer than d_in = 4 new rows, got 4: random subspaces",
        ),
        ({"W_control": torch.zeros(2, 4)}, r"W_control must have no zero rows, got one at \(0,\)"),
        ({"W_extended": torch.zeros(3, 4)}, "W_extended must have no zero rows"),
        ({"W_control": torch.full((2, 4), math.nan)}, "W_control must be finite, got nan"),
        ({"W_extended": torch.full((3, 4), math.inf)}, "W_extended must be finite, got inf"),
        ({"W_control": torch.ones(0, 4)}, r"W_control must have shape \(…, d_sae, d_in\), got"),
        ({"n_subspaces": 1}, "n_subspaces must be at least 2, got 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_hedging_degree_refuses_bad_input(arguments, message):
    defaults = {"W_control": torch.ones(2, 4), "W_extended": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=message):
        metrics.hedging_degree(generator=generator(), **(defaults | arguments))


@pytest.mark.usefixtures("unchecked")
def test_hedging_degree_wants_its_randomness_passed_in():
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        metrics.hedging_degree(eye(2, 4), eye(3, 4), generator=None)


def test_no_degree_of_latents_that_turned_round():
    with pytest.raises(ValueError, match=r"p_rand must be below 1 for a degree, got 1\.\d+: the"):
        degree(eye(2, 4), torch.cat([-eye(2, 4), eye(4)[1:]]))


# Feature coordinates


def test_components_in_superposition_are_coordinates_where_cosines_are_not():
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    W = torch.tensor([[1.0, 0.0], [1.2, 1.6], [-0.2, 0.8]])  # f₀, 2 f₁ and f₁ − 0.8 f₀
    expected = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-0.8, 1.0]])
    torch.testing.assert_close(metrics.feature_components(W, directions), expected)
    torch.testing.assert_close(metrics.feature_cosines(W, directions)[0], torch.tensor([1.0, 0.6]))


def test_components_leave_out_what_no_direction_holds():
    W = torch.tensor([[3.0, 4.0, 12.0]])
    components = metrics.feature_components(W, torch.eye(3)[:2])
    torch.testing.assert_close(components, torch.tensor([[3.0, 4.0]]))
    normalised = metrics.feature_components(W, torch.eye(3)[:2], normalise=True)
    torch.testing.assert_close(normalised, torch.tensor([[0.6, 0.8]]))


@given(n_saes=st.integers(1, 3), d_sae=SIZES, n_features=SIZES, seed=SEEDS)
def test_components_of_known_mixtures_are_found_again(n_saes, d_sae, n_features, seed):
    directions = randn(n_features, 9, seed=seed)
    mixture = randn(n_saes, d_sae, n_features, seed=seed + 1)
    found = metrics.feature_components(mixture @ directions, directions)
    torch.testing.assert_close(found, mixture)
    normalised = metrics.feature_components(mixture @ directions, directions, normalise=True)
    torch.testing.assert_close(normalised, mixture / mixture.norm(dim=-1, keepdim=True))


@given(d_sae=SIZES, n_features=SIZES, seed=SEEDS)
def test_components_on_orthonormal_directions_are_dot_products(d_sae, n_features, seed):
    W_enc = randn(9, d_sae, seed=seed)
    directions = make_orthonormal_directions(
        n_features, 9, generator=generator(seed), dtype=torch.float64
    )
    found = metrics.feature_components(W_enc.mT, directions)
    torch.testing.assert_close(found, (directions @ W_enc).mT)


@given(d_sae=SIZES, n_features=SIZES, seed=SEEDS)
def test_components_agree_with_least_squares(d_sae, n_features, seed):
    W, directions = randn(d_sae, 9, seed=seed), randn(n_features, 9, seed=seed + 1)
    expected = np.linalg.lstsq(directions.numpy().T, W.numpy().T, rcond=None)[0].T
    found = metrics.feature_components(W, directions)
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": torch.ones(3, 2)}, "independent .* got 3 of rank 1"),
        ({"directions": torch.eye(2).repeat(2, 1)}, "independent .* got 4 of rank 2"),
        ({"directions": torch.ones(2, 3)}, r"directions must have shape \(n_features, 2\), got"),
        ({"directions": torch.zeros(1, 2)}, "independent .* got 1 of rank 0"),
        ({"directions": torch.full((1, 2), math.nan)}, "directions must be finite, got nan"),
        ({"W": torch.ones(2)}, r"W must have shape \(…, d_sae, d_in\), got \(2,\)"),
        ({"W": torch.full((1, 2), math.inf)}, "W must be finite, got inf"),
        (
            {"W": torch.tensor([[1.0, 0], [0, 1]]), "directions": torch.eye(1, 2)},
            r"the components of W must have no zero rows, got one at \(1,\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_feature_components_refuses_bad_input(arguments, message):
    defaults = {"W": torch.ones(3, 2), "directions": torch.eye(2), "normalise": True}
    with pytest.raises(ValueError, match=message):
        metrics.feature_components(**(defaults | arguments))
