import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.synthetic import mean_correlation_coefficient
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import r2_score

from saebook import metrics
from saebook.metrics.true_dictionary import keep_batch_topk
from saebook.worlds import make_fifty_feature_world, make_orthonormal_directions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


SIZES = st.integers(2, 7)
SEEDS = st.integers(0, 10_000)


# The n-th decoder projection


def test_nth_decoder_projection_of_a_small_case_worked_by_hand():
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b_dec = torch.tensor([1.0, 0.0])
    x = torch.tensor([[1.0, 3.0], [4.0, -1.0]])  # z = [[0, 6], [3, -2]], sorted 6, 3, 0, -2
    assert metrics.nth_decoder_projection(W_dec, b_dec, x, 0).item() == 6
    assert metrics.nth_decoder_projection(W_dec, b_dec, x, 1).item() == 0
    assert metrics.nth_decoder_projection(W_dec, b_dec, x, [1, 0]).tolist() == [0, 6]


@given(n_saes=st.integers(1, 3), d_sae=SIZES, n_samples=st.integers(1, 9), seed=SEEDS)
def test_nth_decoder_projection_agrees_with_a_full_sort(n_saes, d_sae, n_samples, seed):
    W_dec, b_dec = randn(n_saes, d_sae, 3, seed=seed), randn(n_saes, 3, seed=seed + 1)
    x = randn(n_samples, 3, seed=seed + 2)
    found = metrics.nth_decoder_projection(W_dec, b_dec, x, range(d_sae))
    for W, b, s in zip(W_dec, b_dec, found, strict=True):
        z = ((x - b) @ W.T).flatten().sort(descending=True).values
        torch.testing.assert_close(s, z[::n_samples])


def test_nth_decoder_projection_keeps_the_leading_axes():
    W_dec, b_dec, x = randn(2, 3, 4, 5), randn(2, 3, 5), randn(6, 5)
    assert metrics.nth_decoder_projection(W_dec, b_dec, x, 2).shape == (2, 3)
    every = metrics.nth_decoder_projection(W_dec, b_dec, x, (1, 2, 3))
    assert every.shape == (2, 3, 3)
    one = metrics.nth_decoder_projection(W_dec[1, 2], b_dec[1, 2], x, 3)
    assert one == every[1, 2, 2]


def test_nth_decoder_projection_grows_with_the_decoder_norm():
    W_dec, b_dec, x = randn(4, 5), torch.zeros(5, dtype=torch.float64), randn(6, 5)
    once, twice = (metrics.nth_decoder_projection(c * W_dec, b_dec, x, 1) for c in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


def test_nth_decoder_projection_takes_the_parameters_of_a_model():
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=5, d_sae=4, k=2))
    s = metrics.nth_decoder_projection(sae.W_dec, sae.b_dec, torch.ones(3, 5), [1, 2])
    assert not s.requires_grad
    assert s[0] >= s[1]


def test_the_true_dictionary_has_no_projection_left_above_the_true_l0():
    world = make_fifty_feature_world(generator=generator())
    x = world.sample(20_000, generator(1))
    s = metrics.nth_decoder_projection(world.directions, torch.zeros(100), x, range(8, 14))
    assert (s[:3] > 0.7).all()
    assert (s[3:].abs() < 1e-5).all()


# Cosines


def test_decoder_pairwise_cosine_of_a_small_case_worked_by_hand():
    W_dec = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-1.0, 1.0]])  # |cos| 0, 1/√2, 1/√2
    assert metrics.decoder_pairwise_cosine(W_dec).item() == pytest.approx(math.sqrt(2) / 3)


@given(d_sae=SIZES, d_in=SIZES, seed=SEEDS)
def test_decoder_pairwise_cosine_agrees_with_a_naive_loop(d_sae, d_in, seed):
    W_dec = randn(2, d_sae, d_in, seed=seed)
    for W, c in zip(W_dec, metrics.decoder_pairwise_cosine(W_dec), strict=True):
        pairs = [(i, j) for i in range(d_sae) for j in range(i + 1, d_sae)]
        cosines = [torch.cosine_similarity(W[i], W[j], dim=0).abs() for i, j in pairs]
        torch.testing.assert_close(c, torch.stack(cosines).mean())


def test_decoder_pairwise_cosine_spans_zero_to_one():
    orthogonal = make_orthonormal_directions(5, 8, generator=generator(), dtype=torch.float64)
    assert metrics.decoder_pairwise_cosine(orthogonal).item() == pytest.approx(0, abs=1e-12)
    signs = torch.tensor([[1.0], [-2.0], [3.0]])
    assert metrics.decoder_pairwise_cosine(signs).item() == pytest.approx(1)


def test_feature_cosines_are_signed_and_blind_to_length():
    W_dec = torch.tensor([[2.0, 0.0], [0.0, -3.0], [1.0, 1.0]])
    r = math.sqrt(0.5)
    expected = torch.tensor([[1.0, 0.0], [0.0, -1.0], [r, r]])
    torch.testing.assert_close(metrics.feature_cosines(W_dec, torch.eye(2)), expected)
    batched = metrics.feature_cosines(W_dec.expand(4, 3, 2), torch.eye(2))
    torch.testing.assert_close(batched, expected.expand(4, 3, 2))


# Matching


def test_shuffled_features_are_all_recovered_and_found_again():
    directions = make_orthonormal_directions(6, 9, generator=generator())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    matching = metrics.match_features(2 * directions[order], directions)
    assert torch.equal(order[matching.latent], torch.arange(6))
    torch.testing.assert_close(matching.cosine, torch.ones(6))
    assert metrics.n_recovered(directions[order], directions) == 6


def test_an_anti_aligned_latent_is_recovered_for_sae_lens_but_not_here():
    directions = make_orthonormal_directions(4, 4, generator=generator())
    W_dec = directions * torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None]
    assert mean_correlation_coefficient(W_dec, directions) == pytest.approx(1)
    assert metrics.n_recovered(W_dec, directions) == 3
    assert metrics.signed_mcc(W_dec, directions) == pytest.approx(0.75)
    assert metrics.match_features(W_dec, directions).latent.tolist() == [0, 1, 2, -1]
    assert metrics.signed_mcc(-directions, directions) == pytest.approx(0, abs=1e-6)


def test_an_anti_aligned_latent_does_not_push_another_off_its_feature():
    # In signed cosines, swapping the latents would be worth more: 0.3 + 0.1 against 0.95 − 0.99.
    W_dec = torch.tensor([[0.95, 0.3, 0.0], [0.1, -0.99, 0.0]])
    assert metrics.match_features(W_dec, torch.eye(2, 3)).latent.tolist() == [0, -1]
    assert metrics.n_recovered(W_dec, torch.eye(2, 3)) == 1


def test_the_matching_maximises_the_sum_not_the_single_best_cosine():
    # Greedily, latent 0 would take feature 0 (0.96) and leave latent 1 with −0.6.
    W_dec = torch.tensor([[0.96, 0.28], [0.8, -0.6]])
    matching = metrics.match_features(W_dec, torch.eye(2))
    assert matching.latent.tolist() == [1, 0]
    torch.testing.assert_close(matching.cosine, torch.tensor([0.8, 0.28]))


def test_a_feature_without_a_latent_counts_as_cosine_zero():
    directions = torch.eye(3)
    matching = metrics.match_features(directions[[2, 0]], directions)
    assert matching.latent.tolist() == [1, -1, 0]
    assert matching.cosine.tolist() == [1, 0, 1]
    assert metrics.signed_mcc(directions[[2, 0]], directions) == pytest.approx(2 / 3)


def test_spare_latents_do_not_change_the_matching():
    directions = torch.eye(2, 3)
    W_dec = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.1], [1.0, 0.0, 0.0]])
    assert metrics.match_features(W_dec, directions).latent.tolist() == [2, 1]
    assert metrics.n_recovered(W_dec, directions) == 2


@given(d_sae=SIZES, n_features=SIZES, seed=SEEDS)
def test_signed_mcc_agrees_with_sae_lens_where_all_cosines_are_positive(d_sae, n_features, seed):
    W_dec, directions = randn(d_sae, 4, seed=seed).abs(), randn(n_features, 4, seed=seed + 1).abs()
    ours = metrics.signed_mcc(W_dec, directions) * n_features / min(d_sae, n_features)
    assert ours == pytest.approx(mean_correlation_coefficient(W_dec, directions))


@given(d_sae=SIZES, seed=SEEDS)
def test_no_other_order_of_latents_has_a_larger_positive_sum(d_sae, seed):
    W_dec, directions = randn(d_sae, 4, seed=seed), randn(d_sae, 4, seed=seed + 1)
    order = torch.randperm(d_sae, generator=generator(seed))
    rival = metrics.feature_cosines(W_dec, directions)[order].diagonal().clamp(min=0).mean().item()
    assert metrics.signed_mcc(W_dec, directions) >= rival - 1e-12


def test_the_threshold_of_recovery_is_exclusive():
    W_dec = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    cosine = metrics.match_features(W_dec, torch.eye(2).double()).cosine[0].item()
    counts = [metrics.n_recovered(W_dec, torch.eye(2).double(), t) for t in (cosine, cosine - 1e-9)]
    assert counts == [0, 2]


def test_reordered_latents_put_the_matched_pairs_on_the_diagonal():
    cosines = torch.tensor([[0.1, 0.2], [0.0, 0.9], [0.3, 0.3], [0.8, 0.7]])
    order = metrics.reorder_latents(cosines)
    assert order.tolist() == [3, 1, 0, 2]
    assert cosines[order].diagonal().tolist() == pytest.approx([0.8, 0.9])


@given(d_sae=SIZES, n_features=SIZES, seed=SEEDS)
def test_reordering_is_a_permutation_of_the_latents(d_sae, n_features, seed):
    order = metrics.reorder_latents(randn(d_sae, n_features, seed=seed))
    assert sorted(order.tolist()) == list(range(d_sae))


# Reconstruction


def test_errors_of_a_small_case_worked_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x_hat = torch.tensor([[1.0, 1.0], [1.0, 4.0]])
    assert metrics.mean_squared_error(x, x_hat) == 2.5  # (1 + 4) / 2
    assert metrics.variance_explained(x, x_hat) == pytest.approx(1 - 5 / 4)


@given(seed=SEEDS, offset=st.floats(-100, 100))
def test_the_mean_predictor_explains_no_variance_and_the_inputs_explain_all(seed, offset):
    x = randn(20, 3, seed=seed) + offset
    assert metrics.variance_explained(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-9)
    assert metrics.variance_explained(x, x) == 1


def test_variance_explained_is_the_r2_of_scikit_learn_weighted_by_variance():
    x, x_hat = randn(50, 4) + 3, randn(50, 4, seed=1)
    oracle = r2_score(x.numpy(), x_hat.numpy(), multioutput="variance_weighted")
    assert metrics.variance_explained(x, x_hat) == pytest.approx(oracle)


@pytest.mark.parametrize("spread", [1, 1e-2, 1e-3])
def test_variance_explained_is_right_for_rows_that_hardly_vary(spread):
    x = (1e3 + spread * randn(5000, 3)).float()  # neighbours of 1000 in float32 are 6e-5 apart
    x_hat = x + (spread * randn(5000, 3, seed=1)).float()
    oracle = r2_score(x.double().numpy(), x_hat.double().numpy(), multioutput="variance_weighted")
    assert metrics.variance_explained(x, x_hat) == pytest.approx(oracle, rel=1e-4)


def test_mean_squared_error_is_the_loss_of_sae_lens():
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=5, d_sae=4, k=2))
    x = randn(8, 5).float()
    x_hat = sae(x).detach()
    loss = sae.mse_loss_fn(x_hat, x).sum(-1).mean().item()
    assert metrics.mean_squared_error(x, x_hat) == pytest.approx(loss, rel=1e-6)


def test_l0_counts_nonzero_latents_of_either_sign():
    acts = torch.tensor([[0.0, 2.0, -1.0], [0.0, 0.0, 3.0]])
    assert metrics.l0(acts) == 1.5


# The true dictionary


def test_batch_topk_keeps_the_largest_of_the_batch_not_of_the_row():
    acts = torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]])
    assert keep_batch_topk(acts, 1).tolist() == [[5, 4, 0], [0, 0, 0]]
    assert keep_batch_topk(acts, 1.5).tolist() == [[5, 4, 3], [0, 0, 0]]
    assert keep_batch_topk(acts, 0).count_nonzero() == 0
    assert torch.equal(keep_batch_topk(acts, 3), acts)


def test_batch_topk_keeps_the_exact_number_among_equal_activations():
    kept = keep_batch_topk(torch.ones(4, 5), 1.75)
    assert kept.flatten().tolist() == 7 * [1.0] + 13 * [0.0]


@given(width=SIZES, n=st.integers(1, 9), share=st.floats(0, 1), seed=SEEDS)
def test_batch_topk_agrees_with_torch_topk(width, n, share, seed):
    acts = randn(n, width, seed=seed).relu()
    k = share * width
    top = acts.flatten().topk(int(k * n))
    expected = torch.zeros(n * width, dtype=acts.dtype).scatter(0, top.indices, top.values)
    assert torch.equal(keep_batch_topk(acts, k), expected.reshape(n, width))


@pytest.mark.parametrize("k", [1, 2.5, 5])
def test_the_true_dictionary_reconstructs_as_a_batch_topk_sae_of_sae_lens(k):
    directions = make_orthonormal_directions(6, 8, generator=generator())
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=8, d_sae=6, k=k))
    sae.W_enc.data, sae.W_dec.data = directions.T.clone(), directions.clone()
    x = randn(20, 8).float()
    with torch.no_grad():
        expected = sae(x)
    torch.testing.assert_close(metrics.batch_topk_reconstruction(x, directions, k), expected)


def test_at_the_true_l0_the_true_dictionary_makes_no_error():
    directions = make_orthonormal_directions(4, 6, generator=generator(), dtype=torch.float64)
    acts = torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 3]], dtype=torch.float64)
    x = acts @ directions
    assert metrics.true_dictionary_error(x, directions, 1.5) < 1e-24
    assert metrics.true_dictionary_error(x, directions, 1) == pytest.approx(0.5)  # loses the 1
    assert metrics.true_dictionary_error(x, directions, 0) == pytest.approx(7)


def test_a_fitted_bias_is_what_the_cut_true_dictionary_leaves_on_average():
    world = make_fifty_feature_world(generator=generator())
    x, directions = world.sample(2_000, generator(1)).double(), world.directions.double()
    x_hat = metrics.batch_topk_reconstruction(x, directions, 5, fit_bias=True)
    torch.testing.assert_close((x - x_hat).mean(0), torch.zeros(100).double(), atol=2e-3, rtol=0)
    fitted = metrics.true_dictionary_error(x, directions, 5, fit_bias=True)
    assert fitted == pytest.approx((x - x_hat).square().sum(1).mean().item())
    assert fitted < metrics.true_dictionary_error(x, directions, 5) - 0.5
    # A bias that Adam searches, from another start, is no better.
    b_dec = (0.3 * randn(100, seed=2)).requires_grad_()
    adam = torch.optim.Adam([b_dec], lr=0.02)
    for _ in range(300):
        kept = metrics.batch_topk_reconstruction(x - b_dec, directions, 5)
        error = (x - b_dec - kept).square().sum(1).mean()
        adam.zero_grad()
        error.backward()
        adam.step()
    assert fitted == pytest.approx(error.item(), abs=0.01)


@pytest.mark.parametrize("k", [1, 5, 9, 10.5, 11])
def test_the_closed_form_error_agrees_with_the_fifty_feature_world(k):
    world = make_fifty_feature_world(generator=generator())
    chunks = world.sample(60_000, generator(1)).split(3_000)
    errors = torch.tensor([metrics.true_dictionary_error(x, world.directions, k) for x in chunks])
    closed = metrics.true_dictionary_error_closed_form(10.9525, 1, 0.15, k)
    standard_error = errors.std().item() / math.sqrt(len(chunks))
    # Each chunk has its own threshold: a bias of the order of one chunk's variance in L0.
    assert abs(errors.mean().item() - closed) < 4 * standard_error + 1e-3


def test_the_closed_form_error_at_k_five_is_the_derived_value():
    error = metrics.true_dictionary_error_closed_form(10.9525, 1, 0.15, 5)
    assert error == pytest.approx(4.7727, abs=5e-5)


@given(mean=st.floats(0.1, 3), std=st.floats(0.01, 2), share=st.floats(0.01, 0.99))
def test_the_closed_form_error_agrees_with_numerical_integration(mean, std, share):
    total = 4.0
    k = share * total * norm.cdf(mean / std)
    threshold = norm.isf(k / total, mean, std)
    expected, _ = quad(lambda m: m * m * norm.pdf(m, mean, std), 0, threshold, epsabs=1e-12)
    found = metrics.true_dictionary_error_closed_form(total, mean, std, k)
    assert found == pytest.approx(total * expected, rel=1e-6, abs=1e-9)


def test_the_closed_form_error_at_its_ends():
    closed = metrics.true_dictionary_error_closed_form
    assert closed(10, 1, 0.15, 0) == pytest.approx(10 * (1 + 0.15**2), rel=1e-9)
    assert closed(10, 1, 0.15, 10) == pytest.approx(0, abs=1e-12)
    assert closed(10, 1, 0.15, 12) == pytest.approx(0, abs=1e-12)
    assert closed(10, 2, 0, 4) == 24
    assert closed(10, 2, 0, 12) == 0
    assert closed(10, 1, 1e-9, 4) == pytest.approx(6)


# Errors name the argument, its value and what was expected


@pytest.mark.parametrize("metric", [metrics.mean_squared_error, metrics.variance_explained])
@pytest.mark.usefixtures("unchecked")
def test_reconstruction_metrics_refuse_bad_input(metric):
    x = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"x_hat must have the shape of x, \(3, 2\), got \(2, 2\)"):
        metric(x, x[:2])
    with pytest.raises(ValueError, match=r"x must have shape \(n, d_in\), got \(2,\)"):
        metric(x[0], x[0])
    with pytest.raises(ValueError, match=r"x must have at least one row, got shape \(0, 2\)"):
        metric(x[:0], x[:0])
    with pytest.raises(ValueError, match=r"x_hat must be finite, got nan at index \(0, 0\)"):
        metric(x, x * math.nan)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got ndarray"):
        metric(x.numpy(), x)


def test_variance_explained_needs_variance():
    for value in (0.0, 0.1, 1e6 / 3):  # the float32 mean of 1000 times 0.1 is not 0.1
        x = torch.full((1000, 2), value)
        with pytest.raises(ValueError, match="x must vary from row to row, got 1000 rows without"):
            metrics.variance_explained(x, x)


@pytest.mark.usefixtures("unchecked")
def test_l0_refuses_bad_input():
    with pytest.raises(ValueError, match=r"latent_acts must have shape \(n, d_sae\), got \(3,\)"):
        metrics.l0(torch.ones(3))
    with pytest.raises(ValueError, match="latent_acts must be finite, got inf"):
        metrics.l0(torch.full((1, 1), math.inf))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 4}, r"n must be in \[0, 3\], got 4"),
        ({"n": [1, -1]}, "n must be at least 0, got -1"),
        ({"x": torch.full((2, 5), math.nan)}, r"x must be finite, got nan at index \(0, 0\)"),
        ({"W_dec": torch.full((4, 5), math.inf)}, "W_dec must be finite, got inf"),
        ({"b_dec": torch.full((5,), math.nan)}, "b_dec must be finite, got nan"),
        ({"x": torch.ones(2, 6)}, r"x must have shape \(n, 5\), got \(2, 6\)"),
        ({"x": torch.ones(0, 5)}, r"x must have at least one row, got shape \(0, 5\)"),
        ({"b_dec": torch.ones(4)}, r"b_dec must have shape \(5\), got \(4,\)"),
        ({"W_dec": torch.ones(3, 4, 5)}, r"b_dec must have shape \(3, 5\), got \(5,\)"),
        ({"W_dec": torch.ones(5)}, r"W_dec must have shape \(…, d_sae, d_in\), got \(5,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_nth_decoder_projection_refuses_bad_input(arguments, message):
    defaults = {"W_dec": torch.ones(4, 5), "b_dec": torch.ones(5), "x": torch.ones(2, 5), "n": 1}
    with pytest.raises(ValueError, match=message):
        metrics.nth_decoder_projection(**(defaults | arguments))


@pytest.mark.usefixtures("unchecked")
def test_nth_decoder_projection_refuses_a_fractional_n():
    with pytest.raises(TypeError, match=r"n must be an int, got 1\.5"):
        metrics.nth_decoder_projection(torch.ones(2, 2), torch.ones(2), torch.ones(1, 2), 1.5)


def test_a_zero_row_has_no_direction():
    W_dec = torch.eye(3)
    W_dec[1] = 0
    message = r"must have no zero rows, got one at \(1,\)"
    with pytest.raises(ValueError, match="W_dec " + message):
        metrics.decoder_pairwise_cosine(W_dec)
    with pytest.raises(ValueError, match="W_dec " + message):
        metrics.match_features(W_dec, torch.eye(3))
    with pytest.raises(ValueError, match="directions " + message):
        metrics.feature_cosines(torch.eye(3), W_dec)


@pytest.mark.usefixtures("unchecked")
def test_cosine_metrics_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="d_sae of W_dec must be at least 2, got 1"):
        metrics.decoder_pairwise_cosine(torch.ones(1, 3))
    with pytest.raises(
        ValueError, match=r"directions must have shape \(n_features, 3\), got \(2, 2\)"
    ):
        metrics.feature_cosines(torch.eye(3), torch.eye(2))
    with pytest.raises(ValueError, match=r"W_dec must have shape \(d_sae, d_in\), got \(2, 3, 3\)"):
        metrics.match_features(torch.eye(3).expand(2, 3, 3), torch.eye(3))
    with pytest.raises(ValueError, match=r"threshold must be in \[-1, 1\], got 90"):
        metrics.n_recovered(torch.eye(3), torch.eye(3), 90)
    with pytest.raises(ValueError, match=r"cosines must have shape \(d_sae, n_features\)"):
        metrics.reorder_latents(torch.ones(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1}, r"k must be in \[0, 2\], got -1"),
        ({"k": 3}, r"k must be in \[0, 2\], got 3"),
        ({"k": math.nan}, r"k must be in \[0, 2\], got nan"),
        ({"directions": 2 * torch.eye(2)}, "directions must have rows of norm 1, got norm 2"),
        ({"directions": torch.eye(3)}, r"directions must have shape \(n_features, 2\), got"),
        ({"x": torch.full((2, 2), math.nan)}, "x must be finite, got nan"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_true_dictionary_refuses_bad_input(arguments, message):
    defaults = {"x": torch.ones(2, 2), "directions": torch.eye(2), "k": 1}
    with pytest.raises(ValueError, match=message):
        metrics.true_dictionary_error(**(defaults | arguments))


@pytest.mark.parametrize("name", ["total_firing", "magnitude_mean", "magnitude_std", "k"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_the_closed_form_error_refuses_values_out_of_range(name, value):
    good = {"total_firing": 10, "magnitude_mean": 1, "magnitude_std": 0.15, "k": 5}
    with pytest.raises(ValueError, match=f"{name} must be in .* got {value}"):
        metrics.true_dictionary_error_closed_form(**(good | {name: value}))


@pytest.mark.usefixtures("unchecked")
def test_a_boolean_is_no_number():
    with pytest.raises(TypeError, match="n must be an int, got True of type bool"):
        metrics.nth_decoder_projection(torch.ones(2, 2), torch.ones(2), torch.ones(1, 2), True)
    with pytest.raises(TypeError, match="k must be a number, got True of type bool"):
        metrics.true_dictionary_error_closed_form(10, 1, 0.15, True)


# Shrinkage


def test_shrinkage_of_a_small_case_worked_by_hand():
    a = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 1.0], [3.0, 0.0, 1.0]])
    c = torch.tensor([[0.5, 4.0], [1.5, 0.0], [0.0, 4.0]])
    found = metrics.shrinkage(c, a, torch.tensor([0, 1, -1]))
    assert found[0].item() == pytest.approx((0.5 * 1 + 1.5 * 2) / (1 + 4))  # row 2: silent
    assert math.isnan(found[1]) and math.isnan(found[2])  # never together; without a latent


@given(share=st.floats(0.1, 2), seed=SEEDS)
def test_shrinkage_is_the_share_that_every_latent_reports(share, seed):
    a = randn(30, 4, seed=seed).relu()
    a[0] = 1
    order = torch.tensor([2, 0, 3, 1])
    c = torch.zeros_like(a)
    c[:, order] = share * a
    expected = torch.full((4,), share, dtype=torch.float64)
    torch.testing.assert_close(metrics.shrinkage(c, a, order), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 2), torch.ones(4, 2), torch.tensor([0, 1])), "feature_acts must have"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.tensor([0, 2])), "latent_of_feature must be"),
        ((torch.ones(3, 2), torch.ones(3, 2), torch.tensor([0])), "latent_of_feature must have"),
        ((torch.full((3, 2), math.nan), torch.ones(3, 2), torch.tensor([0, 1])), "finite"),
    ],
)
def test_shrinkage_names_a_bad_argument(arguments, message, unchecked):
    with pytest.raises(ValueError, match=message):
        metrics.shrinkage(*arguments)
