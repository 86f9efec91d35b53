"""Continuation against a single training, and against two known branches."""

from __future__ import annotations

import pytest
import torch
from sae_lens import StandardTrainingSAEConfig
from sae_lens.synthetic import init_sae_to_match_feature_dict

from saebook import worlds
from saebook.training import TrainingOptions, follow_minima, train_population

OPTIONS = TrainingOptions(steps=3000, lr=1e-2)


@pytest.fixture(scope="module")
def pair():
    return worlds.make_parent_child_world(
        generator=0, d_in=4, child_given_parent=0.2, child_otherwise=0.2, dtype=torch.float64
    )


@pytest.fixture(scope="module")
def start(pair):
    def at_truth(sae):
        init_sae_to_match_feature_dict(sae, feature_dict=pair.feature_dict, noise_level=0.0)

    cfg = StandardTrainingSAEConfig(d_in=4, d_sae=1, l1_coefficient=0.001)
    return train_population([cfg], pair, OPTIONS, init=at_truth)[0]


def cfgs(*l1s):
    return [StandardTrainingSAEConfig(d_in=4, d_sae=1, l1_coefficient=l1) for l1 in l1s]


def test_each_step_ends_where_training_from_the_last_one_does(pair, start):
    (branch,) = follow_minima(cfgs(0.01, 0.1), pair, OPTIONS, starts=[start])
    assert [sae.cfg.l1_coefficient for sae in branch] == [0.01, 0.1]
    for cfg, before, after in zip(cfgs(0.01, 0.1), [start, branch[0]], branch, strict=True):
        (alone,) = train_population([cfg], pair, OPTIONS, init=[before])
        assert torch.allclose(alone.W_dec, after.W_dec, atol=1e-6)


def test_branches_stay_apart(pair, start):
    (silent,) = train_population(cfgs(0.001), pair, OPTIONS, init=[start])
    silent.b_enc.data -= 10  # a dead latent is a minimum too: nothing moves it
    alive, dead = follow_minima(cfgs(0.001, 0.01), pair, OPTIONS, starts=[start, silent])
    x = pair.directions
    assert all(sae.encode(x).max() > 0.5 for sae in alive)
    assert all(sae.encode(x).max() == 0 for sae in dead)


def test_without_a_setting_or_a_start_there_is_nothing_to_follow(pair, start):
    with pytest.raises(ValueError, match="got 0 configs and 1 starts"):
        follow_minima([], pair, OPTIONS, starts=[start])
    with pytest.raises(ValueError, match="got 1 configs and 0 starts"):
        follow_minima(cfgs(0.01), pair, OPTIONS, starts=[])
