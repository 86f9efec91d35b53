"""What shards cost and gain on one machine: one stack, shards in turn, shards side by side.

    python benchmarks/shards.py [--rounds 3] [--steps 400] [--processes 2]

BatchTopK on the 50-feature world, in two sizes: 25 SAEs of 50 latents on batches of 1,024, as in
the chapter "Finding the true L0", and 24 small ones of 10 latents on batches of 64, where a step is
mostly Python. One stack uses all of torch's threads if it is large enough; a shard always uses one.
All peers run in every round and the medians are printed. The processes are started before.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import nullcontext
from functools import partial

import torch
from _timing import seconds
from joblib import parallel_config
from sae_lens import BatchTopKTrainingSAEConfig

from saebook.training import TrainingOptions, train_ensemble
from saebook.worlds import CopulaWorld, make_fifty_feature_world

SIZES = {"large": (25, 50, 1024), "small": (24, 10, 64)}  # SAEs, latents, batch


def sweep(world: CopulaWorld, size: str, *, steps: int, n_shards: int) -> None:
    """Train the SAEs of one size."""
    n_saes, d_sae, batch = SIZES[size]
    train_ensemble(
        [BatchTopKTrainingSAEConfig(k=1 + i % 5, d_in=100, d_sae=d_sae) for i in range(n_saes)],
        world.sample,
        TrainingOptions(steps=steps, batch_size=batch, n_shards=n_shards),
        seeds=range(n_saes),
        generator=torch.Generator().manual_seed(0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    world = make_fifty_feature_world(generator=torch.Generator().manual_seed(0))
    n = args.processes
    beside = partial(parallel_config, backend="loky", n_jobs=n)
    peers = {
        "one stack": (1, nullcontext),
        f"{n} shards in turn": (n, nullcontext),
        f"{n} shards in {n} processes": (n, beside),
    }
    for size, (n_saes, d_sae, batch) in SIZES.items():
        run = partial(sweep, world, size)
        with beside():
            run(steps=2, n_shards=n)
        times: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(args.rounds):
            for name, (n_shards, where) in peers.items():
                with where():
                    times[name].append(seconds(partial(run, steps=args.steps, n_shards=n_shards)))
        print(f"{size}: {n_saes} SAEs of {d_sae} latents, batch {batch}, {args.steps} steps")
        stack = statistics.median(times["one stack"])
        for name, each in times.items():
            took = statistics.median(each)
            print(f"  {name:24s} {took:7.2f} s   {stack / took:5.2f} × as fast as one stack")


if __name__ == "__main__":
    main()
