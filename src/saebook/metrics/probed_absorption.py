"""SAEBench's measure of absorption, which needs a probe of the feature and no truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import (
    check_finite,
    check_in_range,
    check_positive_int,
    check_rows,
    check_shape,
)
from saebook.metrics.decoders import check_decoder


@torch.no_grad()
def absorption_fraction(
    latent_acts: Float[Tensor, "n d_sae"],
    x: Float[Tensor, "n d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    probe: Float[Tensor, " d_in"],
    main: Sequence[int],
    *,
    least_cosine: float = 0.1,
    least_share: float = 0.4,
    n_absorbers: int = 3,
) -> Float[Tensor, " n"]:
    """For each input the share of a feature that other latents write in place of its own, (n,).

    With the probe p of norm one, latent i writes a_i (d_i · p) along it. Let M be the sum of that
    over the feature's own, *main* latents. *Absorbers* are other latents whose decoder row has a
    cosine of at least `least_cosine` with the probe and that write a positive amount; A is the sum
    over the `n_absorbers` that write most. The fraction is

        0                                   if M ≥ x · p, or A < least_share · x · p
        1                                   otherwise, if M ≤ 0
        A' / (A' + M), A' = min(A, x·p − M) otherwise

    It should be averaged over inputs that hold the feature. The defaults are SAEBench's.

    Source: SAEBench (arXiv 2503.09532), absorption fraction, as its code has it; there decoder rows
    have norm 1. The idea is that of "A is for Absorption" (arXiv 2409.14507).

    Args:
        probe: a direction that tells the feature; its length does not matter.
        main: indices of the feature's own latents, one or more.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, a probe of 0, or indices
            that are out of range or repeated.
    """
    check_rows("latent_acts", latent_acts, "d_sae")
    check_decoder("W_dec", check_shape("W_dec", W_dec, (latent_acts.shape[1], "d_in")))
    check_finite("x", check_shape("x", x, (len(latent_acts), W_dec.shape[1])))
    check_finite("probe", check_shape("probe", probe, (W_dec.shape[1],)))
    check_in_range("least_cosine", least_cosine, -1, 1)
    check_in_range("least_share", least_share, 0, 1)
    check_positive_int("n_absorbers", n_absorbers)
    _check_main(main, len(W_dec))
    if not bool(probe.any()):
        raise ValueError("probe must be a direction, got a vector of zeros")
    unit = probe / probe.norm()
    along = W_dec @ unit
    written = latent_acts * along
    wanted, own = x @ unit, written[:, list(main)].sum(dim=1)
    may_absorb = along >= least_cosine * W_dec.norm(dim=1)
    may_absorb[list(main)] = False
    others = (written * may_absorb).clamp(min=0)
    most = min(n_absorbers, others.shape[1])
    absorbed = others.topk(most, dim=1).values.sum(dim=1)
    taken = torch.minimum(absorbed, wanted - own)
    fraction = torch.where(own <= 0, torch.ones_like(own), taken / (taken + own))
    none = (own >= wanted) | (absorbed < least_share * wanted)
    return torch.where(none, torch.zeros_like(own), fraction)


def _check_main(main: Sequence[int], d_sae: int) -> None:
    if not main or len(set(main)) != len(main) or not all(0 <= i < d_sae for i in main):
        raise ValueError(
            f"main must hold one or more different indices from 0 to {d_sae - 1}, got {list(main)}"
        )
