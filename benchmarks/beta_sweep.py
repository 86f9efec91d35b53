"""What a sweep over the balancing weight costs: exact and stacked, and sae-lens one SAE at a time.

    python benchmarks/beta_sweep.py [--rounds 3] [--saes 100]

The tree, the SAEs and the weights are those of the chapter "Balancing Matryoshka SAEs": a parent
and three children in 50 dimensions, 4 latents, L1 0.03, prefixes of 1 and 4. `train_population`
runs until every gradient norm is below 1e-6. sae-lens has no Matryoshka SAE with L1, so its peer
trains the plain SAE, on samples of its own generator, in batches of 512. The medians over the
rounds are printed, and the ratio of the time of one SAE's step.
"""

from __future__ import annotations

import argparse
import math
import statistics
from functools import partial

import torch
from _timing import seconds
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.synthetic import (
    ActivationGenerator,
    HierarchyNode,
    hierarchy_modifier,
    init_sae_to_match_feature_dict,
    train_toy_sae,
)

from saebook.saes import BalancedMatryoshkaTrainingSAEConfig
from saebook.training import train_population
from saebook.worlds import TreeWorld, make_family_world

STEPS = 6000  # the default of train_population, at most
SHAPE = {"d_in": 50, "d_sae": 4, "l1_coefficient": 0.03}


def sweep(world: TreeWorld, n_saes: int) -> float:
    """Seconds of an exact sweep over `n_saes` weights from 0.01 to 10."""
    weights = torch.logspace(-2, 1, n_saes).tolist()
    cfgs = [
        BalancedMatryoshkaTrainingSAEConfig(
            matryoshka_widths=[1, 4], inner_loss_multipliers=weight, **SHAPE
        )
        for weight in weights
    ]
    init = partial(init_sae_to_match_feature_dict, feature_dict=world.feature_dict, noise_level=0.0)
    return seconds(lambda: train_population(cfgs, world, init=init))


def toy_sae(world: TreeWorld, steps: int) -> float:
    """Seconds per step of sae_lens.synthetic.train_toy_sae on the same tree."""
    tree = HierarchyNode(0, [HierarchyNode(child) for child in (1, 2, 3)])
    generator = ActivationGenerator(
        4,
        torch.tensor([0.25, 0.15, 0.15, 0.15]),
        modify_activations=hierarchy_modifier([tree]),
    )
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(**SHAPE))
    run = partial(train_toy_sae, sae, world.feature_dict, generator, steps * 512, batch_size=512)
    return seconds(run) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs (default 3)")
    parser.add_argument("--saes", type=int, default=100, help="weights in the sweep (default 100)")
    options = parser.parse_args()
    world = make_family_world(generator=torch.Generator().manual_seed(0))
    toy_sae(world, 20)
    ours, theirs = [], []
    for _ in range(options.rounds):
        ours.append(sweep(world, options.saes))
        theirs.append(toy_sae(world, 500))
    step = statistics.median(ours) / STEPS / options.saes
    ratios = [t / (o / STEPS / options.saes) for o, t in zip(ours, theirs, strict=True)]
    print(f"{options.rounds} rounds, {options.saes} weights, at most {STEPS} steps")
    print(f"exact sweep: {statistics.median(ours):.1f} s (slowest {max(ours):.1f} s)")
    print(f"train_population: at least {1e6 * step:.1f} µs per SAE-step")
    print(f"sae_lens train_toy_sae: {1e6 * statistics.median(theirs):.0f} µs per step")
    print(f"ratio: at most {math.floor(min(ratios))}–{math.ceil(max(ratios))}")


if __name__ == "__main__":
    main()
