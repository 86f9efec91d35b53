"""Sweeps in shards: the numbers of one stack, wherever the shards run, a lost worker included."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from distributed import Client, LocalCluster
from joblib import parallel_config
from sae_lens import BatchTopKTrainingSAEConfig, JumpReLUTrainingSAEConfig
from test_ensembles import BATCH, SHAPE, Killed, sample_batch

from calls import called
from saebook.training import (
    Resampling,
    TrainingLog,
    TrainingOptions,
    train_and_polish,
    train_ensemble,
)
from saebook.training.engine import run
from saebook.true_l0 import estimate_true_l0

BATCHTOPK = [BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (1, 2, 3, 4, 5, 6)]
JUMPRELU = [
    JumpReLUTrainingSAEConfig(l0_coefficient=c, dtype="float64", **SHAPE)
    for c in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
]
STEPS = 30


def make_init():
    """A function that changes a fresh SAE, and no module holds it."""
    return lambda sae: sae.b_dec.data.fill_(0.1)


def sweep(cfgs=BATCHTOPK, source=sample_batch, **changes):
    """Six SAEs, each with its own seed and rate, with the auxiliary loss and resampling at work."""
    settings = {
        "steps": STEPS,
        "batch_size": BATCH,
        "lr": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3],
        "lr_warm_up_steps": 5,
        "seeds": [3, 1, 4, 1, 5, 9],
        "generator": torch.Generator().manual_seed(2),
        "init": make_init(),
        "dead_feature_window": 3,
        "resampling": Resampling(kind="loss_weighted", every=10),
    }
    return called(train_ensemble, cfgs, source, **settings | changes)


def states(saes, others):
    """Every weight and buffer of SAEs, beside those of others."""
    for sae, other in zip(saes, others, strict=True):
        mine, theirs = sae.state_dict(), other.state_dict()
        assert mine.keys() == theirs.keys()
        yield from ((mine[name], theirs[name]) for name in mine)


def identical(saes, others):
    return all(torch.equal(mine, theirs) for mine, theirs in states(saes, others))


def assert_near(saes, others, tolerance=1e-11):
    for mine, theirs in states(saes, others):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def in_turn():
    """The sweep in four shards, one after the other, in this process."""
    return sweep(n_shards=4)


@pytest.mark.parametrize("n_shards", [2, 4, 6])
@pytest.mark.parametrize(
    ("cfgs", "tolerance"),
    # sae-lens keeps the threshold of JumpReLU in single precision
    [(BATCHTOPK, 1e-11), (JUMPRELU, 1e-6)],
    ids=["batchtopk", "jumprelu"],
)
def test_shards_end_with_the_weights_of_one_stack_to_rounding(cfgs, tolerance, n_shards):
    resampling = Resampling(kind="loss_weighted", every=10) if cfgs is BATCHTOPK else None
    whole, shards = (sweep(cfgs, n_shards=n, resampling=resampling) for n in (1, n_shards))
    assert [sae.cfg for sae in shards] == [sae.cfg for sae in whole]
    assert_near(shards, whole, tolerance)


def test_generator_and_log_end_as_after_one_stack():
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    logs = [TrainingLog(every=7) for _ in range(2)]
    for n_shards, generator, log in zip((1, 4), generators, logs, strict=True):
        sweep(generator=generator, log=log, n_shards=n_shards)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    pd.testing.assert_frame_equal(logs[0].table(), logs[1].table())
    assert list(logs[1].table()["sae"][:8]) == [0, 1, 2, 3, 4, 5, 0, 1]


def test_every_shard_finds_a_source_as_it_was_at_the_start():
    def drifting():
        shift = [0.0]

        def sample(n, generator):
            shift[0] += 0.01
            return sample_batch(n, generator) + shift[0]

        return sample

    whole, shards = (sweep(source=drifting(), n_shards=n) for n in (1, 3))
    assert_near(shards, whole)


def test_polished_shards_are_those_of_one_stack():
    whole, shards = (
        train_and_polish(
            BATCHTOPK,
            sample_batch,
            TrainingOptions(steps=40, batch_size=16, lr=2e-3, n_shards=n_shards),
            seeds=6,
            generator=0,
        )
        for n_shards in (1, 3)
    )
    assert_near(shards, whole)


def test_an_estimate_from_shards_is_that_from_one_stack():
    settings = {"d_in": 12, "d_sae": 20, "ks": [1, 2, 3], "seeds": 2}
    whole, shards = (
        estimate_true_l0(
            lambda n, generator: sample_batch(n, generator).float(),
            TrainingOptions(steps=20, batch_size=256, lr=2e-3, n_shards=n_shards),
            generator=0,
            n_samples=100,
            **settings,
        )
        for n_shards in (1, 3)
    )
    pd.testing.assert_frame_equal(shards.sweep, whole.sweep, rtol=1e-4)  # single precision


def test_a_shard_has_one_thread_and_leaves_their_number_as_found(in_turn):
    def on_one_thread(n, generator):
        assert torch.get_num_threads() == 1
        return sample_batch(n, generator)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert identical(sweep(source=on_one_thread, n_shards=4), in_turn)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


DRAWN = []


def counted(n, generator):
    """A source that this module holds, so that shards in this process share its count."""
    DRAWN.append(n)
    return sample_batch(n, generator)


def dies(n, generator):
    if len(DRAWN) == 2 * STEPS + 14:
        raise Killed
    return counted(n, generator)


def test_an_interrupted_sweep_goes_on_and_trains_no_finished_shard_again(
    tmp_path, in_turn, monkeypatch
):
    monkeypatch.setattr("saebook.training.engine.run.SAVE_EVERY", 10)
    settings = {"n_shards": 4, "checkpoint": tmp_path / "run.safetensors"}
    DRAWN.clear()
    with pytest.raises(Killed):
        sweep(source=dies, **settings)
    files = {f"run-{i}-of-4.safetensors" for i in (1, 2, 3)}
    assert {file.name for file in tmp_path.iterdir()} == files
    DRAWN.clear()
    log = sweep(source=counted, **settings)
    assert len(DRAWN) == 20 + STEPS, "the third shard goes on from step 10, the fourth starts"
    assert identical(log, in_turn)
    assert not list(tmp_path.iterdir()), "a finished sweep leaves no checkpoint"


def test_a_bar_counts_the_shards_in_a_terminal_if_wanted(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    sweep(n_shards=3)
    screen.isatty = lambda: True
    sweep(n_shards=3, progress=False)
    assert screen.getvalue() == ""
    sweep(n_shards=3)
    assert re.search(r"Training 6 SAEs: 100%.*3/3 .*shard", screen.getvalue())


def locked():
    lock = threading.Lock()

    def sample(n, generator):
        with lock:
            return sample_batch(n, generator)

    return sample


BAD = {
    "n_shards must be at least 1, got 0": {"n_shards": 0},
    "n_shards must be an int, got 2.0": {"n_shards": 2.0},
    "n_shards must be at most the number of SAEs, 6, got 7": {"n_shards": 7},
    "sample_batch must be a function that can be pickled .*, got <function locked.*: cannot": {
        "n_shards": 2,
        "source": locked(),
    },
    r"sample_batch must return a tensor of shape \(32, 12\), got \(32, 11\) at step 0": {
        "n_shards": 2,
        "source": lambda n, g: sample_batch(n, g)[:, 1:],
    },
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_its_name_value_and_what_was_expected(message):
    with pytest.raises((ValueError, TypeError), match=message):
        sweep(**BAD[message])


def test_shards_in_processes_of_this_machine_are_those_of_one_process(in_turn):
    with parallel_config(backend="loky", n_jobs=2):
        assert identical(sweep(n_shards=4), in_turn)


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two worker processes, reached by nothing outside this machine."""
    loopback = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **loopback) as cluster:
        yield cluster


def test_the_example_in_the_readme_gives_the_same_saes_here_and_on_a_cluster(cluster):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Beyond one machine\n")[1].split("\n## ")[0]
    here, there = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names = {}
    exec(_changed(here, "steps=15_000", "steps=5"), names)
    first = names["found"].saes
    exec(_changed(there, "tcp://head-node:8786", cluster.scheduler_address), names)
    assert names["found"].saes is not first
    assert identical(names["found"].saes, first)


def _changed(code: str, old: str, new: str) -> str:
    assert old in code
    return code.replace(old, new)


def source_that_kills_its_first_worker(folder: Path):
    """A batch source whose process dies at its 24th batch, the first to get there only.

    Each batch that is drawn adds a byte to the file `drawn`.
    """
    tests, drawn = os.getpid(), [0]

    def sample(n, generator):
        assert os.getpid() != tests, "no worker draws this batch"
        drawn[0] += 1
        run.SAVE_EVERY = 5  # in the worker, which asks for it after 16 steps
        with open(folder / "drawn", "ab") as file:
            file.write(b".")
        if drawn[0] == 24:
            try:
                (folder / "killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return sample_batch(n, generator)

    return sample


def test_a_sweep_on_a_cluster_survives_a_killed_worker(tmp_path, cluster, in_turn):
    source = source_that_kills_its_first_worker(tmp_path)
    with Client(cluster) as client, parallel_config(backend="dask"):
        client.wait_for_workers(2)  # with one, joblib would train in this process
        saes = sweep(source=source, n_shards=4, checkpoint=tmp_path / "sweep")
    assert (tmp_path / "killed").exists(), "no worker was killed"
    drawn = (tmp_path / "drawn").stat().st_size
    assert drawn == 24 + 4 * STEPS - 20, "another worker goes on from step 20 of the lost shard"
    assert identical(saes, in_turn)
