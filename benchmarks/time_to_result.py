"""Seconds until an SAE at the true L0 has found its features, by the source's protocol and ours.

    python benchmarks/time_to_result.py [--saes 15] [--steps 200] [--full]

The world of the chapter "Finding the true L0", k = 11. The source trains on 15 million samples in
batches of 1,024 at a rate of 3e-4, one SAE at a time, with `train_toy_sae`. That takes minutes, so
its time is that of a few steps times their number, unless `--full` is given. `train_ensemble`
trains the same protocol to the end, on other draws. `train_and_polish` is what the chapter uses. A
feature is found if a latent of its own has a cosine above 0.9 with it.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from _timing import its_generator, seconds
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.synthetic import train_toy_sae

from saebook import metrics
from saebook.training import TrainingOptions, train_and_polish, train_ensemble
from saebook.worlds import make_fifty_feature_world

BATCH, STEPS = 1024, 14_648  # the source's 15 million samples
POLISHED = TrainingOptions(steps=4500, batch_size=256, lr=2e-3, dead_feature_window=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--saes", type=int, default=15, help="SAEs that train at once (default 15)")
    parser.add_argument("--steps", type=int, default=200, help="steps timed of the source's run")
    parser.add_argument("--full", action="store_true", help="train the source's run to its end")
    options = parser.parse_args()
    world = make_fifty_feature_world(generator=torch.Generator().manual_seed(0))
    cfg = BatchTopKTrainingSAEConfig(k=11, d_in=100, d_sae=50)
    generator = its_generator(world)
    steps = STEPS if options.full else options.steps
    sae = BatchTopKTrainingSAE(cfg)
    source = partial(train_toy_sae, sae, world.feature_dict, generator, steps * BATCH)
    took = seconds(source) * STEPS / steps
    report("sae_lens train_toy_sae", took, took, [sae] if options.full else [], world)
    cfgs, seeds = [cfg] * options.saes, list(range(options.saes))
    ways = {
        "train_ensemble, the same protocol": (train_ensemble, TrainingOptions(steps=STEPS)),
        "train_and_polish, as in the chapter": (train_and_polish, POLISHED),
    }
    for name, (train, settings) in ways.items():
        saes: list[BatchTopKTrainingSAE] = []

        def run(train=train, settings=settings, saes=saes):
            saes += train(cfgs, world.sample, settings, seeds=seeds, generator=0)

        report(name, seconds(run) / options.saes, took, saes, world)


def report(name, took, of_source, saes, world) -> None:
    """Print one line: the time of an SAE, and how many features each SAE found."""
    directions = world.directions.float()
    found = [metrics.n_recovered(sae.W_dec.detach(), directions) for sae in saes]
    spread = (
        f"{statistics.median(found):.0f} of 50 found ({min(found)}–{max(found)})" if found else ""
    )
    print(f"{name:36}{took:8.2f} s an SAE {of_source / took:8.1f} × {spread}")


if __name__ == "__main__":
    main()
