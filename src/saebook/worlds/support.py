"""The states of finite worlds as inputs with probabilities, for one SAE or many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_instance
from saebook.worlds.base import World


def support_inputs(
    world: World, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, " n_states"]]:
    """The inputs of a finite world's states (n_states, d_in) and their probabilities, in double.

    Raises:
        TypeError, ValueError: for what is no world, or one that is not finite or has another d_in.
    """
    check_instance("world", world, World)
    if world.noise_std:
        raise ValueError(f"world must have no noise, got noise_std = {world.noise_std:g}")
    feature_acts, probabilities = world.support()
    x = feature_acts.double() @ world.directions.double()
    if x.shape[1] != d_in:
        raise ValueError(f"world must have d_in = {d_in} as the configs, got {x.shape[1]}")
    return x, probabilities.double()


def worlds_of(world: World | Sequence[World], n_saes: int) -> list[World]:
    """One world per SAE."""
    if not isinstance(world, Sequence):
        return [world] * n_saes
    if len(world) != n_saes:
        raise ValueError(
            f"world must be one world or one per SAE, {n_saes} in all, got {len(world)}"
        )
    return list(world)


def supports_of(
    world: World | Sequence[World], d_ins: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """`support_inputs` of the world of each SAE, listed once for SAEs that share a world."""
    listed: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    keys = []
    for own, d_in in zip(worlds_of(world, len(d_ins)), d_ins, strict=True):
        keys.append((id(own), d_in))
        if keys[-1] not in listed:
            listed[keys[-1]] = support_inputs(own, d_in=d_in)
    return [listed[key] for key in keys]


def shared_support(
    world: World | Sequence[World], n_saes: int, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, "{n_saes} n_states"]]:
    """The states that all worlds share and their probabilities for each SAE."""
    supports = supports_of(world, [d_in] * n_saes)
    x = supports[0][0]
    for other, _ in supports:
        if other is x:
            continue
        if other.shape != x.shape or not torch.equal(other, x):
            raise ValueError(
                "world must hold worlds of the same states and directions, got "
                f"{len(x)} and {len(other)} states that differ"
            )
    return x, torch.stack([probabilities for _, probabilities in supports])
