"""SAEs with a part kept random: that part stays, the others learn."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from saebook.baselines import FrozenSAE, SAEDictionary, account
from saebook.baselines.frozen_sae import within_cosine
from saebook.saes import inference_sae
from saebook.worlds import make_independent_world, make_orthonormal_directions

N_ATOMS = 8
WORLD = make_independent_world(
    torch.full((6,), 0.3),
    make_orthonormal_directions(6, 10, generator=torch.Generator().manual_seed(0)),
)
X = WORLD.sample(2000, torch.Generator().manual_seed(1)) + 0.5  # a mean to take off


def trained(kind, x=X, **settings):
    settings = {"n_atoms": N_ATOMS, "k": 2.0, "steps": 150, "lr": 1e-2, **settings}
    return FrozenSAE(kind=kind, **settings).fit(x, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def fitted():
    return {kind: trained(kind) for kind in ("decoder", "soft_decoder", "encoder", "nothing")}


@pytest.fixture(scope="module")
def start():
    """The directions that all of them start from: those of a decoder that does not move."""
    generator = torch.Generator().manual_seed(2)
    return normalize(torch.randn(N_ATOMS, 10, generator=generator), dim=1)


def test_a_frozen_decoder_does_not_move_and_its_encoder_does(fitted, start):
    assert torch.equal(fitted["decoder"].dictionary, start)
    assert not torch.allclose(fitted["decoder"].sae.W_enc, start.T, atol=0.1)


def test_a_soft_frozen_decoder_turns_to_its_bound_and_not_beyond(fitted, start):
    cosines = torch.cosine_similarity(fitted["soft_decoder"].dictionary, start)
    assert cosines.min().item() == pytest.approx(0.8, abs=1e-5)
    free = torch.cosine_similarity(fitted["nothing"].dictionary, start)
    assert free.min() < 0.7


def test_a_frozen_encoder_does_not_move_and_its_decoder_does(fitted, start):
    sae = fitted["encoder"].sae
    assert torch.equal(sae.W_enc, start.T)
    torch.testing.assert_close(sae.b_enc.data, -X.mean(0) @ start.T)
    assert not torch.allclose(sae.W_dec, start, atol=0.1)


@pytest.mark.parametrize("kind", ["decoder", "soft_decoder", "encoder", "nothing"])
def test_every_kind_learns(fitted, kind):
    losses = fitted[kind].losses
    assert len(losses) == 150
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_freedom_pays(fitted):
    explained = {kind: account(sae, X, 2)["variance_explained"] for kind, sae in fitted.items()}
    assert explained["nothing"] > explained["soft_decoder"] > explained["decoder"]
    assert explained["nothing"] > explained["encoder"]


@pytest.mark.parametrize("kind", ["decoder", "soft_decoder", "encoder", "nothing"])
def test_the_sae_handed_out_has_the_same_function_without_centring(fitted, kind):
    baseline = fitted[kind]
    as_sae = SAEDictionary(baseline.sae, inference="pre_acts")
    as_sae.fit(X, generator=torch.Generator())
    torch.testing.assert_close(as_sae.centre, baseline.centre)
    every = as_sae.reconstruct(X, N_ATOMS)
    torch.testing.assert_close(every, baseline.reconstruct(X, N_ATOMS), rtol=1e-4, atol=1e-4)
    used = inference_sae(baseline.sae)(X)
    assert (X - used).square().sum() < (X - X.mean(0)).square().sum()


def test_the_same_generator_gives_the_same_sae_and_leaves_the_global_one_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = (trained("decoder", steps=5) for _ in range(2))
    assert torch.equal(one.sae.W_enc, two.sae.W_enc)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_trains_in_float64_and_where_gradients_are_off():
    with torch.no_grad():
        baseline = trained("nothing", X.double(), steps=30)
    assert baseline.dictionary.dtype == torch.float64
    assert baseline.losses[-1] < baseline.losses[0]


def test_silent_latents_get_the_auxiliary_loss():
    quick, never = (
        trained("nothing", n_atoms=64, k=1.0, dead_feature_window=window) for window in (1, 10_000)
    )
    assert not torch.equal(quick.dictionary, never.dictionary)


def test_rows_are_turned_within_a_cosine_of_their_directions_by_hand():
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    rows = torch.tensor([[2.0, 1.0], [0.0, 5.0], [-3.0, 3.0], [-2.0, 0.0]])
    found = within_cosine(rows, directions, 0.8)
    # Kept; turned to the cosine 4/5; turned likewise, at norm √18; an opposite row has no side.
    s = math.sqrt(18)
    expected = torch.tensor([[2.0, 1.0], [4.0, 3.0], [-0.6 * s, 0.8 * s], [2.0, 0.0]])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.norm(dim=1), rows.norm(dim=1))


BAD = {
    "kind must be one of": {"kind": "bias"},
    "n_atoms must be at least 1, got 0": {"n_atoms": 0},
    r"k must be in \(0, 8\], got 9": {"k": 9},
    "lr must be in": {"lr": 0.0},
    r"min_cosine must be in \[-1, 1\], got 1.5": {"min_cosine": 1.5},
    "steps must be at least 1": {"steps": 0},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_settings_are_refused_with_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        FrozenSAE(**{"kind": "decoder", "n_atoms": 8, "k": 2, **BAD[message]})
