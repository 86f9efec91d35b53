"""How many bits an input costs if an SAE describes it: which latents, how much of each, the rest.

Kin: Ayonrinde, Pearce and Sharkey, "Interpretability as Compression" (arXiv 2410.11179), who choose
the width and the L0 of SAEs by a description length. The code here is another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saebook._checks import check_finite, check_in_range, check_shape
from saebook.metrics.reconstruction import check_pair, squared_deviations


@dataclass(frozen=True, kw_only=True)
class CodeLength:
    """Bits an input, on average.

    Attributes:
        which: to say which latents are active.
        values: to say how active they are.
        rest: to say what the reconstruction leaves.
    """

    which: float
    values: float
    rest: float

    @property
    def total(self) -> float:
        """All three."""
        return self.which + self.values + self.rest


@torch.no_grad()
def code_length(
    x: Float[Tensor, "n d_in"],
    x_hat: Float[Tensor, "n d_in"],
    latent_acts: Float[Tensor, "n d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    *,
    precision: float = 0.02,
) -> CodeLength:
    """The bits that describe an input to a precision, by way of an SAE.

    Everything is sent to a mean squared error of ε, which is `precision` times the mean variance of
    a dimension of x. Each part costs what an ideal code of a simple model of it costs:

    - which: latents fire independently, each at its own rate p: Σ −p log₂ p − (1 − p) log₂(1 − p).
    - values: where a latent fires its activation, times the norm of its row, is normal with
      variance v: Σ p · ½ log₂(1 + v / ε).
    - rest: x − x̂ is normal, its covariance of eigenvalues λ: Σ ½ log₂(1 + λ / ε).

    The cost of the weights, the same for all SAEs of one shape, is left out.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, a precision outside
            (0, 1), or x without any variance.
    """
    check_pair(x, x_hat)
    check_finite("latent_acts", check_shape("latent_acts", latent_acts, (len(x), "d_sae")))
    check_finite("W_dec", check_shape("W_dec", W_dec, (latent_acts.shape[1], x.shape[1])))
    check_in_range("precision", precision, 0, 1, open_minimum=True, open_maximum=True)
    unit = precision * squared_deviations(x.double()) / x.numel()
    acts = latent_acts.double() * W_dec.double().norm(dim=1)
    count = (acts > 0).sum(0)
    rate = count / len(x)
    nats = (torch.special.entr(rate) + torch.special.entr(1 - rate)).sum()
    mean = acts.sum(0) / count.clamp(min=1)
    spread = acts.square().sum(0) / count.clamp(min=1) - mean.square()
    values = (rate * _bits(spread.clamp(min=0) / unit)).sum()
    left = (x - x_hat).double().T.cov(correction=0)
    rest = _bits(torch.linalg.eigvalsh(torch.atleast_2d(left)).clamp(min=0) / unit).sum()
    return CodeLength(which=nats.item() / math.log(2), values=values.item(), rest=rest.item())


def _bits(ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Of a normal variable whose variance is so many times the error that may remain."""
    return torch.log2(1 + ratio) / 2
