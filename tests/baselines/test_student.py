"""The student's autoencoders against plain PyTorch modules, and the floor of a sigmoid output."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import nn

from saebook.baselines import LEAST_FLOOR, sigmoid_floor, train_document_autoencoders

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")


@pytest.fixture
def x():
    """Forty-eight documents of twelve standardised numbers."""
    values = torch.randn(48, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (values - values.mean()) / values.std(correction=0)


def standardised(values):
    values = torch.tensor(values, dtype=torch.float64)
    return ((values - values.mean()) / values.std(correction=0))[:, None]


def test_the_floor_by_hand():
    x = torch.tensor([[-2.0, 0.0], [0.25, 1.0], [1.5, 3.0]])
    assert sigmoid_floor(x) == pytest.approx((4 + 0 + 0 + 0 + 0.25 + 4) / 6)


def test_free_logits_come_down_to_the_floor_and_not_below(x):
    logits = torch.zeros_like(x, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1)
    for _ in range(2000):
        loss = (torch.sigmoid(logits) - x).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert sigmoid_floor(x) < loss.item() < sigmoid_floor(x) + 1e-3


def test_the_least_floor_is_reached_by_two_values():
    share = (5 - math.sqrt(5)) / 10
    high, low = math.sqrt((1 - share) / share), -math.sqrt(share / (1 - share))
    floor = share * (high - 1) ** 2 + (1 - share) * low**2
    assert floor == pytest.approx(LEAST_FLOOR, abs=1e-12)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30).filter(lambda v: np.std(v) > 1e-3))
def test_no_standardised_data_have_a_smaller_floor(values):
    assert sigmoid_floor(standardised(values)) >= LEAST_FLOOR - 1e-9


@given(st.integers(1, 999))
def test_no_two_values_have_a_smaller_floor(count):
    x = standardised([1.0] * count + [0.0] * (1000 - count))
    assert sigmoid_floor(x) >= LEAST_FLOOR - 1e-9


def as_module(model, index, output):
    """One of the autoencoders as the PyTorch modules of the proposal."""
    d_in, d_latent = model.W_enc.shape[1:]
    encoder = nn.Sequential(nn.Linear(d_in, d_latent), nn.ReLU()).double()
    linear = nn.Linear(d_latent, d_in)
    decoder = nn.Sequential(linear, nn.Sigmoid() if output == "sigmoid" else nn.Identity()).double()
    encoder[0].weight.data = model.W_enc[index].T.clone()
    encoder[0].bias.data = model.b_enc[index, 0].clone()
    linear.weight.data = model.W_dec[index].T.clone()
    linear.bias.data = model.b_dec[index, 0].clone()
    return encoder, decoder


def train_module(encoder, decoder, x, *, epochs, cluster=None):
    """The training loop of the proposal."""
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    for _ in range(epochs):
        for i in range(0, len(x), 16):
            batch = x[i : i + 16]
            adam.zero_grad()
            encoded = encoder(batch)
            decoded = decoder(cluster(encoded) if cluster else encoded)
            loss = nn.MSELoss()(decoded, batch)
            if not cluster:
                loss = loss + 1e-3 * encoded.abs().mean()
            loss.backward()
            adam.step()


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
def test_seeds_train_together_as_each_does_alone(x, output):
    kind = {"seeds": [3, 4], "d_latent": 8, "batch_size": 16, "output": output}
    fresh = train_document_autoencoders(x, epochs=0, **kind)
    trained = train_document_autoencoders(x, epochs=5, **kind)
    for index in range(2):
        encoder, decoder = as_module(fresh, index, output)
        train_module(encoder, decoder, x, epochs=5)
        torch.testing.assert_close(trained.W_enc[index], encoder[0].weight.T)
        torch.testing.assert_close(trained.W_dec[index], decoder[0].weight.T)
        torch.testing.assert_close(trained.reconstruct(x)[index], decoder(encoder(x)))


def test_the_model_with_centroids_is_the_proposals(x):
    kind = {"seeds": [3], "d_latent": 8, "batch_size": 16, "n_clusters": 4, "code": "centroids"}
    fresh = train_document_autoencoders(x, epochs=0, **kind)
    trained = train_document_autoencoders(x, epochs=3, **kind)

    state = np.random.RandomState(3)

    def cluster(encoded):
        kmeans = KMeans(4, n_init=1, random_state=state)
        labels = kmeans.fit_predict(encoded.detach().cpu().numpy())
        return torch.tensor(kmeans.cluster_centers_)[labels]

    encoder, decoder = as_module(fresh, 0, "sigmoid")
    train_module(encoder, decoder, x, epochs=3, cluster=cluster)
    torch.testing.assert_close(trained.b_dec[0, 0], decoder[0].bias)
    state.seed(3)
    error = (decoder(cluster(encoder(x))) - x).square().mean()
    assert trained.mse(x).item() == pytest.approx(error.item())


def test_centroids_cut_the_gradient_to_the_encoder_and_straight_through_does_not(x):
    kind = {"seeds": [1, 2], "d_latent": 8, "batch_size": 16, "n_clusters": 4}
    fresh = train_document_autoencoders(x, epochs=0, **kind)
    cut = train_document_autoencoders(x, epochs=2, code="centroids", **kind)
    through = train_document_autoencoders(x, epochs=2, code="straight_through", **kind)
    assert torch.equal(cut.W_enc, fresh.W_enc)
    assert torch.equal(cut.b_enc, fresh.b_enc)
    assert not torch.equal(cut.W_dec, fresh.W_dec)
    assert (through.W_enc != fresh.W_enc).any(dim=(1, 2)).all()


def test_a_model_with_centroids_gives_at_most_so_many_outputs(x):
    model = train_document_autoencoders(
        x, seeds=[0, 1], epochs=1, d_latent=8, batch_size=16, n_clusters=4, code="centroids"
    )
    for outputs in model.reconstruct(x):
        assert len(outputs.unique(dim=0)) == 4
    assert (model.mse(x, batch_size=16) < model.mse(x)).all()  # four codes a batch, not in all


def test_errors_of_parts_average_to_the_error_of_all(x):
    model = train_document_autoencoders(x, seeds=[0], epochs=1, d_latent=8)
    torch.testing.assert_close(model.mse(x, batch_size=7), model.mse(x))


def test_losses_fall_and_weights_need_no_gradient(x):
    model = train_document_autoencoders(x, seeds=[0, 1], epochs=4, d_latent=8, batch_size=16)
    assert model.losses.shape == (2, 4)
    assert (model.losses[:, -1] < model.losses[:, 0]).all()
    assert not any(getattr(model, name).requires_grad for name in WEIGHTS)


def test_the_same_seed_gives_the_same_autoencoder(x):
    kind = {"epochs": 1, "d_latent": 8, "batch_size": 16}
    both = train_document_autoencoders(x, seeds=[5, 6], **kind)
    alone = train_document_autoencoders(x, seeds=[6], **kind)
    torch.testing.assert_close(both.W_dec[1:], alone.W_dec)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("output", "tanh"),
        ("code", "medoids"),
        ("epochs", -1),
        ("d_latent", 0),
        ("lr", 0.0),
        ("l1_coefficient", -1.0),
        ("batch_size", 0),
        ("n_clusters", 0),
    ],
)
def test_an_unusable_argument_is_named(x, argument, value):
    with pytest.raises(ValueError, match=argument):
        train_document_autoencoders(x, **{"seeds": [0], "epochs": 1, argument: value})


def test_a_batch_too_small_for_its_clusters_is_refused(x):
    with pytest.raises(ValueError, match="n_clusters = 10"):
        train_document_autoencoders(x, seeds=[0], epochs=1, batch_size=20, code="centroids")


def test_losses_are_means_over_the_batches_of_an_epoch(x):
    kind = {"seeds": [3, 4], "d_latent": 8, "lr": 1e-12}
    model = train_document_autoencoders(x, epochs=2, batch_size=20, **kind)  # 20, 20 and 8
    for seed in range(2):
        losses = [
            (model.reconstruct(part)[seed] - part).square().mean()
            + 1e-3 * model.encode(part)[seed].mean()
            for part in (x[:20], x[20:40], x[40:])
        ]
        mean = sum(loss.item() for loss in losses) / 3
        assert model.losses[seed].tolist() == pytest.approx([mean, mean])


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (3, "seeds must be a sequence of whole numbers, got int"),
        ([], "seeds must hold at least one whole number, got none"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_seeds_that_are_no_list_of_numbers_are_named(x, seeds, message):
    with pytest.raises((TypeError, ValueError), match=message):
        train_document_autoencoders(x, seeds=seeds, epochs=1)


def test_a_seed_that_is_no_whole_number_is_named(x):
    with pytest.raises(TypeError, match="seeds"):
        train_document_autoencoders(x, seeds=[0.5], epochs=1)
