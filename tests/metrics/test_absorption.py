import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens.synthetic import compute_classification_metrics
from sklearn.metrics import f1_score

from saebook import metrics


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse(*shape: int, seed: int = 0, p: float = 0.5) -> torch.Tensor:
    fires = torch.rand(shape, generator=generator(seed)) < p
    return torch.rand(shape, generator=generator(seed + 1), dtype=torch.float64) * fires


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values)


SEEDS = st.integers(0, 10_000)

# A parent (feature 0) and its children (1, 2): every state of a small tree.
TREE = ints(-1, 0, 0)
STATES = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]]).double()


def relu_latent(*encoder: float) -> torch.Tensor:
    """The activations, (5, 1), of a latent with these components on the states."""
    return torch.relu(STATES @ torch.tensor(encoder, dtype=torch.float64))[:, None]


def gap(latent_acts, feature_acts=STATES, parents=TREE, latent_of_feature=None, **settings):
    latent = ints(0, -1, -1) if latent_of_feature is None else latent_of_feature
    settings = {"with_siblings": True, **settings}
    return metrics.absorption_gap(latent_acts, feature_acts, parents, latent, **settings)


# The absorption gap


@pytest.mark.parametrize(
    ("encoder", "gaps", "silent"),
    [
        ((2.0, 0.0, 0.0), [0.0, 0.0], [0.0, 0.0]),  # the true latent
        ((1.0, -1.0, 0.0), [1.0, 0.5], [1.0, 0.5]),  # absorbed by child 1: silent where it fires
        ((1.0, -0.5, 0.0), [0.5, 0.25], [0.0, 0.0]),  # half absorbed: weaker, but never silent
        ((1.0, 0.2, 0.2), [-0.3, -0.3], [0.0, 0.0]),  # hedging: harder with a child, 1.2 and 1.4
    ],
)
def test_absorption_gap_of_small_cases_worked_by_hand(encoder, gaps, silent):
    table = gap(relu_latent(*encoder))
    assert table["gap"].tolist() == pytest.approx(gaps)
    assert table["silent_gap"].tolist() == pytest.approx(silent)


@pytest.mark.parametrize(
    ("encoder", "gaps", "silent"),
    [
        ((2.0, 0.0, 0.0), [0.0, 0.0], [0.0, 0.0]),
        ((1.0, -1.0, 0.0), [1.0, 0.0], [1.0, 0.0]),  # child 2 is not blamed for child 1
        ((1.0, -0.5, 0.3), [0.5, -0.3], [0.0, 0.0]),
    ],
)
def test_by_default_a_child_is_measured_without_its_siblings(encoder, gaps, silent):
    latent = relu_latent(*encoder)
    table = metrics.absorption_gap(latent, STATES, TREE, ints(0, -1, -1))
    assert table["gap"].tolist() == pytest.approx(gaps)
    assert table["silent_gap"].tolist() == pytest.approx(silent)
    assert table["share_both"].tolist() == pytest.approx([0.2, 0.2])


def test_the_table_names_each_pair_and_what_was_measured():
    latent_acts = torch.cat([torch.zeros(5, 1).double(), relu_latent(2.0, -2.0, -1.0)], dim=1)
    table = gap(latent_acts, latent_of_feature=ints(1, 0, -1))
    expected = {
        "parent": [0, 0],
        "child": [1, 2],
        "latent": [1, 1],
        "gap": [1, 0.75],
        "silent_gap": [1, 0.5],
        "share_alone": [0.2, 0.2],
        "mean_alone": [2, 2],
        "silent_alone": [0, 0],
        "share_both": [0.4, 0.4],
        "mean_both": [0, 0.5],
        "silent_both": [1, 0.5],
    }
    assert list(table.columns) == list(expected)
    for column, values in expected.items():
        assert table[column].tolist() == pytest.approx(values)


def test_weights_are_the_probabilities_of_the_states():
    # With child 1, the latent is 0 in state 2 and 1 in state 4, which is three times likelier.
    weights = torch.tensor([4.0, 2.0, 1.0, 0.0, 3.0]).double()
    latent_acts = relu_latent(1.0, -1.0, 1.0)
    table = gap(latent_acts, weights=weights)
    assert table["gap"].tolist() == pytest.approx([0.25, 0.0])
    assert table["share_both"].tolist() == pytest.approx([0.4, 0.3])
    counts = weights.long()
    repeated = gap(latent_acts.repeat_interleave(counts, 0), STATES.repeat_interleave(counts, 0))
    assert np.allclose(table.to_numpy(), repeated.to_numpy())


def test_every_parent_with_a_latent_has_its_direct_children_only():
    parents = ints(-1, 0, 1, 1, -1, 4)  # 0 → 1 → (2, 3), and 4 → 5 where 4 has no latent
    feature_acts = sparse(200, 6)
    table = gap(sparse(200, 3, seed=2), feature_acts, parents, ints(2, 0, -1, 1, -1, 1))
    assert table[["parent", "child", "latent"]].to_numpy().tolist() == [
        [0, 1, 2],
        [1, 2, 0],
        [1, 3, 0],
    ]


def naive_gap(a, acts, parent, child, children, w):
    """The mean activations and silences by a loop over samples."""
    groups = {"alone": [], "both": []}
    for n in range(len(a)):
        if acts[n, parent] > 0 and not any(acts[n, other] > 0 for other in children):
            groups["alone"].append((a[n], w[n]))
        if acts[n, parent] > 0 and acts[n, child] > 0:
            groups["both"].append((a[n], w[n]))
    total = {g: sum(w for _, w in pairs) for g, pairs in groups.items()}
    mean = {g: sum(a * w for a, w in pairs) / total[g] for g, pairs in groups.items()}
    silent = {g: sum(w for a, w in pairs if a <= 0) / total[g] for g, pairs in groups.items()}
    return 1 - mean["both"] / mean["alone"], silent["both"] - silent["alone"]


@given(seed=SEEDS)
def test_absorption_gap_agrees_with_a_naive_loop(seed):
    feature_acts, latent_acts = sparse(80, 3, seed=seed), sparse(80, 1, seed=seed + 2)
    weights = 0.1 + torch.rand(80, generator=generator(seed), dtype=torch.float64)
    table = gap(latent_acts, feature_acts, weights=weights)
    for row in table.itertuples():
        expected = naive_gap(
            latent_acts[:, 0].tolist(), feature_acts, 0, row.child, [1, 2], weights.tolist()
        )
        assert (row.gap, row.silent_gap) == pytest.approx(expected)


@given(scale=st.floats(0.1, 10), seed=SEEDS)
def test_the_gap_is_blind_to_the_scale_of_the_latent(scale, seed):
    feature_acts, latent_acts = sparse(80, 3, seed=seed), sparse(80, 1, seed=seed + 2)
    gaps = [gap(c * latent_acts, feature_acts)["gap"].to_numpy() for c in (1, scale)]
    assert np.allclose(*gaps)


def test_an_empty_group_or_a_latent_silent_for_the_parent_alone_has_no_gap():
    without_alone = gap(relu_latent(1.0, 0.0, 0.0)[2:], STATES[2:])
    assert without_alone[["gap", "silent_gap", "mean_alone"]].isna().all(axis=None)
    assert without_alone["share_alone"].tolist() == [0, 0]
    assert without_alone["mean_both"].tolist() == pytest.approx([1, 1])
    without_both = gap(relu_latent(1.0, 0.0, 0.0)[:2], STATES[:2])
    assert without_both[["gap", "silent_gap", "mean_both"]].isna().all(axis=None)
    assert without_both["mean_alone"].tolist() == pytest.approx([1, 1])
    silent = gap(relu_latent(0.0, 1.0, 0.0))
    assert silent["gap"].isna().all()
    assert silent["silent_gap"].tolist() == pytest.approx([-1, -0.5])


def test_without_a_pair_the_table_is_empty():
    for parents, latent in ((ints(-1, -1, -1), ints(0, 0, 0)), (TREE, ints(-1, 0, 0))):
        table = gap(relu_latent(1.0, 0.0, 0.0), STATES, parents, latent)
        assert table.empty
        assert "silent_gap" in table


# F1 of the matched latents


def test_detector_f1_of_a_small_case_worked_by_hand():
    feature_acts = torch.tensor([[1.0, 2, 0, 0], [3, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    latent_acts = torch.tensor([[0.0, 5], [1, 1], [1, 0], [1, 0]])
    # Feature 0, latent 0: hit, hit, miss, false alarm. Feature 1, latent 1: hit, false alarm.
    f1 = metrics.detector_f1(latent_acts, feature_acts, ints(0, 1, -1, 0))
    torch.testing.assert_close(f1, torch.tensor([2 / 3, 2 / 3, 0, math.nan]), equal_nan=True)


def test_a_feature_that_never_fires_is_nan_with_a_latent_or_without():
    f1 = metrics.detector_f1(torch.eye(2), torch.zeros(2, 3), ints(-1, 0, 1))
    assert f1.isnan().all()


def test_a_dead_latent_detects_nothing():
    f1 = metrics.detector_f1(torch.zeros(2, 1), torch.eye(2), ints(0, 0))
    assert f1.tolist() == [0, 0]


@given(n_features=st.integers(1, 6), seed=SEEDS)
def test_detector_f1_agrees_with_scikit_learn_with_weights(n_features, seed):
    feature_acts, latent_acts = sparse(60, n_features, seed=seed), sparse(60, 4, seed=seed + 2)
    latent = torch.randint(0, 4, (n_features,), generator=generator(seed))
    weights = torch.rand(60, generator=generator(seed), dtype=torch.float64)
    f1 = metrics.detector_f1(latent_acts, feature_acts, latent, weights=weights)
    for feature in range(n_features):
        expected = f1_score(
            feature_acts[:, feature] > 0,
            latent_acts[:, latent[feature]] > 0,
            sample_weight=weights.numpy(),
            zero_division=0,
        )
        assert f1[feature].item() == pytest.approx(expected)


@given(seed=SEEDS)
def test_detector_f1_agrees_with_sae_lens_where_latents_and_features_pair_up(seed):
    feature_acts, noise = sparse(60, 5, seed=seed), sparse(60, 5, seed=seed + 2, p=0.2)
    order = torch.randperm(5, generator=generator(seed))
    directions = torch.eye(5).double()
    latent_acts = (feature_acts + noise)[:, order]
    matching = metrics.match_features(directions[order], directions)
    f1 = metrics.detector_f1(latent_acts, feature_acts, matching.latent)
    theirs = compute_classification_metrics(
        latent_acts, feature_acts, directions[order], directions
    )
    assert f1.mean().item() == pytest.approx(theirs.f1_score, rel=1e-5)


def test_a_feature_without_a_latent_costs_nothing_with_sae_lens():
    latents = torch.eye(2)  # both latents claim feature 0; feature 1 has none
    W_dec = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    feature_acts = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    theirs = compute_classification_metrics(latents, feature_acts, W_dec, torch.eye(2))
    assert theirs.f1_score == pytest.approx(2 / 3)
    f1 = metrics.detector_f1(latents, feature_acts, ints(0, -1))
    assert f1.tolist() == pytest.approx([2 / 3, 0])


# Errors name the argument, its value and what was expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_acts": torch.ones(2)}, r"latent_acts must have shape \(n, d_sae\), got \(2,\)"),
        ({"latent_acts": torch.ones(0, 3)}, "latent_acts must have at least one row"),
        ({"latent_acts": torch.full((2, 3), math.nan)}, "latent_acts must be finite, got nan"),
        ({"feature_acts": torch.ones(3, 2)}, r"feature_acts must have shape \(2, n_features\)"),
        ({"feature_acts": torch.full((2, 2), math.inf)}, "feature_acts must be finite, got inf"),
        ({"latent_of_feature": ints(0, 1, 2)}, r"latent_of_feature must have shape \(2\), got"),
        ({"latent_of_feature": ints(0, 3)}, r"must be in \[-1, 2\], got 3 at index 1"),
        ({"latent_of_feature": ints(-2, 0)}, r"must be in \[-1, 2\], got -2 at index 0"),
        ({"weights": torch.ones(3)}, r"weights must have shape \(2\), got \(3,\)"),
        ({"weights": torch.tensor([1.0, -1.0])}, "weights must be at least 0 .* from -1 to 1"),
        ({"weights": torch.zeros(2)}, "weights must be at least 0 and not all 0, got .* 0 to 0"),
        ({"weights": torch.tensor([1.0, math.nan])}, "weights must be finite, got nan"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_both_measures_refuse_bad_input(arguments, message):
    defaults = {
        "latent_acts": torch.ones(2, 3),
        "feature_acts": torch.ones(2, 2),
        "latent_of_feature": ints(0, 1),
    }
    with pytest.raises(ValueError, match=message):
        metrics.detector_f1(**(defaults | arguments))
    with pytest.raises(ValueError, match=message):
        metrics.absorption_gap(parents=ints(-1, 0), **(defaults | arguments))


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (ints(-1, 0), r"parents must have shape \(3\), got \(2,\)"),
        (ints(-1, 0, 3), r"parents must be in \[-1, 2\], got 3 at index 2"),
        (ints(-1, 1, 0), "parents must not go in a circle, got one through feature 1"),
        (ints(1, 2, 1), "parents must not go in a circle, got one through feature [12]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_absorption_gap_refuses_parents_that_make_no_tree(parents, message):
    with pytest.raises(ValueError, match=message):
        gap(relu_latent(1.0, 0.0, 0.0), STATES, parents)


@pytest.mark.usefixtures("unchecked")
def test_indices_are_a_tensor_of_whole_numbers():
    with pytest.raises(TypeError, match=r"parents must be a torch\.Tensor, got list"):
        gap(relu_latent(1.0, 0.0, 0.0), parents=[-1, 0, 0])
    with pytest.raises(TypeError, match=r"must hold indices of dtype int64 or int32, got torch\.f"):
        metrics.detector_f1(torch.eye(2), torch.eye(2), torch.zeros(2))
