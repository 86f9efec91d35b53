"""train_ensemble against sae-lens' own trainer, its checkpoints, and its refusals."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAEConfig,
    LoggingConfig,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class

from calls import called
from saebook.saes import (
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAEConfig,
    ScheduledBatchTopKTrainingSAEConfig,
)
from saebook.training import (
    Ensemble,
    TrainingOptions,
    learning_rates,
    train_ensemble,
)
from saebook.training.engine import plain, run
from saebook.training.initial import fresh_saes
from saebook.training.schedules import coefficients_at


@pytest.fixture(autouse=True)
def several_workers(monkeypatch):
    """Let even the small ensembles of these tests be shared out among workers."""
    monkeypatch.setattr("saebook.training.engine.run.BYTES_PER_WORKER", 1)
    monkeypatch.setattr("saebook.training.engine.run.SAVE_EVERY", 10)


D_IN, D_SAE, BATCH = 12, 20, 32
SHAPE = {"d_in": D_IN, "d_sae": D_SAE}


def sample_batch(n: int, generator: torch.Generator) -> torch.Tensor:
    """Sparse non-negative mixtures of 15 fixed directions, in double precision."""
    directions = torch.randn(
        15, D_IN, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    fires = torch.rand(n, 15, generator=generator, dtype=torch.float64) < 0.2
    magnitudes = 1 + 0.1 * torch.randn(n, 15, generator=generator, dtype=torch.float64)
    return (fires * magnitudes) @ directions / D_IN**0.5


def jumprelu(mode: str, *, ste: bool) -> list[JumpReLUTrainingSAEConfig]:
    return [
        JumpReLUTrainingSAEConfig(
            l0_coefficient=coefficient,
            l0_warm_up_steps=20,
            jumprelu_bandwidth=0.5,
            jumprelu_init_threshold=0.1,
            jumprelu_sparsity_loss_mode=mode,
            jumprelu_ste_to_input=ste,
            target_l0=3.0 if mode == "quadratic" else None,
            **SHAPE,
        )
        for coefficient in (0.01, 0.1, 1.0)
    ]


PREFIXES = {"matryoshka_widths": [3, 8, D_SAE], **SHAPE}
BETAS = (0.0, 0.3, [2.0, 0.5], [math.inf, 0.5], math.inf)

ENSEMBLES = {
    "matryoshka": [
        BalancedMatryoshkaTrainingSAEConfig(
            l1_coefficient=0.03, l1_warm_up_steps=50, inner_loss_multipliers=beta, **PREFIXES
        )
        for beta in BETAS
    ],
    "matryoshka batchtopk, balanced": [
        BalancedMatryoshkaBatchTopKTrainingSAEConfig(k=2, inner_loss_multipliers=beta, **PREFIXES)
        for beta in BETAS
    ],
    "matryoshka batchtopk, raw norms": [
        BalancedMatryoshkaBatchTopKTrainingSAEConfig(
            k=2, rescale_acts_by_decoder_norm=False, inner_loss_multipliers=beta, **PREFIXES
        )
        for beta in (0.3, math.inf)
    ],
    "matryoshka batchtopk": [
        MatryoshkaBatchTopKTrainingSAEConfig(k=k, **PREFIXES) for k in (1.5, 3)
    ],
    "matryoshka batchtopk, auxiliary loss by block": [
        MatryoshkaBatchTopKTrainingSAEConfig(k=k, use_matryoshka_aux_loss=True, **PREFIXES)
        for k in (1.5, 3)
    ],
    "matryoshka batchtopk, balanced, auxiliary loss by block": [
        BalancedMatryoshkaBatchTopKTrainingSAEConfig(
            k=2, inner_loss_multipliers=beta, use_matryoshka_aux_loss=True, **PREFIXES
        )
        for beta in (0.0, 0.3, math.inf)
    ],
    "gated": [
        GatedTrainingSAEConfig(l1_coefficient=c, l1_warm_up_steps=50, **SHAPE) for c in (0.01, 0.3)
    ],
    "gated, b_dec not subtracted": [
        GatedTrainingSAEConfig(l1_coefficient=c, apply_b_dec_to_input=False, **SHAPE)
        for c in (0.01, 0.3)
    ],
    "standard": [
        StandardTrainingSAEConfig(l1_coefficient=c, l1_warm_up_steps=50, **SHAPE)
        for c in (0.01, 0.3)
    ],
    "topk": [TopKTrainingSAEConfig(k=k, **SHAPE) for k in (1, 3)],
    "topk, raw norms": [
        TopKTrainingSAEConfig(k=k, rescale_acts_by_decoder_norm=False, **SHAPE) for k in (1, 3)
    ],
    "batchtopk": [BatchTopKTrainingSAEConfig(k=k, **SHAPE) for k in (0.5, 2.5, 20)],
    "batchtopk, b_dec not subtracted": [
        BatchTopKTrainingSAEConfig(k=k, apply_b_dec_to_input=False, **SHAPE) for k in (1, 2)
    ],
    "batchtopk, schedule": [
        ScheduledBatchTopKTrainingSAEConfig(
            k=k, initial_k=1, transition_k_start_step=10, transition_k_duration_steps=100, **SHAPE
        )
        for k in (0.5, 4)
    ],
    "jumprelu, tanh": jumprelu("tanh", ste=False),
    "jumprelu, tanh, ste to input": jumprelu("tanh", ste=True),
    "jumprelu, step": jumprelu("step", ste=False),
    "jumprelu, step, ste to input": jumprelu("step", ste=True),
    "jumprelu, quadratic": jumprelu("quadratic", ste=True),
}


def sae_lens_trainer(
    sae, *, steps, window, lr=1e-3, warm_up=0, decay=0, batch=BATCH, scheduler="constant"
):
    """A `sae_lens.SAETrainer` set as `sae_lens.synthetic.train_toy_sae` sets it."""
    cfg = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * batch,
        device="cpu",
        autocast=False,
        lr=lr,
        lr_end=lr / 10,
        lr_scheduler_name=scheduler,
        lr_warm_up_steps=warm_up,
        lr_decay_steps=decay,
        adam_beta1=0.9,
        adam_beta2=0.999,
        n_restart_cycles=1,
        train_batch_size_samples=batch,
        dead_feature_window=window,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=1,
    )
    return SAETrainer(cfg, sae, iter(()))


def train_with_sae_lens(cfg, *, seed, steps, window, init=None, **schedule):
    """One SAE trained by sae-lens; also the largest number of dead latents it met."""
    torch.manual_seed(seed)
    sae = get_sae_training_class(cfg.architecture())[0](copy.deepcopy(cfg))
    if init:
        init(sae)
    trainer = sae_lens_trainer(sae, steps=steps, window=window, **schedule)
    generator, most_dead = torch.Generator().manual_seed(99), 0
    for _ in range(steps):
        trainer.step(sample_batch(BATCH, generator))
        trainer.n_training_steps += 1
        most_dead = max(most_dead, int(trainer.dead_neurons.sum()))
    return sae, most_dead


def largest_difference(saes, references):
    """The largest relative difference of any weight."""
    pairs = [
        (weight, dict(reference.named_parameters())[name])
        for sae, reference in zip(saes, references, strict=True)
        for name, weight in sae.named_parameters()
    ]
    return max(((a - b).norm() / b.norm().clamp(min=1e-12)).item() for a, b in pairs)


@pytest.mark.parametrize(
    ("beta", "cfg", "same"),
    [
        (
            0.0,
            BalancedMatryoshkaTrainingSAEConfig(l1_coefficient=0.03, **PREFIXES),
            StandardTrainingSAEConfig(l1_coefficient=0.03, **SHAPE),
        ),
        (
            0.0,
            BalancedMatryoshkaBatchTopKTrainingSAEConfig(k=2, **PREFIXES),
            BatchTopKTrainingSAEConfig(k=2, **SHAPE),
        ),
        (
            1.0,
            BalancedMatryoshkaBatchTopKTrainingSAEConfig(k=2, **PREFIXES),
            MatryoshkaBatchTopKTrainingSAEConfig(k=2, **PREFIXES),
        ),
    ],
    ids=["standard", "batchtopk", "matryoshka of sae-lens"],
)
def test_a_beta_of_0_is_the_plain_sae_and_one_of_1_the_matryoshka_of_sae_lens(beta, cfg, same):
    cfg = replace(cfg, inner_loss_multipliers=beta, dtype="float64")
    reference, dead = train_with_sae_lens(
        replace(same, dtype="float64"), seed=3, steps=200, window=5
    )
    saes = train_ensemble(
        [cfg],
        sample_batch,
        TrainingOptions(steps=200, batch_size=BATCH, lr=1e-3, dead_feature_window=5),
        seeds=[3],
        generator=torch.Generator().manual_seed(99),
    )
    assert largest_difference(saes, [reference]) < 1e-6
    if hasattr(cfg, "k"):
        assert dead > 0


@pytest.mark.parametrize("name", ENSEMBLES)
def test_weights_equal_those_of_sae_lens_after_200_steps_dead_latents_included(name):
    cfgs = [replace(cfg, dtype="float64") for cfg in ENSEMBLES[name]]
    seeds = list(range(len(cfgs)))
    schedule = {"warm_up": 10, "decay": 50}
    runs = [
        train_with_sae_lens(cfg, seed=seed, steps=200, window=5, **schedule)
        for cfg, seed in zip(cfgs, seeds, strict=True)
    ]
    options = TrainingOptions(
        steps=200,
        batch_size=BATCH,
        lr=1e-3,
        lr_warm_up_steps=10,
        lr_decay_steps=50,
        dead_feature_window=5,
    )
    for sparse in (False, True) if "topk" in name else (None,):
        saes = train_ensemble(
            cfgs,
            sample_batch,
            replace(options, sparse=sparse),
            seeds=seeds,
            generator=torch.Generator().manual_seed(99),
        )
        assert largest_difference(saes, [sae for sae, _ in runs]) < 1e-6
        if hasattr(saes[0], "topk_threshold"):
            for sae, (reference, _) in zip(saes, runs, strict=True):
                torch.testing.assert_close(sae.topk_threshold, reference.topk_threshold)
                assert sae.activation_fn.k == reference.activation_fn.k
    if "topk" in name:
        assert max(dead for _, dead in runs) > D_IN // 2, (
            "the auxiliary loss was never put to the test"
        )


@pytest.mark.parametrize("name", ENSEMBLES)
def test_compiled_loops_and_pytorchs_words_train_alike(monkeypatch, name):
    cfgs = [replace(cfg, dtype="float64") for cfg in ENSEMBLES[name]]
    for sparse in (False, True) if "topk" in name else (None,):
        run = {"steps": 40, "dead_feature_window": 5, "sparse": sparse}
        fast = small_run(cfgs=cfgs, seeds=len(cfgs), **run)
        with monkeypatch.context() as patch:
            patch.setattr("saebook.training.engine.steps.compiled", plain)
            readable = small_run(cfgs=cfgs, seeds=len(cfgs), **run)
        assert largest_difference(fast, readable) < 1e-9


def test_a_sparse_step_is_refused_where_all_latents_may_be_active():
    with pytest.raises(ValueError, match="sparse must be None or False for .* 'standard'"):
        small_run(cfgs=ENSEMBLES["standard"], seeds=2, sparse=True)


def test_pre_activation_loss_of_jumprelu_equals_that_of_sae_lens():
    # sae-lens keeps the threshold in single precision, whose rounding decides which side of a kink
    # a sample falls on; with the threshold in double precision too, the two trainings coincide.
    cfgs = [
        replace(cfg, dtype="float64", pre_act_loss_coefficient=0.01)
        for cfg in jumprelu("tanh", ste=True)
    ]

    def widen(sae):
        sae.threshold.data = sae.threshold.data.double()

    runs = [train_with_sae_lens(cfg, seed=0, steps=100, window=3, init=widen) for cfg in cfgs]
    saes = train_ensemble(
        cfgs,
        sample_batch,
        TrainingOptions(steps=100, batch_size=BATCH, lr=1e-3, dead_feature_window=3),
        seeds=[0] * len(cfgs),
        generator=torch.Generator().manual_seed(99),
        init=widen,
    )
    assert max(dead for _, dead in runs) > 0
    assert largest_difference(saes, [sae for sae, _ in runs]) < 1e-6


def small_run(**changes):
    """A BatchTopK ensemble of six; arguments can be changed one by one."""
    settings = {
        "cfgs": [
            BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (1, 2, 3, 1, 2, 3)
        ],
        "sample_batch": sample_batch,
        "steps": 30,
        "batch_size": BATCH,
        "seeds": [0, 0, 0, 1, 1, 1],
        "generator": torch.Generator().manual_seed(5),
        "dead_feature_window": 5,
    }
    settings.update(changes)
    return called(train_ensemble, settings.pop("cfgs"), settings.pop("sample_batch"), **settings)


def test_chunks_within_the_memory_budget_give_the_same_weights(monkeypatch):
    whole = small_run()
    monkeypatch.setitem(run.WORKSPACE, "cpu", 1000)
    chunked = small_run()
    assert largest_difference(chunked, whole) < 1e-12


@pytest.fixture
def set_threads():
    """`torch.set_num_threads`, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_of_workers_does_not_change_the_weights(set_threads):
    set_threads(1)
    alone = small_run()
    set_threads(2)
    assert largest_difference(small_run(), alone) < 1e-12


@pytest.mark.parametrize("threads", [1, 2])
def test_training_leaves_threads_and_the_global_random_state_as_found(set_threads, threads):
    set_threads(threads)
    torch.manual_seed(21)
    state = torch.get_rng_state()
    small_run(steps=3)
    with pytest.raises(Killed):
        small_run(steps=3, sample_batch=die_at(2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_single_precision_recovers_as_well_as_sae_lens_does():
    cfg = BatchTopKTrainingSAEConfig(k=3, **SHAPE)
    ours = train_ensemble(
        [cfg] * 4,
        sample_batch,
        TrainingOptions(steps=400, batch_size=BATCH, lr=3e-3, dead_feature_window=50),
        seeds=range(4),
    )
    theirs = [train_with_sae_lens(cfg, seed=s, steps=400, window=50, lr=3e-3)[0] for s in range(4)]
    x = sample_batch(2000, torch.Generator().manual_seed(1)).float()
    errors = [
        torch.stack([(sae(x) - x).pow(2).sum(-1).mean() for sae in saes]) for saes in (ours, theirs)
    ]
    spread = torch.stack(errors).std(dim=1).max()
    assert (errors[0].mean() - errors[1].mean()).abs() < 2 * spread


def test_initial_weights_are_those_that_the_seed_gives_in_sae_lens():
    torch.manual_seed(11)
    expected = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=1, **SHAPE))
    state = torch.get_rng_state()
    (sae,) = fresh_saes([BatchTopKTrainingSAEConfig(k=1, **SHAPE)], [11], None)
    assert torch.equal(sae.W_dec, expected.W_dec)
    assert torch.equal(torch.get_rng_state(), state), "the global random state moved"


def test_training_can_start_from_given_saes_and_from_a_function():
    start = small_run(steps=3)
    again = small_run(init=start, steps=1, lr=1e-12)
    assert largest_difference(again, start) < 1e-6

    def zero_bias(sae):
        sae.b_dec.data.fill_(0.5)

    assert all(
        (sae.b_dec - 0.5).abs().max() < 1e-3 for sae in small_run(init=zero_bias, steps=1, lr=1e-6)
    )


def test_returned_saes_encode_decode_save_and_load_with_sae_lens(tmp_path):
    (sae, *_) = small_run()
    x = sample_batch(8, torch.Generator().manual_seed(3))
    assert sae.decode(sae.encode(x)).shape == x.shape
    sae.save_model(tmp_path)
    loaded = BatchTopKTrainingSAE.load_from_disk(tmp_path)
    torch.testing.assert_close(loaded(x), sae(x))


def test_learning_rates_rise_stay_and_fall():
    rates = learning_rates(1.0, steps=8, lr_warm_up_steps=2, lr_decay_steps=4)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("end", [None, 0.0, 0.3])
def test_learning_rates_follow_half_a_cosine_after_the_warm_up(end):
    rates = learning_rates(
        1.0, steps=12, lr_scheduler_name="cosineannealing", lr_end=end, lr_warm_up_steps=2
    )
    low = 0.1 if end is None else end
    falling = [low + (1 - low) * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)]
    assert rates == pytest.approx([0.5, 1.0, *falling])


def test_warm_up_and_decay_may_take_all_steps_but_the_one_of_a_cosine():
    parts = {"lr_warm_up_steps": 2, "lr_decay_steps": 2}
    assert learning_rates(1.0, steps=4, **parts) == pytest.approx([0.5, 1, 1, 0.5])
    cosine = learning_rates(1.0, steps=5, lr_scheduler_name="cosineannealing", **parts)
    assert cosine == pytest.approx([0.5, 1, 1, 0.1, 0.05])


@pytest.mark.parametrize(("warm_up", "shares"), [(0, [1, 1, 1, 1]), (2, [0, 0.5, 1, 1])])
def test_coefficients_rise_in_a_straight_line_until_the_warm_up_ends(warm_up, shares):
    cfgs = [
        StandardTrainingSAEConfig(l1_coefficient=3, l1_warm_up_steps=warm_up, **SHAPE),
        GatedTrainingSAEConfig(l1_coefficient=3, l1_warm_up_steps=warm_up, **SHAPE),
        JumpReLUTrainingSAEConfig(l0_coefficient=3, l0_warm_up_steps=warm_up, **SHAPE),
    ]
    for cfg in cfgs:
        (sae,) = fresh_saes([cfg], [0], None)
        found = [coefficients_at(sae, step) for step in range(4)]
        assert [list(each.values()) for each in found] == [[3 * share] for share in shares]


def test_saes_of_different_rates_train_as_each_would_alone():
    rates = [1e-3, 1e-2, 3e-3, 1e-3, 1e-2, 3e-3]
    together = small_run(lr=rates, lr_warm_up_steps=5, lr_decay_steps=10)
    cfgs = [BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (1, 2, 3, 1, 2, 3)]
    for i, rate in enumerate(rates):
        alone = small_run(
            cfgs=[cfgs[i]],
            seeds=[[0, 0, 0, 1, 1, 1][i]],
            lr=rate,
            lr_warm_up_steps=5,
            lr_decay_steps=10,
            generator=torch.Generator().manual_seed(5),
        )
        assert largest_difference(alone, together[i : i + 1]) < 1e-9


def test_training_with_a_cosine_equals_that_of_sae_lens():
    cfg = replace(CFG, dtype="float64")
    schedule = {"steps": 60, "lr": 3e-3}
    reference, _ = train_with_sae_lens(
        cfg, seed=1, window=5, warm_up=10, decay=5, scheduler="cosineannealing", **schedule
    )
    saes = called(
        train_ensemble,
        [cfg],
        sample_batch,
        lr_scheduler_name="cosineannealing",
        lr_warm_up_steps=10,
        lr_decay_steps=5,
        batch_size=BATCH,
        seeds=[1],
        generator=torch.Generator().manual_seed(99),
        dead_feature_window=5,
        **schedule,
    )
    assert largest_difference(saes, [reference]) < 1e-6


class Killed(Exception):
    pass


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(tmp_path):
    path = tmp_path / "run.safetensors"
    whole = small_run()
    calls = []

    def dies_late(n, generator):
        calls.append(n)
        if len(calls) == 24:
            raise Killed
        return sample_batch(n, generator)

    with pytest.raises(Killed):
        small_run(sample_batch=dies_late, checkpoint=path)
    assert path.exists()
    resumed_calls = []

    def counted(n, generator):
        resumed_calls.append(n)
        return sample_batch(n, generator)

    resumed = small_run(sample_batch=counted, checkpoint=path)
    assert len(resumed_calls) == 10, "the run must go on from step 20 of 30"
    assert all(torch.equal(a.W_dec, b.W_dec) for a, b in zip(resumed, whole, strict=True))
    assert all(
        torch.equal(a.topk_threshold, b.topk_threshold) for a, b in zip(resumed, whole, strict=True)
    )
    assert not path.exists(), "a finished run leaves no checkpoint"


def test_a_run_killed_by_the_system_goes_on(tmp_path):
    path = tmp_path / "run.safetensors"
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(run.__file__)!r}.rsplit("saebook", 1)[0])
        sys.path[:0] = [{str(__file__)!r}.rsplit("/", n)[0] for n in (1, 2)]
        import test_ensembles as t
        import saebook.training.engine.run
        saebook.training.engine.run.BYTES_PER_WORKER = 1
        saebook.training.engine.run.SAVE_EVERY = 10
        calls = []
        def dies(n, generator):
            calls.append(n)
            if len(calls) == 25:
                os.kill(os.getpid(), signal.SIGKILL)
            return t.sample_batch(n, generator)
        t.small_run(sample_batch=dies, checkpoint={str(path)!r})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    resumed = small_run(checkpoint=path)
    assert all(torch.equal(a.W_dec, b.W_dec) for a, b in zip(resumed, small_run(), strict=True))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        small_run(sample_batch=die_at(15), checkpoint=path)
    with pytest.raises(
        ValueError, match=r"checkpoint must belong to this run, got .*run\.safetensors"
    ):
        small_run(checkpoint=path, lr=1e-2)


def test_a_broken_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="checkpoint must be a file that train_ensemble wrote"):
        small_run(checkpoint=path)


def die_at(call: int):
    calls = []

    def sample(n, generator):
        calls.append(n)
        if len(calls) == call:
            raise Killed
        return sample_batch(n, generator)

    return sample


def nan_batch(n, generator):
    x = sample_batch(n, generator)
    x[0, 3] = torch.nan
    return x


CFG = BatchTopKTrainingSAEConfig(k=2, dtype="float64", **SHAPE)
BAD = {
    "steps must be at least 1, got 0": {"steps": 0},
    "batch_size must be an int, got 2.5": {"batch_size": 2.5},
    r"lr must be in \(0, inf\), got -1": {"lr": -1},
    r"lr_warm_up_steps \+ lr_decay_steps must be at most 30 of 30 steps, got 20 \+ 20": {
        "lr_warm_up_steps": 20,
        "lr_decay_steps": 20,
    },
    r"lr_warm_up_steps \+ lr_decay_steps must be at most 29 of 30 steps, got 20 \+ 10": {
        "lr_scheduler_name": "cosineannealing",
        "lr_warm_up_steps": 20,
        "lr_decay_steps": 10,
    },
    r"lr_scheduler_name must be one of .*, got 'linear'": {"lr_scheduler_name": "linear"},
    "lr_end must be None without lr_scheduler_name 'cosineannealing', got 0.1": {"lr_end": 0.1},
    r"lr_end must be in \[0, 0.001\], got 0.01": {
        "lr": 1e-3,
        "lr_scheduler_name": "cosineannealing",
        "lr_end": 0.01,
    },
    "lr_decay_steps must be 0 where lr_end is, got 3": {
        "lr_scheduler_name": "cosineannealing",
        "lr_end": 0,
        "lr_decay_steps": 3,
    },
    "lr must hold one rate per config, 6 in all, got 2": {"lr": [1e-3, 1e-4]},
    "lr must be a sequence of rates, got Tensor": {"lr": torch.tensor([1e-3] * 6)},
    r"lr must be in \(0, inf\), got 0": {"lr": [1e-3] * 5 + [0]},
    "resampling must be Resampling, got 'worst' of type str": {"resampling": "worst"},
    "log must be TrainingLog, got 10 of type int": {"log": 10},
    "callback must be a function of a step and .*, got int": {"callback": 3},
    "callback must be None where n_shards is above 1": {"callback": print, "n_shards": 2},
    "dead_feature_window must be at least 0, got -1": {"dead_feature_window": -1},
    "cfgs must hold at least one sae-lens training config, got none": {"cfgs": [], "seeds": []},
    "cfgs must be a sequence of sae-lens training configs, got BatchTopKTrainingSAEConfig": {
        "cfgs": CFG
    },
    r"decoder_init_norm must be in \(0, inf\), got 0": {
        "cfgs": [replace(CFG, decoder_init_norm=0)],
        "seeds": [0],
    },
    "cfgs must hold sae-lens training configs, got str": {"cfgs": ["batchtopk"], "seeds": [0]},
    r"cfgs must share one architecture of .*, got \['batchtopk', 'topk'\]": {
        "cfgs": [CFG, TopKTrainingSAEConfig(k=2, dtype="float64", **SHAPE)],
        "seeds": [0, 1],
    },
    r"cfgs must agree in d_sae, got \['20', '21'\]": {
        "cfgs": [CFG, replace(CFG, d_sae=21)],
        "seeds": [0, 1],
    },
    r"cfgs must agree in apply_b_dec_to_input, got \['False', 'True'\]": {
        "cfgs": [CFG, replace(CFG, apply_b_dec_to_input=False)],
        "seeds": [0, 1],
    },
    r"k must be in \(0, 20\], got 0": {"cfgs": [replace(CFG, k=0)], "seeds": [0]},
    r"k must be in \(0, 20\], got -3": {"cfgs": [replace(CFG, k=-3)], "seeds": [0]},
    r"k must be in \(0, 20\], got 20.5": {"cfgs": [replace(CFG, k=20.5)], "seeds": [0]},
    "k must be an int, got 1.5": {
        "cfgs": [TopKTrainingSAEConfig(k=1.5, dtype="float64", **SHAPE)],
        "seeds": [0],
    },
    r"l1_coefficient must be in \[0, inf\), got -1": {
        "cfgs": [StandardTrainingSAEConfig(l1_coefficient=-1, dtype="float64", **SHAPE)],
        "seeds": [0],
    },
    "normalize_activations must be 'none' in an ensemble, got 'layer_norm'": {
        "cfgs": [replace(CFG, normalize_activations="layer_norm")],
        "seeds": [0],
    },
    "dtype must be 'float32' or 'float64' in an ensemble, got 'bfloat16'": {
        "cfgs": [replace(CFG, dtype="bfloat16")],
        "seeds": [0],
    },
    "seeds must hold one whole number per config, 6 in all, got 2": {"seeds": [0, 1]},
    "seeds must hold one whole number per config, 6 in all, got 5": {"seeds": 5},
    "seeds must be at least 0, got -1": {"seeds": [0, 1, 2, 3, 4, -1]},
    "generator must be a torch.Generator or a whole number .*, got 3.5": {"generator": 3.5},
    "sample_batch must be a function of a number of samples and a generator, got Tensor": {
        "sample_batch": torch.zeros(32, D_IN)
    },
    r"sample_batch must return a tensor of shape \(32, 12\), got \(32, 11\) at step 0": {
        "sample_batch": lambda n, g: sample_batch(n, g)[:, 1:]
    },
    r"sample_batch must return a tensor of shape \(32, 12\), got list at step 0": {
        "sample_batch": lambda n, g: [1.0]
    },
    "the batch that sample_batch returned at step 0 must be finite, got nan at index": {
        "sample_batch": nan_batch
    },
    "init must hold one SAE per config, 6 in all, got 1": {"init": [BatchTopKTrainingSAE(CFG)]},
    "init must be a sequence of SAEs, or a function, got BatchTopKTrainingSAE": {
        "init": BatchTopKTrainingSAE(CFG)
    },
    "init must be a sequence of SAEs, or a function, got int": {"init": 3},
    "init must be TrainingSAE, got 'sae' of type str": {"init": ["sae"] * 6},
    r"init must have topk_threshold of shape \(\), got none": {
        "init": [TopKTrainingSAE(TopKTrainingSAEConfig(k=2, dtype="float64", **SHAPE))] * 6
    },
    r"init must have W_dec of shape \(20, 12\), got \(21, 12\)": {
        "init": [BatchTopKTrainingSAE(replace(CFG, d_sae=21))] * 6
    },
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_its_name_value_and_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        small_run(**BAD[message])


def halves(**changes):
    """Options of two runs that make up `small_run`."""
    return TrainingOptions(steps=15, batch_size=BATCH, dead_feature_window=5, **changes)


def test_an_ensemble_that_is_saved_and_loaded_goes_on_as_if_it_had_never_stopped(tmp_path):
    cfgs, seeds = [sae.cfg for sae in small_run(steps=1)], [0, 0, 0, 1, 1, 1]
    generator = torch.Generator().manual_seed(5)
    first = Ensemble(cfgs, seeds=seeds).train(sample_batch, halves(), generator=generator)
    first.save(tmp_path / "half.safetensors")
    loaded = Ensemble.load(tmp_path / "half.safetensors")
    assert (loaded.n_steps, loaded.seeds) == (15, seeds)
    loaded.train(sample_batch, halves(), generator=generator)
    assert loaded.n_steps == 30
    for found, whole in zip(loaded.saes, small_run(), strict=True):
        for name, value in whole.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name


def test_shards_go_on_too():
    cfgs, seeds = [sae.cfg for sae in small_run(steps=1)], [0, 0, 0, 1, 1, 1]
    generator = torch.Generator().manual_seed(5)
    ensemble = Ensemble(cfgs, seeds=seeds)
    for _ in range(2):
        ensemble.train(sample_batch, halves(n_shards=2), generator=generator)
    assert largest_difference(ensemble.saes, small_run()) < 1e-11


def test_schedules_of_k_go_on_where_training_stopped():
    cfg = ScheduledBatchTopKTrainingSAEConfig(
        k=3, initial_k=1, transition_k_duration_steps=20, dtype="float64", **SHAPE
    )
    ensemble = Ensemble([cfg], seeds=1).train(sample_batch, halves(), generator=0)
    assert ensemble.saes[0].activation_fn.k == cfg.k_at(14)
    ensemble.train(sample_batch, halves(), generator=1)
    assert ensemble.saes[0].activation_fn.k == 3


def test_another_file_is_no_ensemble(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="must be a file that train_ensemble wrote"):
        Ensemble.load(path)


def test_a_callback_sees_the_saes_before_each_step():
    seen = []

    def watch(step, saes):
        if step in (0, 29):
            seen.append((step, [sae.W_dec.clone() for sae in saes()]))

    small_run(callback=watch)
    fresh = fresh_saes([sae.cfg for sae in small_run(steps=1)], [0, 0, 0, 1, 1, 1], None)
    (first, before), (last, after) = seen
    assert (first, last) == (0, 29)
    assert all(torch.equal(a, b.W_dec) for a, b in zip(before, fresh, strict=True))
    assert all(torch.equal(a, b.W_dec) for a, b in zip(after, small_run(steps=29), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_ends_near_the_weights_of_the_cpu():
    assert largest_difference(small_run(device="cuda"), small_run()) < 1e-6
