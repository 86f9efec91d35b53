"""Stacked toy models against autograd, single models, closed forms and quadrature."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calls import called
from saebook.toy_models import (
    ToyModels,
    ToyTask,
    feature_dimensionality,
    feature_errors,
    make_toy_models,
    make_toy_task,
    mean_loss,
    pair_loss,
    pair_losses,
    train_toy_models,
)
from saebook.toy_models.pairs import _support
from saebook.toy_models.steps import Scratch, Weights, gradients

KINDS = [
    {"tied": True, "relu_hidden": False},
    {"tied": True, "relu_hidden": True},
    {"tied": False, "relu_hidden": True},
]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def three_models(**kind):
    sizes = {"n_models": 3, "n_features": 6, "d_hidden": 2}
    return make_toy_models(**sizes, generator=seeded(0), dtype=torch.float64, **kind)


def three_tasks(**kind):
    density = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64)
    return make_toy_task(density, 0.8 ** torch.arange(6, dtype=torch.float64), **kind)


def trained(models, task, **options):
    options = {"steps": 30, "batch_size": 16, "lr": 1e-2, **options}
    return called(train_toy_models, models, task, generator=seeded(1), **options)


def plain_loss(models, task, acts):
    """The loss of each model as the paper writes it, with nothing stacked but the data."""
    losses = []
    for j in range(models.n_models):
        W = models.W[j]
        h = acts[j] @ (W if models.W_in is None else models.W_in[j])
        out = torch.relu((torch.relu(h) if models.relu_hidden else h) @ W.T + models.b[j])
        target = acts[j].abs() if task.target == "absolute" else acts[j]
        losses.append(((target - out) ** 2 * task.importance[j]).sum(-1).mean())
    return torch.stack(losses)


@pytest.mark.parametrize("target", ["identity", "absolute"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd(kind, target):
    models, task = three_models(**kind), three_tasks(target=target)
    models.b.normal_(generator=seeded(3))
    acts = task.sample(50, generator=seeded(2))
    W_in = models.W if models.W_in is None else models.W_in
    weights = Weights(W=models.W, W_in=W_in, b=models.b, relu_hidden=models.relu_hidden)
    scale = task.importance[..., None] / 50
    found = gradients(weights, acts.mT, task.target_of(acts).mT, scale, Scratch(weights, batch=50))
    for parameter in weights.parameters():
        parameter.requires_grad_()
    wanted = torch.autograd.grad(plain_loss(models, task, acts).sum(), weights.parameters())
    torch.testing.assert_close(found, list(wanted), rtol=1e-10, atol=1e-12)
    assert min(float(grad.abs().max()) for grad in found) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_each_model_of_a_stack_trains_as_it_would_alone_with_autograd_and_torchs_adam(kind):
    models, task, steps = three_models(**kind), three_tasks(), 30
    stacked = trained(models, task, steps=steps)
    for j in range(3):
        names = [name for name in ("W", "b", "W_in") if getattr(models, name) is not None]
        one = {name: getattr(models, name)[j : j + 1].clone() for name in names}
        alone = ToyModels(**one, relu_hidden=models.relu_hidden)
        only = replace(task, density=task.density[j : j + 1], importance=task.importance[j : j + 1])
        for parameter in one.values():
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(one.values(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, 2 * (1 - step / steps))
        )
        generator = seeded(1)
        for _ in range(steps):
            optimizer.zero_grad()
            plain_loss(alone, only, only.sample(16, generator=generator)).sum().backward()
            optimizer.step()
            schedule.step()
        for name, parameter in one.items():
            torch.testing.assert_close(
                getattr(stacked, name)[j], parameter.detach()[0], rtol=0, atol=1e-6
            )


def test_training_leaves_the_initial_weights_and_depends_on_the_generators_alone():
    models, task = three_models(), three_tasks()
    before = models.W.clone()
    first, again = trained(models, task), trained(models, task)
    assert torch.equal(models.W, before)
    assert torch.equal(first.W, again.W) and not torch.equal(first.W, before)
    assert not first.W.requires_grad and first.W.grad is None


def test_training_lowers_the_loss_and_keeps_tied_weights_tied():
    models, task = three_models(), three_tasks()
    after = trained(models, task, steps=300, batch_size=64)
    before, now = (mean_loss(m, task, n_samples=4000, generator=seeded(2)) for m in (models, after))
    assert bool((now < 0.8 * before).all())
    assert after.W_in is None
    assert trained(three_models(tied=False), task).W_in is not None


def test_outputs_are_those_worked_out_by_hand():
    models = ToyModels(
        W=torch.tensor([[[1.0], [-1.0]]]), b=torch.tensor([[0.0, 0.5]]), relu_hidden=False
    )
    acts = torch.tensor([[1.0, 0.25], [0.0, 1.0]])
    assert torch.equal(models.hidden(acts), torch.tensor([[[0.75], [-1.0]]]))
    assert torch.equal(models(acts), torch.tensor([[[0.75, 0.0], [0.0, 1.5]]]))
    relu = replace(models, relu_hidden=True)
    assert torch.equal(relu(acts), torch.tensor([[[0.75, 0.0], [0.0, 0.5]]]))
    separate = replace(models, W_in=torch.tensor([[[2.0], [0.0]]]))
    assert torch.equal(separate.hidden(acts), torch.tensor([[[2.0], [0.0]]]))
    assert torch.equal(models[[0]].W, models.W) and models[[0]].n_models == 1


def test_features_fire_as_often_as_their_density_says_and_are_uniform():
    task, n = three_tasks(), 40_000
    acts = task.sample(n, generator=seeded(0))
    assert acts.shape == (3, n, 6)
    fires = (acts > 0).double().mean(1)
    error = 5 * (task.density * (1 - task.density) / n).sqrt()
    assert bool(((fires - task.density).abs() < error).all())
    torch.testing.assert_close(acts.var(1), task.target_variance, rtol=0.05, atol=0)
    assert bool((acts[1][acts[2] > 0] == acts[2][acts[2] > 0]).all())  # one draw for all models
    signed = three_tasks(target="absolute").sample(n, generator=seeded(0))
    assert abs(float(signed.mean())) < 0.01 and float(signed.min()) < -0.99
    assert torch.equal(three_tasks(target="absolute").target_of(signed), signed.abs())


@pytest.mark.parametrize(("pairs", "together"), [("correlated", 1.0), ("anticorrelated", 0.0)])
def test_pairs_fire_together_always_or_never(pairs, together):
    task = three_tasks(pairs=pairs)
    acts = task.sample(20_000, generator=seeded(0))
    first, second, other = (acts[..., i] > 0 for i in (0, 1, 2))
    torch.testing.assert_close(second.double().mean(1), task.density[:, 1], rtol=0.1, atol=0)
    assert float((second & first).sum() / first.sum()) == together
    assert abs(float((other & first)[0].double().mean()) - 0.25) < 0.02  # pairs are independent
    assert not torch.equal(acts[..., 0], acts[..., 1])  # magnitudes differ


def test_errors_of_ignored_features_are_the_variance_of_the_target():
    task = three_tasks()
    blind = ToyModels(W=torch.zeros(3, 6, 2).double(), b=task.density / 2)
    found = feature_errors(blind, task, n_samples=200_000, generator=seeded(0))
    torch.testing.assert_close(found, task.target_variance, rtol=0.03, atol=0)
    loss = mean_loss(blind, task, n_samples=200_000, generator=seeded(0))
    torch.testing.assert_close(loss, (found * task.importance).sum(1))


def test_errors_do_not_depend_on_how_samples_are_cut_into_chunks(monkeypatch):
    models, task = three_models(), three_tasks()
    monkeypatch.setattr("saebook.toy_models.training.CHUNK", 18 * 7)
    found = feature_errors(models, task, n_samples=20, generator=seeded(0))
    generator = seeded(0)
    acts = torch.cat([task.sample(n, generator=generator) for n in (7, 7, 6)], dim=1)
    torch.testing.assert_close(found, (models(acts) - acts).square().mean(1))


def test_dimensionality_of_known_arrangements():
    angles = torch.arange(5) * 2 * math.pi / 5
    pentagon = torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(feature_dimensionality(pentagon), torch.full((5,), 2 / 5))
    antipodal = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(
        feature_dimensionality(antipodal), torch.tensor([0.5, 0.5, 1.0, 0.0])
    )
    assert feature_dimensionality(torch.randn(2, 3, 5, 4, generator=seeded(0))).shape == (2, 3, 5)


@given(
    st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.sampled_from([1e-3, 1.0, 50])
)
@settings(max_examples=60, deadline=None)
def test_dimensionalities_sum_to_at_most_the_rank(seed, n_features, d_hidden, scale):
    W = scale * torch.randn(n_features, d_hidden, generator=seeded(seed), dtype=torch.float64)
    W[0] *= 100
    W[-1] = 0.0 if n_features > 2 else W[-1]
    dimensionality = feature_dimensionality(W)
    assert float(dimensionality.sum()) <= int(torch.linalg.matrix_rank(W)) + 1e-9
    assert bool(((dimensionality >= 0) & (dimensionality <= 1 + 1e-9)).all())


def a_pair_task(density=(0.5, 0.2), importance=(1.0, 0.4)):
    return ToyTask(
        density=torch.tensor([density], dtype=torch.float64),
        importance=torch.tensor([importance], dtype=torch.float64),
    )


def test_the_support_of_a_pair_has_the_moments_of_the_features():
    task = a_pair_task()
    acts, weights = _support(task, 6)
    assert abs(float(weights.sum()) - 1) < 1e-12
    mean = weights @ acts.T
    torch.testing.assert_close(mean, task.density / 2)
    torch.testing.assert_close(weights @ acts.T.square() - mean.square(), task.target_variance)
    product = float(weights @ acts.prod(0))
    assert abs(product - float(task.density.prod()) / 4) < 1e-12  # independent


def test_the_exact_loss_of_a_pair_is_that_of_many_samples():
    density = torch.rand(5, 2, generator=seeded(0), dtype=torch.float64)
    task = ToyTask(density=density, importance=torch.ones_like(density))
    W = torch.randn(5, 2, 1, generator=seeded(1), dtype=torch.float64)
    b = 0.3 * torch.randn(5, 2, generator=seeded(2), dtype=torch.float64)
    sampled = mean_loss(ToyModels(W=W, b=b), task, n_samples=400_000, generator=seeded(3))
    torch.testing.assert_close(pair_loss(W, b, task), sampled, rtol=0.02, atol=0)


def test_the_costs_of_ignoring_and_of_interference_are_their_closed_forms():
    task = a_pair_task()
    found = pair_losses(task)
    W = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]], [[1.0], [-1.0]]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.1], [0.25, 0.0], [0.0, 0.0]], dtype=torch.float64)
    thrice = ToyTask(density=task.density.repeat(3, 1), importance=task.importance.repeat(3, 1))
    exact = pair_loss(W, b, thrice)
    closed = torch.stack([found.first_only, found.second_only, found.antipodal])[:, 0]
    torch.testing.assert_close(exact, closed, rtol=5e-4, atol=0)
    assert abs(float(found.antipodal) - 1.4 * 0.5 * 0.2 / 6) < 1e-12
    assert abs(float(found.first_only) - 0.4 * (0.2 / 3 - 0.04 / 4)) < 1e-12


def test_the_fitted_pair_is_no_worse_than_the_plain_one_and_a_minimum():
    task = a_pair_task()
    found = pair_losses(task)
    lowest = float(found.antipodal_fitted)
    assert lowest < float(found.antipodal)
    torch.testing.assert_close(pair_loss(found.W, found.b, task), found.antipodal_fitted)
    for seed in range(20):
        W = found.W + 0.02 * torch.randn(1, 2, 1, generator=seeded(seed), dtype=torch.float64)
        b = found.b + 0.02 * torch.randn(1, 2, generator=seeded(seed + 99), dtype=torch.float64)
        assert float(pair_loss(W, b, task)) > lowest


ONES = torch.ones(2, 4)
MODELS = make_toy_models(n_models=2, n_features=4, d_hidden=2, generator=seeded(0))
TASK = ToyTask(density=ONES / 2, importance=ONES)
SIZES = {"n_models": 2, "n_features": 4, "d_hidden": 2, "generator": seeded(0)}
RUN = {"steps": 2, "generator": seeded(0)}
PAIR_W = torch.ones(1, 2, 1).double()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: replace(TASK, density=ONES[0]), r"density must have shape \(n_models, n\)"),
        (lambda: replace(TASK, density=2 * ONES), r"density must be in \[0, 1\], got 2 at"),
        (lambda: replace(TASK, importance=ONES[:1]), "importance must have the shape of density"),
        (lambda: replace(TASK, importance=-ONES), "importance must not be negative, got -1"),
        (lambda: replace(TASK, importance=ONES * math.nan), "importance must be finite, got nan"),
        (lambda: replace(TASK, pairs="none"), "pairs must be one of .*, got 'none'"),
        (lambda: replace(TASK, target="abs"), "target must be one of .*, got 'abs'"),
        (
            lambda: ToyTask(density=ONES[:, :3], importance=ONES[:, :3], pairs="correlated"),
            "density must have an even number of features, got 3",
        ),
        (
            lambda: replace(TASK, density=0.6 * ONES, pairs="anticorrelated"),
            "density must sum to at most 1 in each anticorrelated pair, got 1.2",
        ),
        (lambda: make_toy_task(ONES, ONES[0]), r"density must have shape \(n_models\)"),
        (lambda: make_toy_task(ONES[0], ONES), r"importance must have shape \(n_features\)"),
        (lambda: TASK.sample(0, generator=seeded(0)), "n must be at least 1, got 0"),
        (lambda: TASK.sample(1, generator="3"), "generator must be a torch.Generator"),
        (lambda: make_toy_models(**SIZES | {"d_hidden": 0}), "d_hidden must be at least 1, got 0"),
        (lambda: make_toy_models(**SIZES | {"n_models": 2.0}), "n_models must be an int, got 2.0"),
        (lambda: make_toy_models(**SIZES | {"generator": 0.5}), "generator must be a torch.Gen"),
        (lambda: ToyModels(W=ONES, b=ONES), r"W must have shape \(n_models, n_features, d_hidden"),
        (lambda: replace(MODELS, b=ONES[:, :1]), r"b must have shape \(2, 4\), got \(2, 1\)"),
        (lambda: replace(MODELS, b=ONES / 0), r"b must be finite, got inf"),
        (lambda: replace(MODELS, W_in=ONES), "W_in must have the shape of W"),
        (lambda: MODELS(ONES[:, :3]), r"feature_acts must have shape \(batch, 4\), got \(2, 3\)"),
        (lambda: MODELS.hidden(ONES[None]), r"feature_acts must have shape \(2, batch, 4\)"),
        (lambda: MODELS([1.0]), "feature_acts must be a torch.Tensor, got list"),
        (lambda: called(train_toy_models, 3, TASK, **RUN), "models must be ToyModels, got 3"),
        (lambda: called(train_toy_models, MODELS, 3, **RUN), "task must be ToyTask, got 3"),
        (
            lambda: called(train_toy_models, MODELS[[0]], TASK, **RUN),
            "task must be for 1 models of 4 features, got 2 of 4",
        ),
        (
            lambda: called(
                train_toy_models,
                MODELS,
                ToyTask(density=ONES.double(), importance=ONES.double()),
                **RUN,
            ),
            "task must have the dtype torch.float32, got torch.float64",
        ),
        (
            lambda: called(train_toy_models, MODELS, TASK, **RUN | {"steps": 0}),
            "steps must be at least 1",
        ),
        (
            lambda: called(train_toy_models, MODELS, TASK, **RUN, batch_size=0),
            "batch_size must be at lea",
        ),
        (
            lambda: called(train_toy_models, MODELS, TASK, **RUN, lr=0.0),
            r"lr must be in \(0, inf\), got 0",
        ),
        (
            lambda: called(train_toy_models, MODELS, TASK, **RUN | {"generator": None}),
            "generator must be a torch.Generator",
        ),
        (
            lambda: feature_errors(MODELS, TASK, n_samples=0, generator=seeded(0)),
            "n_samples must be at least 1, got 0",
        ),
        (
            lambda: mean_loss(MODELS, TASK, n_samples=5, generator=None),
            "generator must be a torch.Generator",
        ),
        (lambda: feature_dimensionality(ONES[0]), r"W must have shape \(\*models, n_features"),
        (lambda: feature_dimensionality(ONES / 0), "W must be finite, got inf"),
        (lambda: pair_losses(TASK), "task must have 2 features .* got 4 features"),
        (lambda: pair_losses(replace(a_pair_task(), target="absolute")), "target absolute"),
        (lambda: pair_losses(None), "task must be ToyTask, got None"),
        (
            lambda: pair_loss(PAIR_W, ONES.double(), a_pair_task()),
            r"b must have shape \(1, 2\), got \(2, 4\)",
        ),
        (
            lambda: pair_loss(PAIR_W[0], ONES.double(), a_pair_task()),
            r"W must have shape \(1, 2, d_hidden\), got \(2, 1\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_sparse_features_make_a_pentagon_and_dense_ones_an_orthogonal_pair():
    density = torch.tensor([0.05, 1.0]).repeat_interleave(5)
    task = make_toy_task(density, 0.9 ** torch.arange(5.0))
    start = make_toy_models(n_models=10, n_features=5, d_hidden=2, generator=seeded(0))
    found = trained(start, task, steps=1500, batch_size=256)
    losses = mean_loss(found, task, n_samples=50_000, generator=seeded(2)).view(2, 5)
    sparse, dense = (found.W[5 * i + int(row.argmin())] for i, row in enumerate(losses))
    assert bool(((feature_dimensionality(sparse) - 0.4).abs() < 0.02).all())
    assert feature_dimensionality(dense).round(decimals=1).tolist() == [1, 1, 0, 0, 0]
