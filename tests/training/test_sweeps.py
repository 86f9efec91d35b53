"""A sweep is one ensemble over a grid, with the table of its SAEs."""

from __future__ import annotations

import pytest
import torch
from sae_lens import BatchTopKTrainingSAEConfig
from test_ensembles import SHAPE, sample_batch

from saebook.training import (
    TrainingOptions,
    sweep,
    train_and_polish,
    train_ensemble,
    train_thoroughly,
)

CFG = BatchTopKTrainingSAEConfig(k=1, dtype="float64", **SHAPE)
OPTIONS = TrainingOptions(steps=20, batch_size=32)


def swept(**changes):
    settings = {"over": {"k": [2, 3]}, "seeds": 2, "generator": 0, **changes}
    return sweep(settings.pop("cfg", CFG), sample_batch, OPTIONS, **settings)


def test_the_table_has_a_row_an_sae_and_seeds_vary_fastest():
    found = swept(over={"k": [2, 3], "aux_loss_coefficient": [0.0, 1.0]}, seeds=[4, 7])
    assert list(found.table.columns) == ["k", "aux_loss_coefficient", "seed"]
    assert found.table["seed"].tolist() == [4, 7] * 4
    assert found.table["aux_loss_coefficient"].tolist() == [0, 0, 1, 1] * 2
    assert [sae.cfg.k for sae in found.saes] == found.table["k"].tolist() == [2] * 4 + [3] * 4


@pytest.mark.parametrize("train", [train_ensemble, train_and_polish, train_thoroughly])
def test_the_saes_are_those_that_the_trainer_gives_for_the_same_configs(train):
    cfgs = [BatchTopKTrainingSAEConfig(k=k, dtype="float64", **SHAPE) for k in (2, 2, 3, 3)]
    expected = train(cfgs, sample_batch, OPTIONS, seeds=[0, 1, 0, 1], generator=0)
    found = swept(train=train)
    assert all(torch.equal(a.W_dec, b.W_dec) for a, b in zip(found.saes, expected, strict=True))


def test_saes_are_found_by_their_settings():
    found = swept()
    assert found.where(k=3) == found.saes[2:]
    assert found.where(k=3, seed=1) == found.saes[3:]
    with pytest.raises(ValueError, match=r"the settings must be among the sweep's, got {'k': 9}"):
        found.where(k=9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfg": 3}, "cfg must be TrainingSAEConfig, got 3"),
        (
            {"over": {"l1": [1]}},
            r"over must name fields of BatchTopKTrainingSAEConfig, got \['l1'\]",
        ),
        ({"over": {"k": []}}, "over must hold at least one value of k, got none"),
        ({"over": {"k": 3}}, "k must be a sequence of values, got int"),
        ({"over": {"d_sae": [20, 21]}}, "cfgs must agree in d_sae"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        swept(**changes)
