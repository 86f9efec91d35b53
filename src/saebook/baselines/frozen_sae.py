"""SAEs of which a part is kept random while the rest is trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor
from torch.nn.functional import normalize

from saebook._checks import (
    check_in_range,
    check_one_of,
    check_positive,
    check_positive_int,
)
from saebook.baselines.atoms import random_directions
from saebook.baselines.base import Baseline
from saebook.baselines.pursuit import keep_largest
from saebook.baselines.sae import positive_pre_acts
from saebook.training.schedules import learning_rates

FROZEN: dict[str, tuple[str, ...]] = {
    "decoder": ("W_dec",),
    "soft_decoder": (),
    "encoder": ("W_enc", "b_enc"),
    "nothing": (),
}
MAX_GRAD_NORM = 1.0  # sae-lens clips an SAE's gradient to this norm


class FrozenSAE(Baseline):
    """A BatchTopK SAE of which a part stays as it was drawn: what do the learned parts add?

    All kinds start from random unit directions as decoder rows, and from their transpose as the
    encoder.

    - "decoder": decoder rows stay at their random directions; the encoder and biases are trained.
    - "soft_decoder": each decoder row is brought back, after every step, to a cosine of at least
      `min_cosine` with its random direction. Its norm is free.
    - "encoder": W_enc and b_enc stay, so that each latent's activation is a random projection of
      the centred input; the decoder is trained. Latents then compete by activation alone.
    - "nothing": all is trained, the control.

    It is trained with sae-lens' own losses, Adam and gradient clipping on random batches of centred
    data; the rate falls to 0 over the last fifth of the steps. `encode` keeps, for each input, the
    l0 largest of what latents compete by in training, and has no threshold.

    Args:
        kind: "decoder", "soft_decoder", "encoder" or "nothing".
        n_atoms: number of latents.
        k: mean number of latents an input in training.
        steps: steps of Adam.
        batch_size: inputs a step.
        lr: learning rate.
        min_cosine: how far rows of a soft-frozen decoder may turn.
        dead_feature_window: a latent silent for more than this many steps gets the auxiliary loss.

    Source: Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders" (arXiv 2602.14111).
    """

    def __init__(
        self,
        *,
        kind: str,
        n_atoms: int,
        k: float,
        steps: int = 2000,
        batch_size: int = 256,
        lr: float = 1e-3,
        min_cosine: float = 0.8,
        dead_feature_window: int = 200,
    ) -> None:
        self.kind = check_one_of("kind", kind, FROZEN)
        self.n_atoms = check_positive_int("n_atoms", n_atoms)
        self.k = check_in_range("k", k, 0, n_atoms, open_minimum=True)
        self.steps = check_positive_int("steps", steps)
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.lr = check_positive("lr", lr)
        self.min_cosine = check_in_range("min_cosine", min_cosine, -1, 1)
        self.dead_feature_window = check_positive_int("dead_feature_window", dead_feature_window)
        self._centred_sae: BatchTopKTrainingSAE | None = None
        self._losses: list[float] | None = None

    @property
    def losses(self) -> list[float]:
        """The squared error of each training step's batch, before the step."""
        return self._fitted(self._losses)

    @property
    def sae(self) -> BatchTopKTrainingSAE:
        """A sae-lens training SAE of the same function, for inputs that are not centred.

        It takes the mean of the training data off in b_enc and adds it in b_dec.
        """
        sae = copy.deepcopy(self._fitted(self._centred_sae))
        mean = self._fitted(self._centre)
        sae.b_enc.data -= mean @ sae.W_enc.data
        sae.b_dec.data += mean
        return sae

    @property
    def centre(self) -> Float[Tensor, " d_in"]:
        """The mean of the training data plus the learned b_dec."""
        return super().centre + self._fitted(self._centred_sae).b_dec.detach()

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        directions = random_directions(x, self.n_atoms, generator)
        sae = self._fresh(directions)
        with torch.enable_grad():
            self._losses = self._train(sae, x, directions, generator)
        self._centred_sae = sae
        return sae.W_dec.detach()

    def _encode(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        return self._code(x - self._fitted(self._centre), l0)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        sae = self._fitted(self._centred_sae)
        codes = positive_pre_acts(sae, x)
        by_norm = sae.cfg.rescale_acts_by_decoder_norm
        return keep_largest(codes, codes * self.dictionary.norm(dim=1) if by_norm else codes, l0)

    def _n_encoder_parameters(self) -> int:
        sae = self._fitted(self._centred_sae)
        return sae.W_enc.numel() + sae.b_enc.numel()

    def _fresh(self, directions: Float[Tensor, "n_atoms d_in"]) -> BatchTopKTrainingSAE:
        cfg = BatchTopKTrainingSAEConfig(
            d_in=directions.shape[1],
            d_sae=self.n_atoms,
            k=self.k,
            dtype=str(directions.dtype).removeprefix("torch."),
            apply_b_dec_to_input=False,  # inputs are centred, and a frozen encoder must not shift
            rescale_acts_by_decoder_norm=self.kind != "encoder",  # nor learn by the decoder's norms
        )
        with torch.random.fork_rng(devices=[]):  # its own random weights are not used
            sae = BatchTopKTrainingSAE(cfg)
        sae.W_dec.data = directions.clone()
        sae.W_enc.data = directions.T.clone(memory_format=torch.contiguous_format)
        for name in FROZEN[self.kind]:
            getattr(sae, name).requires_grad_(False)
        return sae

    def _train(
        self,
        sae: BatchTopKTrainingSAE,
        x: Float[Tensor, "n d_in"],
        directions: Float[Tensor, "n_atoms d_in"],
        generator: torch.Generator,
    ) -> list[float]:
        """Train in place; return the squared error of every step's batch."""
        weights = [weight for weight in sae.parameters() if weight.requires_grad]
        optimizer: Any = torch.optim.Adam(weights, lr=self.lr)
        silent = torch.zeros(self.n_atoms)
        losses = []
        rates = learning_rates(self.lr, steps=self.steps, lr_decay_steps=self.steps // 5)
        for step, rate in enumerate(rates):
            batch = x[torch.randint(len(x), (self.batch_size,), generator=generator)]
            dead = silent > self.dead_feature_window
            out = sae.training_forward_pass(TrainStepInput(batch, {}, dead, step, False))
            optimizer.zero_grad()
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            if self.kind == "soft_decoder":
                sae.W_dec.data = within_cosine(sae.W_dec.data, directions, self.min_cosine)
            silent = (silent + 1) * ~out.feature_acts.detach().any(0)
            losses.append(out.losses["mse_loss"].item())
        return losses


def within_cosine(
    rows: Float[Tensor, "n d_in"], directions: Float[Tensor, "n d_in"], min_cosine: float
) -> Float[Tensor, "n d_in"]:
    """Rows turned, at their norm, just so far that cos(row, direction) is at least `min_cosine`.

    Args:
        rows: of any norm.
        directions: of norm 1, one for each row.
        min_cosine: rows that are closer are returned as they are.
    """
    norms = rows.norm(dim=1, keepdim=True)
    along = (rows * directions).sum(1, keepdim=True)
    across = normalize(rows - along * directions, dim=1)
    turned = min_cosine * directions + (1 - min_cosine**2) ** 0.5 * across
    return torch.where(along < min_cosine * norms, norms * normalize(turned, dim=1), rows)
