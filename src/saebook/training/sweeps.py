"""SAEs over a grid of settings and several seeds, with their table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd
from sae_lens import TrainingSAE, TrainingSAEConfig

from saebook._checks import GeneratorLike, check_instance, check_sequence
from saebook.training.engine.batches import SampleBatch
from saebook.training.ensembles import train_ensemble
from saebook.training.initial import check_seeds
from saebook.training.options import TrainingOptions

Trainer = Callable[..., list[TrainingSAE[Any]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """SAEs of one sweep.

    Attributes:
        saes: the trained SAEs.
        table: one row an SAE, in their order, with a column for each setting, and `seed`. Measures
            can be added to it as columns.
    """

    saes: list[TrainingSAE[Any]] = field(repr=False)
    table: pd.DataFrame

    def where(self, **settings: Any) -> list[TrainingSAE[Any]]:
        """The SAEs with these settings, such as `k=3` or `seed=0`.

        Raises:
            ValueError: if there are none.
        """
        fits = pd.Series(True, index=self.table.index)
        for name, value in settings.items():
            fits &= self.table[name] == value
        if not fits.any():
            raise ValueError(f"the settings must be among the sweep's, got {settings}")
        return [sae for sae, fit in zip(self.saes, fits, strict=True) if fit]


def sweep(
    cfg: TrainingSAEConfig,
    sample_batch: SampleBatch,
    options: TrainingOptions,
    *,
    over: Mapping[str, Sequence[Any]],
    seeds: int | Sequence[int] = 5,
    generator: GeneratorLike,
    train: Trainer = train_ensemble,
) -> Sweep:
    """Train an SAE for every combination of settings and every seed, in one stacked program.

    Args:
        cfg: sae-lens training config with all other settings.
        sample_batch, options, generator: as in `train_ensemble`.
        over: values of fields of the config, such as `{"k": [2, 3, 4]}`; the last field varies
            fastest, and seeds faster.
        seeds: how many initial weights for each combination, or which.
        train: `train_ensemble`, `train_and_polish` or `train_thoroughly`.

    Raises:
        ValueError, TypeError: for a field that the config does not have or that an ensemble cannot
            vary, and what `train` raises.

    Example: five seeds at each of three k, and a measure as a column of the table. ::

        found = sweep(cfg, world.sample, options, over={"k": [2, 3, 4]}, generator=0)
        found.table["mcc"] = [signed_mcc(sae.W_dec, world.directions) for sae in found.saes]
    """
    check_instance("cfg", cfg, TrainingSAEConfig)
    known = {f.name for f in dataclasses.fields(cfg)}
    if unknown := sorted(set(over) - known):
        raise ValueError(f"over must name fields of {type(cfg).__name__}, got {unknown}")
    for name, values in over.items():
        if len(check_sequence(name, values, "values")) == 0:
            raise ValueError(f"over must hold at least one value of {name}, got none")
    chosen = check_seeds(seeds)
    rows = [
        {**dict(zip(over, values, strict=True)), "seed": seed}
        for *values, seed in product(*over.values(), chosen)
    ]
    settings = [{name: row[name] for name in over} for row in rows]
    saes = train(
        [dataclasses.replace(cfg, **each) for each in settings],
        sample_batch,
        options,
        seeds=[row["seed"] for row in rows],
        generator=generator,
    )
    return Sweep(saes=saes, table=pd.DataFrame(rows))
