"""What a training step of one small SAE costs: sae-lens alone and in lockstep, and in stacks.

    python benchmarks/train_step.py [--rounds 5] [--saes 25] [--threads 2] [--steps 200]

World, shapes and batch are those of the chapter "Finding the true L0": 50 features, d_in 100,
d_sae 50, batch 1,024, BatchTopK. All peers run in every round, so a machine whose speed drifts
still gives fair ratios; the medians over the rounds are printed. Data, optimizer and bookkeeping
are included for every peer.

`torch.func` stands for stacking as anyone can do it, in twenty lines. It leaves out what makes a
stack equal to sae-lens SAE by SAE: clipping of each gradient, the auxiliary loss of dead latents,
the running threshold, a k of one's own.

The share of the peak compares the five matrix products of a step with PyTorch's own product. On
some processors SciPy's OpenBLAS, which `train_ensemble` calls, is faster than that.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from _timing import its_generator, matmul_peak, ratio, rounds, seconds, trainer_config
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.synthetic import train_toy_sae
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from threadpoolctl import threadpool_info
from torch.func import grad, vmap

from saebook.training import TrainingOptions, train_ensemble
from saebook.worlds import CopulaWorld, make_fifty_feature_world

BATCH, D_IN, D_SAE = 1024, 100, 50
FLOP_PER_SAE_STEP = 5 * 2 * BATCH * D_IN * D_SAE  # five products of batch × d_in × d_sae
OURS = "saebook train_ensemble"


def configs(n_saes: int) -> list[BatchTopKTrainingSAEConfig]:
    """BatchTopK configs whose k runs through 1, 2, …, 25 again and again."""
    return [BatchTopKTrainingSAEConfig(k=1 + i % 25, d_in=D_IN, d_sae=D_SAE) for i in range(n_saes)]


def toy_sae(world: CopulaWorld, steps: int) -> float:
    """Milliseconds per step of sae_lens.synthetic.train_toy_sae, with sae-lens' own generator."""
    generator = its_generator(world)
    sae = BatchTopKTrainingSAE(configs(11)[-1])
    samples = steps * BATCH
    took = seconds(lambda: train_toy_sae(sae, world.feature_dict, generator, samples))
    return 1e3 * took / steps


def multi_trainer(world: CopulaWorld, steps: int, n_saes: int) -> float:
    """Milliseconds per SAE-step of sae-lens' MultiSAETrainer, fed by our world."""
    rng = torch.Generator().manual_seed(0)
    batches = iter(lambda: {"x": world.sample(BATCH, rng)}, None)
    saes = {str(i): BatchTopKTrainingSAE(cfg) for i, cfg in enumerate(configs(n_saes))}
    trainer = MultiSAETrainer(trainer_config(steps, BATCH), saes, dict.fromkeys(saes, "x"), batches)
    return 1e3 * seconds(trainer.fit) / steps / n_saes


def functional(world: CopulaWorld, steps: int, n_saes: int, k: int = 13) -> float:
    """Milliseconds per SAE-step of a stack made by torch.func, all SAEs with the same k."""
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(n_saes, D_SAE, D_IN, generator=rng) / D_IN**0.5
    zeros = torch.zeros(n_saes, D_SAE), torch.zeros(n_saes, D_IN)
    weights = [start.mT.contiguous(), zeros[0], start.clone(), zeros[1]]
    optimizer = torch.optim.Adam(weights, lr=3e-4, fused=True)

    def loss(W_enc, b_enc, W_dec, b_dec, x):
        norms = W_dec.norm(dim=-1)
        acts = ((x - b_dec) @ W_enc + b_enc).relu() * norms
        kth = acts.flatten().topk(k * len(x), sorted=False).values.min()
        acts = torch.where(acts >= kth, acts, 0)
        return ((acts / norms) @ W_dec + b_dec - x).square().sum(-1).mean()

    gradients = vmap(grad(loss, argnums=(0, 1, 2, 3)), in_dims=(0, 0, 0, 0, None))

    def train():
        for _ in range(steps):
            found = gradients(*weights, world.sample(BATCH, rng))
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient
            optimizer.step()

    return 1e3 * seconds(train) / steps / n_saes


def ensemble(world: CopulaWorld, steps: int, n_saes: int) -> float:
    """Milliseconds per SAE-step of train_ensemble."""
    cfgs, seeds = configs(n_saes), list(range(n_saes))
    took = seconds(
        lambda: train_ensemble(cfgs, world.sample, TrainingOptions(steps=steps), seeds=seeds)
    )
    return 1e3 * took / steps / n_saes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often every peer runs (default 5)"
    )
    parser.add_argument("--saes", type=int, default=25, help="SAEs in a stack (default 25)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--steps", type=int, default=200, help="steps a round (default 200)")
    options = parser.parse_args()
    n, steps = options.saes, options.steps
    torch.set_num_threads(options.threads)
    world = make_fifty_feature_world(generator=torch.Generator().manual_seed(0))
    peaks: list[float] = []
    peers = {
        "sae_lens train_toy_sae": lambda: toy_sae(world, steps),
        "sae_lens MultiSAETrainer": lambda: multi_trainer(world, max(5, steps // 10), n),
        "torch.func vmap(grad)": lambda: functional(world, max(5, steps // 10), n),
        OURS: lambda: ensemble(world, steps, n),
        "peak": lambda: peaks.append(matmul_peak()) or 0.0,
    }
    found = rounds(peers, options.rounds)
    del found["peak"]
    report(found, max(peaks), options)


def report(found: dict[str, list[float]], peak: float, options: argparse.Namespace) -> None:
    """Print the medians, the ratios within each round, and the share of the peak."""
    print(f"{options.rounds} rounds, {options.saes} SAEs, {options.threads} threads, batch {BATCH}")
    blas = {each["architecture"] for each in threadpool_info() if each["user_api"] == "blas"}
    print(f"single-precision product of PyTorch: {peak:.0f} GFLOP/s; OpenBLAS for {blas}")
    print(f"{'':28}{'ms per SAE-step':>18}{'ratio (min–max)':>24}{'share of peak':>16}")
    for name, times in found.items():
        share = FLOP_PER_SAE_STEP / (statistics.median(times) * 1e6) / peak
        spread = ratio(times, found[OURS])
        print(f"{name:28}{statistics.median(times):18.3f}{spread:>24}{share:16.1%}")


if __name__ == "__main__":
    main()
