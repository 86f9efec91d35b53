"""SAEs on a GPU: the CPU's numbers in double precision, and the time of a step beside sae-lens'.

    python benchmarks/gpu.py [--steps 20] [--device cuda]

Parity first: every architecture trains for 30 steps on the CPU and on the device, in double
precision, dense and, where it can be, sparse; the largest relative difference of a weight is
printed, and above 1e-6 the command fails. Then the size that people train: d_in 768, d_sae 16,384,
batch 4,096, k 32 and 64, single precision without TF32, no autocast: one SAE with sae-lens'
`SAETrainer`, and 1, 4 and 8 with `train_ensemble`. It takes under eight minutes on a large GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial

import sae_lens
import torch
from _timing import Cycle, seconds, trainer_config
from sae_lens.training.sae_trainer import SAETrainer

from saebook import saes
from saebook.training import TrainingOptions, train_ensemble

D_IN, D_SAE, BATCH = 768, 16_384, 4096
MOST = 1e-6  # relative difference of a weight in double precision


def small(name: str) -> sae_lens.TrainingSAEConfig:
    """A small SAE of each architecture."""
    size = {"d_in": 24, "d_sae": 60, "dtype": "float64"}
    prefixes = {"matryoshka_widths": [10, 60], **size}
    return {
        "standard": lambda: sae_lens.StandardTrainingSAEConfig(l1_coefficient=0.05, **size),
        "topk": lambda: sae_lens.TopKTrainingSAEConfig(k=4, **size),
        "batchtopk": lambda: sae_lens.BatchTopKTrainingSAEConfig(k=4, **size),
        "jumprelu": lambda: sae_lens.JumpReLUTrainingSAEConfig(l0_coefficient=0.1, **size),
        "gated": lambda: sae_lens.GatedTrainingSAEConfig(l1_coefficient=0.05, **size),
        "matryoshka": lambda: saes.BalancedMatryoshkaTrainingSAEConfig(**prefixes),
        "matryoshka batchtopk": lambda: saes.BalancedMatryoshkaBatchTopKTrainingSAEConfig(
            k=4, **prefixes
        ),
    }[name]()


NAMES = (
    "standard", "topk", "batchtopk", "jumprelu", "gated", "matryoshka", "matryoshka batchtopk",
)  # fmt: skip


def difference(name: str, device: str, *, sparse: bool | None) -> float:
    """The largest relative difference between a run on the CPU and one on the device."""
    options = TrainingOptions(steps=30, batch_size=128, lr=1e-3, dead_feature_window=5)
    runs = []
    for where in ("cpu", device):
        own = dataclasses.replace(options, device=where, sparse=sparse)
        data = Cycle(128, 24)
        runs.append(train_ensemble([small(name)] * 2, data, own, seeds=2))
    pairs = [
        (a, dict(there.named_parameters())[key])
        for here, there in zip(*runs, strict=True)
        for key, a in here.named_parameters()
    ]
    return max(((a - b).norm() / a.norm().clamp(min=1e-12)).item() for a, b in pairs)


def parity(device: str) -> bool:
    """Print the differences; whether all are small."""
    print(f"{'largest relative difference to the CPU':40}{'dense':>12}{'sparse':>12}")
    largest = 0.0
    for name in NAMES:
        kinds = (False, True) if "topk" in name else (False,)
        found = [difference(name, device, sparse=sparse) for sparse in kinds]
        largest = max(largest, *found)
        print(f"{name:40}" + "".join(f"{each:12.1e}" for each in found))
    return largest <= MOST


def speed(device: str, steps: int) -> None:
    """Print milliseconds of a step of one SAE."""
    print(f"\n{D_IN} → {D_SAE:,}, batch {BATCH:,}: milliseconds of an SAE's step, {device}")
    for k in (32, 64):
        cfg = sae_lens.BatchTopKTrainingSAEConfig(k=k, d_in=D_IN, d_sae=D_SAE, device=device)
        data = Cycle(BATCH, D_IN, device=device)
        trainer = SAETrainer(
            trainer_config(steps, BATCH, device),
            sae_lens.BatchTopKTrainingSAE(cfg),
            iter(data, None),
        )
        theirs = 1e3 * seconds(trainer.fit) / steps
        print(f"k = {k}: sae_lens SAETrainer {theirs:.1f}")
        for n in (1, 4, 8):
            for sparse in (False, True):
                cfgs = [dataclasses.replace(cfg, device="cpu")] * n
                options = TrainingOptions(steps=1, batch_size=BATCH, device=device, sparse=sparse)
                start = seconds(partial(train_ensemble, cfgs, data, options, seeds=n))
                options = dataclasses.replace(options, steps=1 + steps)
                whole = seconds(partial(train_ensemble, cfgs, data, options, seeds=n))
                ours = 1e3 * (whole - start) / steps / n
                kind = "sparse" if sparse else "dense"
                print(f"  train_ensemble, {n} SAEs, {kind}: {ours:.1f} ({theirs / ours:.1f} ×)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="steps of a timing (default 20)")
    parser.add_argument("--device", default="cuda", help="the device (default cuda)")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    if not parity(options.device):
        sys.exit(f"error: a weight differs by more than {MOST:g}")
    speed(options.device, options.steps)


if __name__ == "__main__":
    main()
