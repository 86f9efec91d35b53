"""Train many SAEs of one architecture and shape at once, on one shared stream of batches.

The SAEs are ordinary sae-lens training SAEs before and after. In between their weights are stacked,
so that a step of all of them is a handful of large matrix products. Each SAE keeps its own loss,
gradient clipping, optimizer state, dead latents and threshold, and ends with the weights that
`sae_lens.SAETrainer` would give it on the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_lens import TrainingSAE, TrainingSAEConfig
from torch import Tensor

from saebook import _checkpoints
from saebook._checks import GeneratorLike, check_function, check_generator, check_instance
from saebook.training.engine.batches import SampleBatch
from saebook.training.engine.run import Part
from saebook.training.engine.shards import train
from saebook.training.engine.steps import check_sparse
from saebook.training.initial import Init, check_budgets, check_configs, check_seeds, fresh_saes
from saebook.training.log import check_log
from saebook.training.options import TrainingOptions

KIND = "ensemble"


class Ensemble:
    """SAEs of one architecture and shape, with all that training remembers of them.

    Args:
        cfgs: sae-lens training configs of one architecture and shape: standard, topk, batchtopk,
            jumprelu, gated, matryoshka_batchtopk, or one of `saebook.saes`. They may differ in k,
            in coefficients, in schedules and in the weights of inner losses.
        seeds: one whole number per SAE; draws its initial weights, as `torch.manual_seed` would.
        init: SAEs to start from, one per config, with all their weights and BatchTopK's threshold;
            or a function that changes a fresh SAE in place.

    Attributes:
        saes: training SAEs on the CPU, in the order of the configs, each with its own copy of its
            config, as they are now.
        seeds: as given.
        n_steps: steps that they have been trained for.

    Raises:
        ValueError, TypeError: for configs that cannot train together, other numbers of seeds, or
            weights that do not fit.

    Example: train, save, load elsewhere, and go on. ::

        ensemble = Ensemble(cfgs, seeds=range(5))
        ensemble.train(world.sample, TrainingOptions(steps=1000), generator=0)
        ensemble.save("five.safetensors")
        ensemble = Ensemble.load("five.safetensors")
        ensemble.train(world.sample, TrainingOptions(steps=1000), generator=1)
    """

    def __init__(
        self,
        cfgs: Sequence[TrainingSAEConfig],
        *,
        seeds: int | Sequence[int],
        init: Init | None = None,
    ) -> None:
        check_configs(cfgs)
        self.seeds = check_seeds(seeds, len(cfgs))
        self.saes: list[TrainingSAE[Any]] = fresh_saes(cfgs, self.seeds, init)
        self.n_steps = 0
        self._memory: dict[str, Tensor] = {}

    def train(
        self,
        sample_batch: SampleBatch,
        options: TrainingOptions,
        *,
        generator: GeneratorLike | None = None,
    ) -> Ensemble:
        """Take `options.steps` further steps, and return the ensemble itself.

        Adam goes on where it was, and so do schedules of k and of coefficients; the schedule of the
        learning rate begins anew.

        Args:
            sample_batch: `sample_batch(n, generator)` gives a batch `(n, d_in)`, seen by every SAE.
            options: all of them count.
            generator: draws the batches; by default one seeded with the first seed. Its state
                advances.

        Raises:
            ValueError, TypeError: for an unusable argument, a batch of the wrong shape or with NaN,
                or a checkpoint of another run.
        """
        self._train(sample_batch, options, generator)
        return self

    def _train(
        self,
        sample_batch: SampleBatch,
        options: TrainingOptions,
        generator: GeneratorLike | None,
        *,
        keep_end: bool = False,
    ) -> None:
        check_function("sample_batch", sample_batch, "of a number of samples and a generator")
        check_instance("options", options, TrainingOptions)
        if options.n_shards > len(self.saes):
            raise ValueError(
                f"n_shards must be at most the number of SAEs, {len(self.saes)}, "
                f"got {options.n_shards}"
            )
        check_log(options.log)
        cfgs = [sae.cfg for sae in self.saes]
        check_sparse(options.sparse, cfgs[0].architecture())
        last = self.n_steps + options.steps
        check_budgets(cfgs, batch_size=options.batch_size, steps=(self.n_steps, last))
        part = Part(
            saes=self.saes,
            seeds=self.seeds,
            lrs=options.learning_rates(len(self.saes)),
            memory=self._memory,
            n_steps=self.n_steps,
        )
        seed = self.seeds[0] if generator is None else generator
        stream = check_generator("generator", seed)
        train(part, sample_batch, options, stream, keep_end=keep_end)
        self._memory, self.n_steps = part.memory, part.n_steps

    def save(self, path: str | Path) -> None:
        """Write the SAEs and what training remembers to a safetensors file, whole or not at all."""
        weights = {
            f"{i}.{name}": tensor
            for i, sae in enumerate(self.saes)
            for name, tensor in sae.state_dict().items()
        }
        memory = {f"memory.{name}": tensor for name, tensor in self._memory.items()}
        about = {"cfgs": [sae.cfg.to_dict() for sae in self.saes], "seeds": self.seeds}
        _checkpoints.save(Path(path), weights | memory, run=KIND, step=self.n_steps, log=about)

    @classmethod
    def load(cls, path: str | Path) -> Ensemble:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is no such file.
        """
        tensors, n_steps, about = _checkpoints.load(Path(path), run=KIND)
        ensemble = cls.__new__(cls)
        ensemble.saes = [TrainingSAE.from_dict(cfg) for cfg in about["cfgs"]]
        ensemble.seeds, ensemble.n_steps = about["seeds"], n_steps
        for i, sae in enumerate(ensemble.saes):
            sae.load_state_dict({name: tensors[f"{i}.{name}"] for name in sae.state_dict()})
        memory = {name: t for name, t in tensors.items() if name.startswith("memory.")}
        ensemble._memory = {name.removeprefix("memory."): t for name, t in memory.items()}
        return ensemble


def train_ensemble(
    cfgs: Sequence[TrainingSAEConfig],
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    seeds: int | Sequence[int],
    generator: GeneratorLike | None = None,
    init: Init | None = None,
) -> list[TrainingSAE[Any]]:
    """Train one SAE per config in one stacked program; return them in the order of the configs.

    The numbers are those of sae-lens, but for one case: activations that tie exactly at BatchTopK's
    threshold are all kept here, where sae-lens keeps an arbitrary part. Only worlds without
    continuous magnitudes have such ties.

    Args:
        cfgs, seeds, init: as in `Ensemble`, which also goes on, saves and loads.
        sample_batch, options, generator: as in `Ensemble.train`.

    Raises:
        ValueError, TypeError: as there.

    Source: the training step of sae-lens 6.54; BatchTopK of Bussmann et al. (arXiv 2412.06410).

    Example: four shards on the workers of a Dask cluster. ::

        options = TrainingOptions(steps=15_000, n_shards=4)
        with Client("tcp://head-node:8786"), joblib.parallel_config(backend="dask"):
            saes = train_ensemble(cfgs, world.sample, options, seeds=seeds)
    """
    ensemble = Ensemble(cfgs, seeds=seeds, init=init)
    return ensemble.train(sample_batch, options, generator=generator).saes
