"""The table of measures: of perfect, dead and doubled SAEs, worked out by hand."""

import itertools

import numpy as np
import pytest
import torch
from sae_lens import BatchTopKTrainingSAEConfig, StandardTrainingSAEConfig
from sae_lens.registry import get_sae_training_class

from saebook.evaluation import evaluate
from saebook.worlds import make_independent_world, make_orthonormal_directions

WORLD = make_independent_world(
    torch.full((4,), 0.3),
    make_orthonormal_directions(4, 6, generator=torch.Generator().manual_seed(0)),
)
ACTS, X = WORLD.sample_with_feature_acts(5000, torch.Generator().manual_seed(1))


def sae_of(directions, **cfg):
    """An SAE whose latents are these directions."""
    cfg = StandardTrainingSAEConfig(d_in=6, d_sae=len(directions), **cfg)
    sae = get_sae_training_class("standard")[0](cfg)
    sae.W_dec.data = directions.clone()
    sae.W_enc.data = directions.T.clone()
    sae.b_enc.data -= 1e-3  # rounding must not make a silent latent fire
    return sae


def row(*saes):
    return evaluate(saes, X, ACTS, WORLD.directions)


def test_the_truth_scores_full_marks():
    table = row(sae_of(WORLD.directions))
    assert table["l0"][0] == ACTS.count_nonzero().item() / len(ACTS)
    assert table["variance_explained"][0] > 0.999
    assert table["signed_mcc"][0] == pytest.approx(1)
    assert table["recovered"][0] == 4
    assert table["f1"][0] == pytest.approx(1)
    assert table["dead"][0] == 0
    assert table["uniqueness"][0] == 1


def test_a_turned_and_a_doubled_latent_cost_what_they_should():
    turned = WORLD.directions.clone()
    turned[0] *= -1
    doubled = torch.cat([WORLD.directions, WORLD.directions[:1]])
    table = row(sae_of(turned), sae_of(doubled))
    assert table["signed_mcc"].tolist() == pytest.approx([0.75, 1])
    assert table["recovered"].tolist() == [3, 4]
    assert table["f1"].tolist() == pytest.approx([0.75, 1])
    assert table["dead"].tolist() == pytest.approx([0.25, 0])
    assert table["uniqueness"].tolist() == pytest.approx([1, 4 / 5])


def by_hand(sae):
    """Every column by loops over features and by trying every matching."""
    W_enc, b_enc, W_dec, b_dec = (
        getattr(sae, name).detach().double().numpy()
        for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    x, truth, features = (
        X.double().numpy(),
        ACTS.double().numpy(),
        WORLD.directions.double().numpy(),
    )
    acts = np.maximum((x - b_dec) @ W_enc + b_enc, 0)
    norms = np.sqrt((W_dec**2).sum(1))
    cosines = features @ (W_dec / norms[:, None]).T  # (n_features, d_sae)
    latents = max(
        itertools.permutations(range(len(W_dec)), 4),
        key=lambda order: sum(max(cosines[i, j], 0) for i, j in enumerate(order)),
    )
    matched = [cosines[i, j] for i, j in enumerate(latents)]
    assert min(matched) > 0
    f1, reported = [], []
    for i, j in enumerate(latents):
        fires, heard = truth[:, i] > 0, acts[:, j] > 0
        f1.append(2 * (fires & heard).sum() / (fires.sum() + heard.sum()))
        a, c = truth[fires & heard, i], acts[fires & heard, j] * norms[j]
        reported.append((c @ a) / (a @ a))
    live = [j for j in range(len(W_dec)) if (acts[:, j] > 0).any()]
    nearest = {int(np.abs(cosines[:, j]).argmax()) for j in live}
    rest = x - (acts @ W_dec + b_dec)
    return {
        "l0": (acts > 0).sum() / len(x),
        "variance_explained": 1 - (rest**2).sum() / ((x - x.mean(0)) ** 2).sum(),
        "signed_mcc": np.mean(matched),
        "recovered": sum(cosine > 0.9 for cosine in matched),
        "f1": np.mean(f1),
        "shrinkage": np.mean(reported),
        "dead": 1 - len(live) / len(W_dec),
        "uniqueness": len(nearest) / len(live),
    }


def test_every_column_is_what_loops_over_the_sample_give():
    turned = WORLD.directions + 0.3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    again = turned[:1] + 0.1  # not quite a copy: rounding would choose between equals
    rows = torch.cat([turned, again, -turned[1:2]]) * torch.linspace(0.5, 2, 6)[:, None]
    sae = sae_of(rows)
    sae.W_enc.data = rows.T / rows.norm(dim=1)
    sae.b_enc.data -= torch.tensor([0.1, 0.3, 0.5, 0.2, 0.1, 9.0])
    sae.b_dec.data += 0.05
    table, expected = row(sae), by_hand(sae)
    assert list(table.columns) == list(expected)
    assert table.iloc[0].to_dict() == pytest.approx(expected, rel=1e-5)
    assert 0 < expected["recovered"] < 4
    assert 0 < expected["dead"] < 1
    assert expected["uniqueness"] < 1


def test_an_sae_is_measured_as_it_is_used_after_training():
    cfg = BatchTopKTrainingSAEConfig(d_in=6, d_sae=4, k=4)
    sae = get_sae_training_class("batchtopk")[0](cfg)
    sae.W_dec.data, sae.W_enc.data = WORLD.directions.clone(), WORLD.directions.T.clone()
    sae.topk_threshold.fill_(2.0)  # above every activation
    assert row(sae)["l0"][0] == 0
    assert row(sae)["dead"][0] == 1


BAD = {
    r"x must have shape \(n, 6\), got \(5000, 5\)": {"x": X[:, 1:]},
    r"feature_acts must have shape \(5000, 4\), got \(4999, 4\)": {"feature_acts": ACTS[1:]},
    "directions must have rows of norm 1": {"directions": 2 * WORLD.directions},
    "saes must be TrainingSAE, got 3 of type int": {"saes": [3]},
    "saes must be a sequence of training SAEs, got StandardTrainingSAE": {
        "saes": sae_of(WORLD.directions)
    },
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_what_was_expected(message):
    good = {"x": X, "feature_acts": ACTS, "directions": WORLD.directions, "saes": []}
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(**{**good, **BAD[message]})
