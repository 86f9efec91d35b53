"""The dictionary of a trained SAE, with its own encoder or with another inference."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, TrainingSAE
from torch import Tensor

from saebook._checks import check_in_range, check_instance, check_one_of, check_rows
from saebook.baselines.base import Baseline
from saebook.baselines.pursuit import keep_largest, orthogonal_matching_pursuit
from saebook.metrics.decoders import unit_rows
from saebook.saes.transforms import inference_sae

SAE_INFERENCES = ("encoder", "pre_acts", "omp")


class SAEDictionary(Baseline):
    """A trained sae-lens SAE as a baseline; `fit` learns nothing, and the centre is its b_dec.

    Of an input's latents, the l0 of largest activation · ‖decoder row‖ are kept:

    - "encoder": of those that the SAE as it is used after training lets through. Its own threshold
      or k stays in force, so a row may have fewer than l0.
    - "pre_acts": of all with a positive pre-activation. Threshold and k are set aside, so that l0
      can be matched.
    - "omp": the encoder is set aside and the input coded by `orthogonal_matching_pursuit` over the
      decoder rows, scaled to norm 1. Only the dictionary is judged.

    Args:
        sae: a training SAE, of which `saes.inference_sae` is used, or an inference SAE.
        inference: "encoder", "pre_acts" or "omp".
        train_seconds: what training it took, for `fit_seconds`; NaN if not known.

    Raises:
        ValueError, TypeError: for an SAE that normalises or reshapes its inputs, or another
            inference. For "pre_acts" an SAE without b_enc, which has more than one encoder; for
            "omp" a decoder row of zeros.
    """

    def __init__(
        self, sae: SAE[Any], *, inference: str = "encoder", train_seconds: float = math.nan
    ) -> None:
        check_instance("sae", sae, SAE)
        self.inference = check_one_of("inference", inference, SAE_INFERENCES)
        for name in ("normalize_activations", "reshape_activations"):
            if getattr(sae.cfg, name) != "none":
                raise ValueError(f"{name} of sae must be 'none', got {getattr(sae.cfg, name)!r}")
        if inference == "pre_acts" and not hasattr(sae, "b_enc"):
            raise ValueError(f"sae must have b_enc for 'pre_acts', got a {type(sae).__name__}")
        if not math.isnan(train_seconds):
            check_in_range("train_seconds", train_seconds, 0)
        self.sae = inference_sae(sae) if isinstance(sae, TrainingSAE) else sae
        self.train_seconds = train_seconds
        W_dec = self.sae.W_dec.detach()
        # Such an SAE's activations are contributions already, and its decoder divides by the norm.
        by_norm = getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False)
        self._scale = W_dec.norm(dim=1) if by_norm else torch.ones_like(W_dec[:, 0])
        unit = inference == "omp"
        self._atoms = unit_rows("W_dec", W_dec) if unit else W_dec / self._scale[:, None]

    @property
    def fit_seconds(self) -> float:
        """What training the SAE took, as it was given."""
        self._fitted(self._fit_seconds)
        return self.train_seconds

    def _centre_of(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, " d_in"]:
        check_rows("x", x, self.sae.cfg.d_in)
        return self.sae.b_dec.detach()

    def _learn(
        self, x: Float[Tensor, "n d_in"], generator: torch.Generator
    ) -> Float[Tensor, "n_atoms d_in"]:
        return self._atoms

    def _encode(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        if self.inference == "omp":
            return self._code(x - self.centre, l0)
        if self.inference == "encoder":
            codes = self.sae.encode(x)
        else:
            codes = positive_pre_acts(self.sae, x) * self._scale
        return keep_largest(codes, codes * self.dictionary.norm(dim=1), l0)

    def _code(self, x: Float[Tensor, "n d_in"], l0: int) -> Float[Tensor, "n n_atoms"]:
        return orthogonal_matching_pursuit(x, self.dictionary, l0)

    def _n_encoder_parameters(self) -> int:
        if self.inference == "omp":
            return 0
        decoder = self.sae.W_dec.numel() + self.sae.b_dec.numel()
        return sum(weight.numel() for weight in self.sae.parameters()) - decoder


def positive_pre_acts(sae: SAE[Any], x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
    """relu of what an SAE's encoder computes before any gate."""
    return torch.relu(sae.process_sae_in(x) @ sae.W_enc + sae.b_enc)
