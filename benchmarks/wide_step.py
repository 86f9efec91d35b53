"""What a step of wide SAEs costs that keep few latents: sae-lens, and dense and sparse steps here.

    python benchmarks/wide_step.py [--rounds 5] [--steps 20] [--widths 2304 4608]

Two BatchTopK SAEs with k = 32 of an input of 576 dimensions, batch 1,024, as of a small language
model's residual stream. sae-lens trains one at a time. Its sparse activations exist for TopK only,
and its backward pass takes them only without rescaling by decoder norms. The table ends with the
cost of a step in units of one dense encoder product, which no training can do without.

Then the share of latents that makes a sparse step as costly as a dense one, at several sizes: the
rule in `saebook.training.engine.steps` is read off it.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from _timing import Cycle, ratio, rounds, seconds, trainer_config
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.training.sae_trainer import SAETrainer

from saebook.training import TrainingOptions, train_ensemble

BATCH, D_IN, K = 1024, 576, 32
SPARSE = "saebook, sparse"
SIZES = ((100, 200, 512), (128, 512, 512), (64, 1024, 512), (128, 2048, 512), (576, 2304, 1024))
SHARES = (0.02, 0.05, 0.1, 0.2)


def sae_lens_step(sae: BatchTopKTrainingSAE | TopKTrainingSAE, steps: int) -> float:
    """Milliseconds per step of `SAETrainer`."""
    trainer = SAETrainer(trainer_config(steps, BATCH), sae, iter(Cycle(BATCH, D_IN), None))
    return 1e3 * seconds(trainer.fit) / steps


def our_step(
    cfgs: list[BatchTopKTrainingSAEConfig], steps: int, *, batch: int = BATCH, sparse: bool
) -> float:
    """Milliseconds per SAE-step of `train_ensemble`."""
    options = TrainingOptions(steps=steps, batch_size=batch, sparse=sparse)
    source = Cycle(batch, cfgs[0].d_in)
    took = seconds(lambda: train_ensemble(cfgs, source, options, seeds=len(cfgs)))
    return 1e3 * took / steps / len(cfgs)


def encoder_product(width: int) -> float:
    """Milliseconds of one product of a batch with an encoder, as PyTorch computes it."""
    x, W_enc, out = torch.randn(BATCH, D_IN), torch.randn(D_IN, width), torch.empty(BATCH, width)
    return 1e3 * min(seconds(lambda: torch.mm(x, W_enc, out=out)) for _ in range(10))


def compare(width: int, n_rounds: int, steps: int) -> None:
    """One table: all peers at one width."""
    size = {"k": K, "d_in": D_IN, "d_sae": width}
    raw = {**size, "rescale_acts_by_decoder_norm": False, "use_sparse_activations": True}
    cfgs = [BatchTopKTrainingSAEConfig(**size)] * 2
    peers = {
        "sae_lens BatchTopK": lambda: sae_lens_step(BatchTopKTrainingSAE(cfgs[0]), steps),
        "sae_lens TopK, sparse acts": lambda: sae_lens_step(
            TopKTrainingSAE(TopKTrainingSAEConfig(**raw)), steps
        ),
        "saebook, dense": partial(our_step, cfgs, steps, sparse=False),
        SPARSE: partial(our_step, cfgs, steps, sparse=True),
        "one encoder product": partial(encoder_product, width),
    }
    found = rounds(peers, n_rounds)
    print(f"\n{D_IN} → {width:,}, k = {K}, batch {BATCH:,}, 2 SAEs, {n_rounds} rounds")
    print(f"{'':30}{'ms per SAE-step':>18}{'÷ sparse step':>22}{'÷ product':>12}")
    product = found["one encoder product"]
    for name, times in found.items():
        median = statistics.median(times)
        in_products = statistics.median(t / p for t, p in zip(times, product, strict=True))
        print(f"{name:30}{median:18.1f}{ratio(times, found[SPARSE]):>22}{in_products:12.1f}")


def break_even(steps: int) -> None:
    """Print what a sparse step costs of a dense one, two SAEs at a time."""
    print(f"\n{'a sparse step over a dense one':34}" + "".join(f"{s:>8.0%}" for s in SHARES))
    for d_in, d_sae, batch in SIZES:
        row = []
        for share in SHARES:
            cfgs = [BatchTopKTrainingSAEConfig(k=share * d_sae, d_in=d_in, d_sae=d_sae)] * 2
            dense, sparse = (our_step(cfgs, steps, batch=batch, sparse=s) for s in (False, True))
            row.append(sparse / dense)
        name = f"{d_in} → {d_sae:,}, batch {batch:,}"
        print(f"{name:34}" + "".join(f"{each:8.2f}" for each in row))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often all run (default 5)")
    parser.add_argument("--steps", type=int, default=20, help="steps a round (default 20)")
    parser.add_argument("--widths", type=int, nargs="+", default=[2304, 4608], help="latents")
    options = parser.parse_args()
    for width in options.widths:
        compare(width, options.rounds, options.steps)
    break_even(2 * options.steps)


if __name__ == "__main__":
    main()
