"""Baselines: one interface that all keep, scikit-learn as the oracle, bits counted by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    TopKTrainingSAEConfig,
)
from sae_lens.registry import get_sae_training_class
from sklearn import cluster, decomposition
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from torch.nn.functional import normalize

from saebook import metrics
from saebook.baselines import (
    ICA,
    NMF,
    PCA,
    Baseline,
    DataPoints,
    DictionaryLearning,
    FrozenSAE,
    KMeans,
    KMeansGain,
    MeanOnly,
    PCATopK,
    RandomDictionary,
    ResidualVQ,
    SAEDictionary,
    TrueDictionary,
    account,
    description_length,
    evaluate_baselines,
    orthogonal_matching_pursuit,
)
from saebook.baselines.base import noting_convergence, random_state
from saebook.saes import inference_sae

D_IN, N_ATOMS = 6, 10


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def non_negative(n, seed):
    """Sparse sums of non-negative directions, with a mean far from 0."""
    g = generator(seed)
    directions = torch.rand(8, D_IN, generator=generator(99), dtype=torch.float64)
    acts = torch.rand(n, 8, generator=g, dtype=torch.float64)
    return (acts * (acts > 0.6)) @ directions + 0.1


X, X_TEST = non_negative(300, 0), non_negative(40, 1)
TRUTH = normalize(torch.randn(N_ATOMS, D_IN, generator=generator(5), dtype=torch.float64), dim=1)


def make_sae(cfg_class=StandardTrainingSAEConfig, **cfg):
    cfg = cfg_class(d_in=D_IN, d_sae=N_ATOMS, dtype="float64", **cfg)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sae = get_sae_training_class(cfg.architecture())[0](cfg)
        sae.W_dec.data = torch.linspace(0.5, 2, N_ATOMS, dtype=torch.float64)[:, None] * TRUTH
        sae.W_enc.data = torch.randn_like(sae.W_enc) * 0.5
        sae.b_dec.data = torch.rand_like(sae.b_dec)
    return sae


BASELINES = {
    "mean": MeanOnly,
    "random directions, omp": lambda: RandomDictionary(n_atoms=N_ATOMS),
    "random directions, topk": lambda: RandomDictionary(n_atoms=N_ATOMS, inference="topk"),
    "data points, omp": lambda: DataPoints(n_atoms=N_ATOMS),
    "data points, topk": lambda: DataPoints(n_atoms=N_ATOMS, inference="topk"),
    "pca": PCA,
    "pca, topk": lambda: PCATopK(n_components=5),
    "ica": lambda: ICA(n_components=4),
    "nmf": lambda: NMF(n_components=5),
    "k-means": lambda: KMeans(n_clusters=N_ATOMS),
    "k-means, minibatch": lambda: KMeans(n_clusters=N_ATOMS, minibatch=True),
    "k-means with gain": lambda: KMeansGain(n_clusters=N_ATOMS),
    "residual vq": lambda: ResidualVQ(n_codes=5, n_stages=3),
    "residual vq, minibatch": lambda: ResidualVQ(n_codes=5, n_stages=3, minibatch=True),
    "dictionary learning": lambda: DictionaryLearning(n_atoms=N_ATOMS, alpha=0.1, max_iter=2),
    "sae, encoder": lambda: SAEDictionary(make_sae(), train_seconds=3),
    "sae, pre-activations": lambda: SAEDictionary(make_sae(), inference="pre_acts"),
    "sae, omp": lambda: SAEDictionary(make_sae(), inference="omp"),
    "true dictionary, omp": lambda: TrueDictionary(TRUTH),
    "true dictionary, topk": lambda: TrueDictionary(TRUTH, inference="topk"),
    "frozen sae": lambda: FrozenSAE(kind="decoder", n_atoms=N_ATOMS, k=2, steps=5),
}
QUANTISERS = {"k-means", "k-means, minibatch", "k-means with gain"}


def fit(name, x=X, seed=0):
    return BASELINES[name]().fit(x, generator=generator(seed))


@pytest.fixture(scope="module")
def fitted():
    return {name: fit(name) for name in BASELINES}


every_baseline = pytest.mark.parametrize("name", BASELINES)


# The interface


@every_baseline
def test_fit_returns_the_baseline_and_shapes_fit(name):
    baseline = BASELINES[name]()
    assert baseline.fit(X, generator=generator()) is baseline
    n_atoms = len(baseline.dictionary)
    assert baseline.dictionary.shape == (n_atoms, D_IN)
    assert baseline.centre.shape == (D_IN,)
    assert baseline.encode(X_TEST, 2).shape == (len(X_TEST), n_atoms)
    assert baseline.reconstruct(X_TEST, 2).shape == X_TEST.shape


@every_baseline
def test_no_row_uses_more_atoms_than_it_may(name, fitted):
    for l0 in range(fitted[name].min_l0, 4):
        codes = fitted[name].encode(X_TEST, l0)
        assert (codes.count_nonzero(1) <= l0).all()
        assert codes.isfinite().all()


@every_baseline
def test_a_reconstruction_is_the_centre_plus_coded_atoms(name, fitted):
    baseline = fitted[name]
    expected = baseline.centre + baseline.encode(X_TEST, 3) @ baseline.dictionary
    torch.testing.assert_close(baseline.reconstruct(X_TEST, 3), expected, rtol=0, atol=0)


@every_baseline
def test_a_row_is_coded_the_same_whatever_rows_are_beside_it(name, fitted):
    tolerance = 1e-2 if name == "nmf" else 1e-9  # scikit-learn stops all rows of NMF at once
    torch.testing.assert_close(
        fitted[name].reconstruct(X_TEST, 3)[:7],
        fitted[name].reconstruct(X_TEST[:7], 3),
        rtol=tolerance,
        atol=tolerance,
    )


@every_baseline
def test_the_generator_alone_decides(name, fitted, monkeypatch):
    other = np.random.RandomState(7)  # scikit-learn takes the global one where it is given none
    monkeypatch.setattr("numpy.random.mtrand._rand", other)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        again = fit(name)
    assert torch.equal(again.dictionary, fitted[name].dictionary)
    assert torch.equal(again.reconstruct(X_TEST, 2), fitted[name].reconstruct(X_TEST, 2))


@pytest.mark.parametrize(
    "name", ["random directions, omp", "data points, omp", "k-means", "frozen sae"]
)
def test_another_generator_gives_another_dictionary(name, fitted):
    assert not torch.allclose(fit(name, seed=1).dictionary, fitted[name].dictionary)


@pytest.mark.parametrize("name", [n for n in BASELINES if not n.startswith(("sae", "true"))])
def test_learned_dictionaries_keep_the_dtype_of_the_data(name):
    baseline = fit(name, X.float())
    assert baseline.dictionary.dtype == torch.float32
    assert baseline.reconstruct(X_TEST.float(), 2).dtype == torch.float32


@every_baseline
def test_no_input_is_changed(name, fitted):
    x, x_test = X.clone(), X_TEST.clone()
    fit(name, x)
    fitted[name].reconstruct(x_test, 2)
    assert torch.equal(x, X) and torch.equal(x_test, X_TEST)


@every_baseline
def test_its_account_adds_up(name, fitted):
    baseline = fitted[name]
    row = account(baseline, X_TEST, 2)
    codes, x_hat = baseline.encode(X_TEST, 2), baseline.reconstruct(X_TEST, 2)
    assert row["method"] == type(baseline).__name__
    assert row["l0_allowed"] == 2
    assert row["l0"] == codes.count_nonzero().item() / len(X_TEST)
    assert row["mse"] == pytest.approx(metrics.mean_squared_error(X_TEST, x_hat))
    explained = metrics.variance_explained(X_TEST, x_hat)
    assert row["variance_explained"] == pytest.approx(explained)
    assert row["bits"] == baseline.bits(codes.count_nonzero(1))
    assert row["n_parameters"] == baseline.n_parameters
    assert row["encode_seconds"] > 0


@every_baseline
def test_the_time_of_the_fit_is_measured_or_said_to_be_unknown(name, fitted):
    known = {"sae, encoder": 3.0, "sae, pre-activations": math.nan, "sae, omp": math.nan}
    if name in known:
        assert fitted[name].fit_seconds == pytest.approx(known[name], nan_ok=True)
    else:
        assert fitted[name].fit_seconds > 0


@every_baseline
def test_nothing_is_told_before_the_fit(name):
    baseline = BASELINES[name]()
    asked = [
        lambda: baseline.encode(X_TEST, 1),
        lambda: baseline.reconstruct(X_TEST, 1),
        lambda: baseline.dictionary,
        lambda: baseline.n_parameters,
        lambda: baseline.fit_seconds,
    ]
    for ask in asked:
        with pytest.raises(NotFittedError, match=f"{type(baseline).__name__} must be fitted first"):
            ask()


@pytest.mark.usefixtures("unchecked")
@every_baseline
def test_bad_inputs_are_refused_with_what_was_expected(name, fitted):
    baseline, nan = fitted[name], X_TEST.clone()
    nan[3, 2] = math.nan
    with pytest.raises(ValueError, match=r"x must have shape \(n, 6\), got \(40, 5\)"):
        baseline.encode(X_TEST[:, 1:], 1)
    with pytest.raises(ValueError, match=r"x must be finite, got nan at index \(3, 2\)"):
        baseline.reconstruct(nan, 1)
    with pytest.raises(TypeError, match=r"x must have dtype torch.float64, got torch.float32"):
        baseline.encode(X_TEST.float(), 1)
    with pytest.raises(ValueError, match="x must be finite, got nan"):
        BASELINES[name]().fit(nan, generator=generator())
    with pytest.raises(ValueError, match=r"x must have shape"):
        BASELINES[name]().fit(X[0], generator=generator())
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        BASELINES[name]().fit(X, generator=None)


@pytest.mark.usefixtures("unchecked")
@every_baseline
def test_an_impossible_l0_is_refused_with_what_was_expected(name, fitted):
    baseline = fitted[name]
    least = 1 if name in QUANTISERS else 0
    with pytest.raises(ValueError, match=f"l0 must be at least {least}, got {least - 1}"):
        baseline.encode(X_TEST, least - 1)
    for wrong in (1.5, "2", True):
        with pytest.raises(TypeError, match=f"l0 must be an int, got {wrong!r}"):
            baseline.encode(X_TEST, wrong)
    if baseline.max_l0 is None:
        return
    most, above = baseline.max_l0, baseline.max_l0 + 1
    baseline.encode(X_TEST, most)
    with pytest.raises(ValueError, match=rf"l0 must be in \[{least}, {most}\], got {above}"):
        baseline.encode(X_TEST, above)
    with pytest.raises(ValueError, match=rf"l0 must be in \[0, {most}\], got {above}"):
        baseline.bits(above)


NEEDS = {
    "n_atoms = 10": ["data points, omp", "data points, topk", "dictionary learning"],
    "n_components = 5": ["pca, topk"],
    "n_components = 4": ["ica"],
    "n_clusters = 10": ["k-means", "k-means, minibatch", "k-means with gain"],
    "n_codes = 5": ["residual vq", "residual vq, minibatch"],
}


@pytest.mark.parametrize(
    ("needed", "name"), [(needed, name) for needed, names in NEEDS.items() for name in names]
)
def test_too_few_training_data_are_refused(needed, name):
    with pytest.raises(ValueError, match=f"x must have at least {needed} rows, got 3"):
        fit(name, X[:3])


@pytest.mark.parametrize("make", [PCA, PCATopK, ICA])
def test_more_components_than_dimensions_are_refused(make):
    with pytest.raises(ValueError, match="n_components must be at most d_in = 6, got 7"):
        make(n_components=7).fit(X, generator=generator())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("inference must be one of", lambda: RandomDictionary(n_atoms=3, inference="lasso")),
        ("n_atoms must be at least 1", lambda: RandomDictionary(n_atoms=0)),
        ("n_atoms must be an int", lambda: DataPoints(n_atoms=2.0)),
        ("alpha must be in", lambda: DictionaryLearning(n_atoms=3, alpha=0)),
        ("n_clusters must be at least 1", lambda: KMeans(n_clusters=0)),
        ("n_stages must be at least 1", lambda: ResidualVQ(n_codes=2, n_stages=0)),
        ("n_components must be at least 1", lambda: PCA(n_components=0)),
        ("tol must be in", lambda: ICA(n_components=2, tol=0)),
        ("max_iter must be at least 1", lambda: NMF(n_components=2, max_iter=0)),
        ("directions must have rows of norm 1", lambda: TrueDictionary(2 * TRUTH)),
        (r"bias must have shape \(6\)", lambda: TrueDictionary(TRUTH, bias=torch.zeros(5))),
        ("sae must be SAE, got 3", lambda: SAEDictionary(3)),
        ("inference must be one of", lambda: SAEDictionary(make_sae(), inference="topk")),
        ("train_seconds must be in", lambda: SAEDictionary(make_sae(), train_seconds=-1)),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected(message, make):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# scikit-learn as the oracle


def state(seed=0):
    """The seed that the first draw from `generator(seed)` gives scikit-learn."""
    return random_state(generator(seed))


@pytest.mark.parametrize("rank", [0, 1, 3, 6])
def test_dense_pca_is_scikit_learns_projection(rank, fitted):
    x_hat = fitted["pca"].reconstruct(X_TEST, rank)
    if rank == 0:
        torch.testing.assert_close(x_hat, X.mean(0).expand_as(X_TEST))
        return
    oracle = decomposition.PCA(rank).fit(X.numpy())
    expected = oracle.inverse_transform(oracle.transform(X_TEST.numpy()))
    torch.testing.assert_close(x_hat, torch.from_numpy(expected))


@given(seed=st.integers(0, 10_000), rank=st.integers(0, 4))
def test_no_projection_of_the_same_rank_beats_dense_pca_on_its_data(seed, rank):
    x = torch.randn(30, 5, generator=generator(seed), dtype=torch.float64) ** 3
    pca = PCA().fit(x, generator=generator())
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator(seed + 1)).double()).Q[:, :rank]
    centred = x - x.mean(0)
    other = centred @ basis @ basis.T + x.mean(0)
    best = metrics.mean_squared_error(x, pca.reconstruct(x, rank))
    assert best <= metrics.mean_squared_error(x, other) + 1e-9


def test_choosing_components_for_each_input_is_never_worse_than_the_first_ones(fitted):
    topk = PCATopK().fit(X, generator=generator())
    for l0 in range(7):
        dense = (X_TEST - fitted["pca"].reconstruct(X_TEST, l0)).square().sum(1)
        chosen = (X_TEST - topk.reconstruct(X_TEST, l0)).square().sum(1)
        assert (chosen <= dense + 1e-12).all()


def test_ica_with_all_its_components_is_scikit_learns(fitted):
    oracle = decomposition.FastICA(4, whiten="unit-variance", random_state=state()).fit(X.numpy())
    codes = oracle.transform(X_TEST.numpy())
    torch.testing.assert_close(fitted["ica"].encode(X_TEST, 4), torch.from_numpy(codes))
    x_hat = torch.from_numpy(oracle.inverse_transform(codes))
    torch.testing.assert_close(fitted["ica"].reconstruct(X_TEST, 4), x_hat)


def test_ica_keeps_the_components_that_contribute_most(fitted):
    ica = fitted["ica"]
    contributions = ica.encode(X_TEST, 4).abs() * ica.dictionary.norm(dim=1)
    kept = ica.encode(X_TEST, 1)
    assert torch.equal(kept.abs().argmax(1), contributions.argmax(1))


def test_ica_that_does_not_converge_says_so_without_a_warning(fitted):
    assert fitted["ica"].converged
    hurried = ICA(n_components=6, max_iter=1, tol=1e-12).fit(X, generator=generator())
    assert not hurried.converged
    assert hurried.encode(X_TEST, 2).isfinite().all()
    with pytest.raises(NotFittedError, match="ICA must be fitted first"):
        _ = ICA(n_components=2).converged


def test_other_warnings_are_let_through():
    def fit_badly():
        with noting_convergence() as seen:
            warnings.warn("something else", UserWarning, stacklevel=1)
            warnings.warn("too few iterations", ConvergenceWarning, stacklevel=1)
        return seen

    with pytest.warns(UserWarning, match="something else"):
        seen = fit_badly()
    assert seen == ["too few iterations"]


def test_nmf_with_all_its_components_is_scikit_learns():
    nmf = NMF(n_components=5, max_iter=3000).fit(X, generator=generator())
    assert nmf.converged
    oracle = decomposition.NMF(5, max_iter=3000, random_state=state()).fit(X.numpy())
    codes = torch.from_numpy(oracle.transform(X_TEST.numpy()))
    torch.testing.assert_close(nmf.encode(X_TEST, 5), codes)
    torch.testing.assert_close(nmf.reconstruct(X_TEST, 5), codes @ nmf.dictionary)
    contributions = codes * nmf.dictionary.norm(dim=1)
    assert torch.equal(nmf.encode(X_TEST, 1).argmax(1), contributions.argmax(1))


def test_nmf_is_not_centred_and_refuses_what_is_negative(fitted):
    assert not fitted["nmf"].centre.any()
    assert not NMF(n_components=5, max_iter=1).fit(X, generator=generator()).converged
    negative = X_TEST.clone()
    negative[2, 1] = -0.25
    expected = r"x must be non-negative for NMF, got -0.25 at index \(2, 1\)"
    with pytest.raises(ValueError, match=expected):
        fitted["nmf"].encode(negative, 2)
    with pytest.raises(ValueError, match=expected):
        fit("nmf", negative)


@pytest.mark.parametrize("minibatch", [False, True])
def test_k_means_predicts_scikit_learns_nearest_centroid(minibatch):
    settings = {"n_init": 1, "max_iter": 100, "random_state": state()}
    centred = (X - X.mean(0)).numpy()
    if minibatch:
        oracle = cluster.MiniBatchKMeans(N_ATOMS, batch_size=1024, **settings).fit(centred)
    else:
        oracle = cluster.KMeans(N_ATOMS, **settings).fit(centred)
    kmeans = fit("k-means, minibatch" if minibatch else "k-means")
    labels = oracle.predict((X_TEST - X.mean(0)).numpy())
    assert kmeans.encode(X_TEST, 1).argmax(1).tolist() == labels.tolist()
    expected = oracle.cluster_centers_[labels] + X.mean(0).numpy()
    torch.testing.assert_close(kmeans.reconstruct(X_TEST, 1), torch.from_numpy(expected))


def test_dictionary_learning_has_scikit_learns_atoms_at_norm_1(fitted):
    g = generator()
    centred = X - X.mean(0)
    start = normalize(centred[torch.randperm(len(X), generator=g)[:N_ATOMS]], dim=1)
    oracle = decomposition.MiniBatchDictionaryLearning(
        N_ATOMS,
        alpha=0.1,
        batch_size=256,
        max_iter=2,
        fit_algorithm="cd",
        dict_init=start.numpy(),
        random_state=random_state(g),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = normalize(torch.from_numpy(oracle.fit(centred.numpy()).components_), dim=1)
    learned = fitted["dictionary learning"]
    torch.testing.assert_close(learned.dictionary, atoms)
    codes = orthogonal_matching_pursuit(X_TEST - X.mean(0), atoms, 2)
    torch.testing.assert_close(learned.encode(X_TEST, 2), codes)


def test_dictionary_learning_improves_on_the_data_points_it_starts_from(fitted):
    learned = DictionaryLearning(n_atoms=N_ATOMS, alpha=0.1, max_iter=20)
    learned.fit(X, generator=generator())
    start = account(fitted["data points, omp"], X, 2)["mse"]  # the same draw of points
    assert account(learned, X, 2)["mse"] < start


# Small cases worked out by hand

CORNERS = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]]) + 5  # mean (5, 5)


def test_the_mean_by_hand():
    mean = MeanOnly().fit(CORNERS, generator=generator())
    assert mean.reconstruct(torch.tensor([[7.0, 2.0]]), 9).tolist() == [[5, 5]]
    row = account(mean, CORNERS, 4)
    assert (row["l0"], row["bits"], row["n_parameters"]) == (0, 0, 2)
    assert row["mse"] == 10
    assert row["variance_explained"] == 0


def test_principal_components_by_hand():
    pca = PCA().fit(CORNERS, generator=generator())
    torch.testing.assert_close(pca.dictionary.abs(), torch.eye(2))
    x = torch.tensor([[6.0, 9.0]])  # (1, 4) from the mean
    torch.testing.assert_close(pca.reconstruct(x, 1), torch.tensor([[6.0, 5.0]]))
    topk = PCATopK().fit(CORNERS, generator=generator())
    torch.testing.assert_close(topk.reconstruct(x, 1), torch.tensor([[5.0, 9.0]]))
    assert account(pca, CORNERS, 1)["variance_explained"] == pytest.approx(0.9)


def test_clusters_by_hand():
    kmeans = KMeans(n_clusters=2).fit(CORNERS, generator=generator())  # at (±3, 0) from the mean
    x = torch.tensor([[11.0, 6.0], [4.0, 9.0]])  # (6, 1) and (−1, 4) from the mean
    expected = torch.tensor([[8.0, 5.0], [2.0, 5.0]])
    torch.testing.assert_close(kmeans.reconstruct(x, 1), expected)
    gain = KMeansGain(n_clusters=2).fit(CORNERS, generator=generator())
    expected = torch.tensor([[11.0, 5.0], [4.0, 5.0]])
    torch.testing.assert_close(gain.reconstruct(x, 1), expected)


def test_residual_stages_by_hand():
    vq = ResidualVQ(n_codes=2, n_stages=2).fit(CORNERS, generator=generator())
    x = torch.tensor([[7.5, 4.0]])  # (2.5, −1): stage 1 at (±3, 0), stage 2 at (0, ±1)
    torch.testing.assert_close(vq.reconstruct(x, 1), torch.tensor([[8.0, 5.0]]))
    torch.testing.assert_close(vq.reconstruct(x, 2), torch.tensor([[8.0, 4.0]]))
    assert vq.encode(x, 2).sum() == 2
    assert vq.dictionary.shape == (4, 2)


def test_residual_stages_learn_from_what_the_first_ones_leave():
    vq = ResidualVQ(n_codes=5, n_stages=3).fit(X, generator=generator())
    first = KMeans(n_clusters=5).fit(X, generator=generator())
    torch.testing.assert_close(vq.reconstruct(X, 1), first.reconstruct(X, 1))
    errors = [metrics.mean_squared_error(X, vq.reconstruct(X, l0)) for l0 in range(4)]
    assert errors == sorted(errors, reverse=True)


def test_data_points_are_directions_from_the_mean(fitted):
    centred = normalize(X - X.mean(0), dim=1)
    cosines = fitted["data points, omp"].dictionary @ centred.T
    chosen = cosines.argmax(1)
    torch.testing.assert_close(cosines.amax(1), torch.ones(N_ATOMS, dtype=torch.float64))
    assert len(set(chosen.tolist())) == N_ATOMS


def test_an_input_at_the_mean_is_no_atom():
    x = torch.cat([CORNERS, torch.full((1, 2), 5.0)])
    assert DataPoints(n_atoms=4).fit(x, generator=generator()).dictionary.norm(dim=1).min() > 0.9
    with pytest.raises(ValueError, match="x must have at least n_atoms = 5 rows, got 4"):
        DataPoints(n_atoms=5).fit(x, generator=generator())


def test_random_directions_have_norm_1_and_no_preferred_side():
    big = RandomDictionary(n_atoms=20_000).fit(X, generator=generator())
    torch.testing.assert_close(big.dictionary.norm(dim=1), torch.ones(20_000, dtype=X.dtype))
    moment = big.dictionary.T @ big.dictionary / 20_000
    # Var(u_i u_j) < 1/d², so that each entry is within 5 standard errors of I/d.
    assert (moment - torch.eye(D_IN) / D_IN).abs().max() < 5 / D_IN / math.sqrt(20_000)


def test_top_atoms_are_positive_projections():
    true = TrueDictionary(torch.eye(3), bias=torch.ones(3), inference="topk")
    true.fit(torch.rand(4, 3, generator=generator()), generator=generator())
    x = torch.tensor([[4.0, -9.0, 3.0]])  # (3, −10, 2) from the bias
    assert true.encode(x, 1).tolist() == [[3, 0, 0]]
    assert true.encode(x, 3).tolist() == [[3, 0, 2]]
    assert true.reconstruct(x, 3).tolist() == [[4, 1, 3]]


def test_the_truth_with_pursuit_explains_what_it_made():
    directions = normalize(torch.randn(20, 30, generator=generator()).double(), dim=1)
    acts = torch.zeros(50, 20, dtype=torch.float64)
    acts[torch.arange(50), torch.arange(50) % 20] = 2.0
    acts[torch.arange(50), (torch.arange(50) + 7) % 20] = 1.0
    true = TrueDictionary(directions).fit(X.new_zeros(1, 30), generator=generator())
    torch.testing.assert_close(true.encode(acts @ directions, 2), acts)


# SAEs


@pytest.mark.parametrize(
    ("cfg_class", "cfg"),
    [
        (StandardTrainingSAEConfig, {}),
        (TopKTrainingSAEConfig, {"k": 3}),
        (BatchTopKTrainingSAEConfig, {"k": 3}),
        (GatedTrainingSAEConfig, {}),
    ],
)
def test_with_all_latents_allowed_an_sae_is_itself(cfg_class, cfg):
    sae = make_sae(cfg_class, **cfg)
    baseline = SAEDictionary(sae).fit(X, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(
            baseline.reconstruct(X_TEST, N_ATOMS), inference_sae(sae)(X_TEST)
        )


def test_an_sae_keeps_the_latents_that_contribute_most(fitted):
    baseline = fitted["sae, encoder"]
    every, kept = baseline.encode(X_TEST, N_ATOMS), baseline.encode(X_TEST, 2)
    norms = baseline.dictionary.norm(dim=1)
    assert norms.max() > 3 * norms.min()
    expected = (every * norms).topk(2).indices.sort().values
    found = (kept * norms).topk(2).indices.sort().values
    assert torch.equal(found, expected)
    torch.testing.assert_close(kept.sum(1), every.gather(1, expected).sum(1))


def test_pre_activations_set_the_threshold_aside():
    sae = make_sae(BatchTopKTrainingSAEConfig, k=3)
    sae.topk_threshold.fill_(1e6)
    gated, open_ = (SAEDictionary(sae, inference=name) for name in ("encoder", "pre_acts"))
    assert not gated.fit(X, generator=generator()).encode(X_TEST, 4).any()
    codes = open_.fit(X, generator=generator()).encode(X_TEST, N_ATOMS)
    used = inference_sae(sae)
    expected = torch.relu((X_TEST - used.b_dec) @ used.W_enc + used.b_enc)
    torch.testing.assert_close(codes, expected.detach())


def test_pre_activations_of_an_ungated_sae_are_its_activations(fitted):
    for l0 in (1, 4):
        torch.testing.assert_close(
            fitted["sae, encoder"].encode(X_TEST, l0),
            fitted["sae, pre-activations"].encode(X_TEST, l0),
        )


@pytest.mark.parametrize("inference", ["encoder", "pre_acts"])
def test_an_sae_that_divides_by_decoder_norms_is_read_rightly(inference):
    cfg = TopKSAEConfig(d_in=D_IN, d_sae=N_ATOMS, k=N_ATOMS, rescale_acts_by_decoder_norm=True)
    cfg.dtype = "float64"
    sae, weights = TopKSAE(cfg), make_sae()
    for name in ("W_enc", "W_dec", "b_dec"):
        getattr(sae, name).data = getattr(weights, name).data
    baseline = SAEDictionary(sae, inference=inference).fit(X, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(baseline.reconstruct(X_TEST, N_ATOMS), sae(X_TEST))


def test_pursuit_over_an_sae_uses_its_directions_only(fitted):
    baseline, sae = fitted["sae, omp"], make_sae()
    torch.testing.assert_close(baseline.dictionary, TRUTH)
    expected = orthogonal_matching_pursuit(X_TEST - sae.b_dec.data, TRUTH, 3)
    torch.testing.assert_close(baseline.encode(X_TEST, 3), expected)


def test_later_training_of_an_sae_does_not_reach_its_baseline():
    sae = make_sae()
    baseline = SAEDictionary(sae).fit(X, generator=generator())
    before = baseline.reconstruct(X_TEST, 3)
    sae.W_dec.data += 1
    sae.b_enc.data += 1
    assert torch.equal(baseline.reconstruct(X_TEST, 3), before)


def test_an_sae_that_cannot_be_read_as_a_dictionary_is_refused():
    sae = make_sae()
    sae.cfg.normalize_activations = "layer_norm"
    with pytest.raises(ValueError, match="normalize_activations of sae must be 'none'"):
        SAEDictionary(sae)
    with pytest.raises(ValueError, match="sae must have b_enc for 'pre_acts'"):
        SAEDictionary(make_sae(GatedTrainingSAEConfig), inference="pre_acts")
    dead = make_sae()
    dead.W_dec.data[4] = 0
    with pytest.raises(ValueError, match="W_dec must have no zero rows"):
        SAEDictionary(dead, inference="omp")
    with pytest.raises(ValueError, match=r"x must have shape \(n, 6\)"):
        SAEDictionary(make_sae()).fit(X[:, 1:], generator=generator())


# Bits


def test_description_length_by_hand():
    assert description_length(4, 2, 8) == pytest.approx(math.log2(6) + 16)
    assert description_length(4, 0, 8) == 0
    assert description_length(4, 4, 1.5) == pytest.approx(6)
    each = torch.tensor([0, 1, 2])  # the mean of 0, 2 + 8 and log₂ 6 + 16, not the bits at 1
    expected = (0 + 10 + math.log2(6) + 16) / 3
    assert description_length(4, each, 8) == pytest.approx(expected)
    assert description_length(0, 0) == 0


@given(n_atoms=st.integers(1, 5000), share=st.floats(0, 1))
def test_description_length_agrees_with_exact_binomials(n_atoms, share):
    l0 = round(share * min(n_atoms, 60))
    exact = math.log2(math.comb(n_atoms, l0))
    assert description_length(n_atoms, l0, 0) == pytest.approx(exact, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "l0", "expected"),
    [
        ("mean", 3, 0),
        ("pca", 3, 24),
        ("pca, topk", 3, math.log2(10) + 24),
        ("ica", 1, 2 + 8),
        ("k-means", 7, math.log2(10)),
        ("k-means with gain", 7, math.log2(10) + 8),
        ("residual vq", 2, 2 * math.log2(5)),
        ("random directions, omp", 2, math.log2(45) + 16),
        ("frozen sae", 2, math.log2(45) + 16),
    ],
)
def test_every_method_pays_for_what_it_must_say(name, l0, expected, fitted):
    assert fitted[name].bits(l0) == pytest.approx(expected)


def test_bits_follow_the_atoms_that_are_used_not_those_allowed():
    true = TrueDictionary(torch.eye(3), inference="topk").fit(torch.eye(3), generator=generator())
    x = torch.tensor([[1.0, 2.0, 0.0], [-1.0, -1.0, -1.0]])
    row = account(true, x, 3)
    assert row["l0"] == 1
    assert row["bits"] == pytest.approx((math.log2(3) + 16) / 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", 6),
        ("pca", 36 + 6),
        ("ica", 24 + 24 + 6),
        ("nmf", 30 + 6),
        ("k-means", 60 + 6),
        ("residual vq", 90 + 6),
        ("sae, encoder", 60 + 60 + 10 + 6),
        ("sae, omp", 60 + 6),
        ("frozen sae", 60 + 60 + 10 + 6),
    ],
)
def test_parameters_are_counted(name, expected, fitted):
    assert fitted[name].n_parameters == expected


BAD_BITS = {
    r"l0 must be in \[0, 4\], got 5": (4, 5, 8),
    r"l0 must be in \[0, 4\], got -1": (4, torch.tensor([2, -1]), 8),
    "l0 must be an int": (4, 2.5, 8),
    "l0 must be an int or one int for each input": (4, torch.tensor([2.5]), 8),
    "bits_per_value must be in": (4, 2, -1.0),
    "n_atoms must be at least 0": (-1, 0, 8.0),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD_BITS)
def test_bits_of_bad_input_are_refused(message):
    with pytest.raises((ValueError, TypeError), match=message):
        description_length(*BAD_BITS[message])


# The table


def test_the_table_has_one_row_for_each_method_and_l0(fitted):
    methods = {"Mean": fitted["mean"], "PCA": fitted["pca"]}
    table = evaluate_baselines(methods, X_TEST, [1, 3])
    assert table["method"].tolist() == ["Mean", "Mean", "PCA", "PCA"]
    assert table["l0_allowed"].tolist() == [1, 3, 1, 3]
    assert table.loc[3, "mse"] == account(fitted["pca"], X_TEST, 3)["mse"]


def test_the_table_takes_other_l0s_for_each_method(fitted):
    methods = {"Mean": fitted["mean"], "VQ": fitted["residual vq"]}
    table = evaluate_baselines(methods, X_TEST, {"Mean": [0], "VQ": [1, 3]})
    assert table["l0_allowed"].tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match=r"l0s must have the names \['Mean', 'VQ'\]"):
        evaluate_baselines(methods, X_TEST, {"Mean": [0]})
    with pytest.raises(ValueError, match=r"l0 must be in \[0, 3\], got 4"):
        evaluate_baselines(methods, X_TEST, [4])


@pytest.mark.usefixtures("unchecked")
def test_the_table_takes_baselines_only():
    with pytest.raises(TypeError, match="method must be Baseline, got 3"):
        evaluate_baselines({"three": 3}, X_TEST, [1])
    assert issubclass(PCA, Baseline)
