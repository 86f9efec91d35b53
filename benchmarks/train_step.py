"""What a training step of one SAE costs: sae-lens alone and in lockstep, and the stacked ensemble.

    python benchmarks/train_step.py [--rounds 5] [--saes 25] [--threads 2]

World, shapes and batch are those of the chapter "Finding the true L0": 50 features, d_in 100,
d_sae 50, batch 1,024, BatchTopK. All peers run in every round, so a machine whose speed drifts
still gives fair ratios; the medians over the rounds are printed. Data, optimizer and bookkeeping
are included for every peer.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from _timing import seconds
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, LoggingConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.synthetic import ActivationGenerator, train_toy_sae
from sae_lens.training.multi_sae_trainer import MultiSAETrainer

from saebook.training import TrainingOptions, train_ensemble
from saebook.worlds import CopulaWorld, make_fifty_feature_world

BATCH, D_IN, D_SAE = 1024, 100, 50
FLOP_PER_SAE_STEP = 5 * 2 * BATCH * D_IN * D_SAE  # five products of batch × d_in × d_sae


def configs(n_saes: int) -> list[BatchTopKTrainingSAEConfig]:
    """BatchTopK configs whose k runs through 1, 2, …, 25 again and again."""
    return [BatchTopKTrainingSAEConfig(k=1 + i % 25, d_in=D_IN, d_sae=D_SAE) for i in range(n_saes)]


def toy_sae(world: CopulaWorld, steps: int) -> float:
    """Milliseconds per step of sae_lens.synthetic.train_toy_sae, with sae-lens' own generator."""
    generator = ActivationGenerator(
        world.n_features,
        world.firing_probabilities.float(),
        std_firing_magnitudes=0.15,
        correlation_matrix=world.correlation.float(),
    )
    sae = BatchTopKTrainingSAE(configs(11)[-1])
    samples = steps * BATCH
    took = seconds(lambda: train_toy_sae(sae, world.feature_dict, generator, samples))
    return 1e3 * took / steps


def multi_trainer(world: CopulaWorld, steps: int, n_saes: int) -> float:
    """Milliseconds per SAE-step of sae-lens' MultiSAETrainer, fed by our world."""
    rng = torch.Generator().manual_seed(0)
    batches = iter(lambda: {"x": world.sample(BATCH, rng)}, None)
    saes = {str(i): BatchTopKTrainingSAE(cfg) for i, cfg in enumerate(configs(n_saes))}
    cfg = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=steps * BATCH,
        device="cpu",
        autocast=False,
        lr=3e-4,
        lr_end=3e-4,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        lr_decay_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        n_restart_cycles=1,
        train_batch_size_samples=BATCH,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=1,
    )
    trainer = MultiSAETrainer(cfg, saes, dict.fromkeys(saes, "x"), batches)
    return 1e3 * seconds(trainer.fit) / steps / n_saes


def ensemble(world: CopulaWorld, steps: int, n_saes: int) -> float:
    """Milliseconds per SAE-step of train_ensemble."""
    cfgs, seeds = configs(n_saes), list(range(n_saes))
    took = seconds(
        lambda: train_ensemble(cfgs, world.sample, TrainingOptions(steps=steps), seeds=seeds)
    )
    return 1e3 * took / steps / n_saes


def matmul_peak() -> float:
    """GFLOP/s of the best of three sizes of single-precision matrix product."""
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(size, size), torch.randn(size, size)
        out = torch.empty(size, size)
        fastest = min(seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)) for _ in range(8))
        best = max(best, 2 * size**3 / fastest / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often every peer runs (default 5)"
    )
    parser.add_argument("--saes", type=int, default=25, help="SAEs in the ensemble (default 25)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    options = parser.parse_args()
    n_saes = options.saes
    torch.set_num_threads(options.threads)
    world = make_fifty_feature_world(generator=torch.Generator().manual_seed(0))
    peers = {
        "sae_lens train_toy_sae": lambda steps: toy_sae(world, steps),
        "sae_lens MultiSAETrainer": lambda steps: multi_trainer(world, max(5, steps // 10), n_saes),
        "saebook train_ensemble": lambda steps: ensemble(world, steps, n_saes),
    }
    for run in peers.values():
        run(20)
    found: dict[str, list[float]] = {name: [] for name in peers}
    peaks = []
    for _ in range(options.rounds):
        peaks.append(matmul_peak())
        for name, run in peers.items():
            found[name].append(run(200))
    report(found, max(peaks), options)


def report(found: dict[str, list[float]], peak: float, options: argparse.Namespace) -> None:
    """Print the medians, the ratios within each round, and the share of the peak."""
    ours = found["saebook train_ensemble"]
    print(f"{options.rounds} rounds, {options.saes} SAEs, {options.threads} threads, batch {BATCH}")
    print(f"single-precision matrix-multiply peak, measured: {peak:.0f} GFLOP/s")
    print(f"{'':28}{'ms per SAE-step':>18}{'ratio (min–max)':>24}{'share of peak':>16}")
    for name, times in found.items():
        ratios = [t / o for t, o in zip(times, ours, strict=True)]
        share = FLOP_PER_SAE_STEP / (statistics.median(times) * 1e6) / peak
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
        print(f"{name:28}{statistics.median(times):18.3f}{spread:>24}{share:16.1%}")


if __name__ == "__main__":
    main()
