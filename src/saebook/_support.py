"""The states of finite worlds as inputs with probabilities, for one SAE or many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_instance
from saebook.toy_world import ToyWorld


def support_inputs(
    world: ToyWorld, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, " n_states"]]:
    """The inputs of a finite world's states (n_states, d_in) and their probabilities, in double.

    Raises:
        TypeError, ValueError: for what is no world, or one that is not finite or has another d_in.
    """
    check_instance("world", world, ToyWorld)
    feature_acts, probabilities = world.support()
    x = feature_acts.double() @ world.directions.double()
    if x.shape[1] != d_in:
        raise ValueError(f"world must have d_in = {d_in} as the configs, got {x.shape[1]}")
    return x, probabilities.double()


def worlds_of(world: ToyWorld | Sequence[ToyWorld], n_saes: int) -> list[ToyWorld]:
    """One world per SAE."""
    if not isinstance(world, Sequence):
        return [world] * n_saes
    if len(world) != n_saes:
        raise ValueError(
            f"world must be one world or one per SAE, {n_saes} in all, got {len(world)}"
        )
    return list(world)


def shared_support(
    world: ToyWorld | Sequence[ToyWorld], n_saes: int, *, d_in: int
) -> tuple[Float[Tensor, "n_states {d_in}"], Float[Tensor, "{n_saes} n_states"]]:
    """The states that all worlds share and their probabilities for each SAE."""
    supports: dict[int, tuple[Tensor, Tensor]] = {}
    own_worlds = worlds_of(world, n_saes)
    for own in own_worlds:
        if id(own) not in supports:
            supports[id(own)] = support_inputs(own, d_in=d_in)
    x = supports[id(own_worlds[0])][0]
    for other, _ in supports.values():
        if other.shape != x.shape or not torch.equal(other, x):
            raise ValueError(
                "world must hold worlds of the same states and directions, got "
                f"{len(x)} and {len(other)} states that differ"
            )
    return x, torch.stack([supports[id(own)][1] for own in own_worlds])
