"""Compiled steps against PyTorch's words on odd sizes, and where a step chooses to be sparse."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_lens import (
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAEConfig,
)

from saebook._running import one_thread
from saebook.saes import (
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAEConfig,
    ScheduledBatchTopKTrainingSAEConfig,
)
from saebook.training import TrainingOptions, train_ensemble
from saebook.training.engine import compiled, plain, run, steps
from saebook.training.engine.buffers import Batch, Scratch
from saebook.training.engine.run import Part, Run
from saebook.training.engine.stack import Stack
from saebook.training.engine.steps import gradients, sparse_pays
from saebook.training.initial import fresh_saes


def configs(kind, d_in, d_sae, dtype):
    """Three SAEs whose samples fire little, or whose prefixes are odd."""
    size = {"d_in": d_in, "d_sae": d_sae, "dtype": dtype}
    widths = sorted({1, max(1, d_sae // 2), d_sae})
    prefixes = {"matryoshka_widths": widths, **size}
    betas = [0.3, 2.0, math.inf]
    return {
        "standard": [StandardTrainingSAEConfig(l1_coefficient=c, **size) for c in (0.0, 0.1, 1.0)],
        "jumprelu": [
            JumpReLUTrainingSAEConfig(
                l0_coefficient=c,
                jumprelu_sparsity_loss_mode=mode,
                jumprelu_bandwidth=0.5,
                target_l0=2.0,
                pre_act_loss_coefficient=0.3,
                jumprelu_ste_to_input=c > 1,
                **size,
            )
            for mode in ("tanh", "step", "quadratic")[d_sae % 3 :][:1]
            for c in ((0.1, 0.3) if d_in % 2 else (2.0, 3.0))
        ],
        "topk": [TopKTrainingSAEConfig(k=k, **size) for k in (1, 1, d_sae)],
        "batchtopk": [BatchTopKTrainingSAEConfig(k=k, **size) for k in (0.5, 1, d_sae)],
        "raw": [
            BatchTopKTrainingSAEConfig(
                k=1, apply_b_dec_to_input=False, rescale_acts_by_decoder_norm=False, **size
            )
        ],
        "matryoshka": [
            BalancedMatryoshkaTrainingSAEConfig(inner_loss_multipliers=beta, **prefixes)
            for beta in betas
        ],
        "matryoshka batchtopk": [
            BalancedMatryoshkaBatchTopKTrainingSAEConfig(
                k=1, inner_loss_multipliers=beta, **prefixes
            )
            for beta in betas
        ],
    }[kind]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Steps on one thread, where small ones are compiled too."""
    monkeypatch.setattr(steps, "LEAST_COMPILED", 0)
    with one_thread():
        yield


def both(monkeypatch, cfgs, x, *, weights=None, sparse=False, idle=0):
    """The gradients of the first step in PyTorch's words and compiled, and what is left of x."""
    found = []
    for ops in (plain, compiled):
        monkeypatch.setattr(steps, "compiled", ops)
        saes = fresh_saes(cfgs, [*range(len(cfgs))], None)
        for sae in saes:
            sae.b_dec.data += torch.linspace(-1, 1, len(sae.b_dec))
        stack = Stack(saes, device=x.device, dead_feature_window=5)
        stack.since_fired[:, ::2] = idle
        scratch = Scratch(x, len(cfgs), batch=len(x), cfg=cfgs[0])
        errors = gradients(stack, Batch(x, weights), scratch, 0, sparse=sparse)
        found.append(stack.grads | {"errors": errors, "since_fired": stack.since_fired})
    return found


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["standard", "jumprelu", "topk", "batchtopk", "raw", "matryoshka", "matryoshka batchtopk"],
)
@given(
    seed=st.integers(0, 10_000),
    d_in=st.integers(2, 9),
    d_sae=st.integers(2, 19),
    batch=st.integers(2, 40),
    dtype=st.sampled_from(["float32", "float64"]),
    idle=st.sampled_from([0, 9]),
)
def test_compiled_steps_give_the_gradients_of_plain_ones(
    kind, sparse, seed, d_in, d_sae, batch, dtype, idle
):
    if sparse and "topk" not in kind and kind != "raw":
        return
    cfgs = configs(kind, d_in, d_sae, dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, d_in, generator=generator, dtype=getattr(torch, dtype))
    with pytest.MonkeyPatch.context() as patch:
        expected, found = both(patch, cfgs, x, sparse=sparse, idle=idle)
    for name, value in expected.items():
        scale = value.abs().max().item() + 1e-3
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", ["standard", "matryoshka", "jumprelu"])
def test_samples_may_have_weights(monkeypatch, kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    cfgs = configs(kind, 5, 6, "float64")
    weights = torch.rand(len(cfgs), 1, 7, generator=generator, dtype=torch.float64)
    expected, found = both(monkeypatch, cfgs, x, weights=weights)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_sparse_step_finds_room_for_activations_that_tie():
    x = torch.ones(20, 4, dtype=torch.float64)  # every sample the same
    cfgs = configs("batchtopk", 4, 6, "float64")[:2]
    with pytest.MonkeyPatch.context() as patch:
        expected, found = both(patch, cfgs, x, sparse=True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_one_wide_sae_may_use_several_threads(monkeypatch):
    monkeypatch.setattr("saebook._running.WORTH_A_THREAD", 1)
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = both(monkeypatch, configs("topk", 5, 40, "float64")[:1], x, sparse=True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_few_of_many_latents_make_a_step_sparse():
    wide = [BatchTopKTrainingSAEConfig(k=k, d_in=64, d_sae=1024) for k in (16, 32)]
    assert sparse_pays(wide, 0, 512)
    assert not sparse_pays(wide, 0, 16), "so small a product that lists cost more"
    assert not sparse_pays([dataclasses.replace(cfg, k=300) for cfg in wide], 0, 512)
    assert not sparse_pays([StandardTrainingSAEConfig(d_in=64, d_sae=1024)], 0, 512)


def test_a_schedule_makes_a_step_sparse_once_k_is_small():
    cfg = ScheduledBatchTopKTrainingSAEConfig(
        k=8,
        initial_k=512,
        transition_k_start_step=10,
        transition_k_duration_steps=10,
        d_in=64,
        d_sae=1024,
    )
    assert [sparse_pays([cfg], step, 512) for step in (0, 10, 30)] == [False, False, True]


def test_a_sparse_step_is_taken_where_it_pays_and_can_be_refused(monkeypatch):
    cfg, taken = BatchTopKTrainingSAEConfig(k=2, d_in=8, d_sae=64), []
    monkeypatch.setattr(steps, "LEAST_PRODUCT", 1)
    for name in ("dense", "sparse"):
        work = getattr(compiled, name)
        spy = lambda *args, name=name, work=work: taken.append(name) or work(*args)  # noqa: E731
        monkeypatch.setattr(compiled, name, spy)
    for sparse in (None, False, True):
        options = TrainingOptions(steps=1, batch_size=32, sparse=sparse)
        train_ensemble([cfg], lambda n, g: torch.randn(n, 8, generator=g), options, seeds=1)
    assert taken == ["sparse", "dense", "sparse"]


def allocated(scratch):
    """Bytes of the buffers that steps have asked for."""
    tensors = [
        x for value in vars(scratch).values() for x in (value if type(value) is list else [value])
    ]
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka batchtopk", "jumprelu", "gated"])
def test_a_run_keeps_to_its_workspace(monkeypatch, kind, sparse):
    if sparse and "topk" not in kind:
        return
    size = {"d_in": 24, "d_sae": 200}
    if kind == "gated":
        cfgs = [GatedTrainingSAEConfig(l1_coefficient=0.1, **size)] * 6
    else:
        cfgs = configs(kind, **size, dtype="float32")[:1] * 6
    like = torch.empty(0)
    room = Scratch.bytes_for(4, like=like, batch=256, cfg=cfgs[0], sparse=sparse)
    monkeypatch.setitem(run.WORKSPACE, "cpu", room)
    part = Part(
        saes=fresh_saes(cfgs, [*range(6)], None),
        seeds=[*range(6)],
        lrs=[[1e-3] * 12] * 6,
        memory={},
        n_steps=0,
    )
    options = TrainingOptions(steps=12, batch_size=256, sparse=sparse, dead_feature_window=3)
    generator = torch.Generator().manual_seed(0)
    whole = Run(part, lambda n, g: torch.randn(n, 24, generator=g), options, generator)
    whole.train(path=None, progress=False)
    (scratch,) = whole.scratches
    weights = scratch.like.numel() * scratch.like.element_size()  # are no scratch
    assert [len(group.saes) for group in whole.groups] == [3, 3]
    assert room / 2 < allocated(scratch) - weights <= room
