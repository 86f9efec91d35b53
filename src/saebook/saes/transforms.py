"""SAEs made from trained ones: for inference, with another k, with more latents."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE, BatchTopKTrainingSAE, TrainingSAE
from sae_lens.registry import (
    get_sae_training_class,
)
from torch import Tensor

from saebook._checks import (
    check_in_range,
    check_instance,
    check_non_negative_int,
    check_positive_int,
    check_rows,
)


def with_k(sae: BatchTopKTrainingSAE, k: float) -> BatchTopKTrainingSAE:
    """A copy of a trained BatchTopK SAE that keeps k activations a sample; the original stays.

    Raises:
        TypeError: if the SAE is no BatchTopK SAE.
        ValueError: if k is not in (0, d_sae].
    """
    check_instance("sae", sae, BatchTopKTrainingSAE)
    changed = copy.deepcopy(sae)
    changed.activation_fn.k = check_in_range("k", k, 0, sae.cfg.d_sae, open_minimum=True)
    return changed


def widened(sae: TrainingSAE[Any], n_new: int, *, seed: int) -> TrainingSAE[Any]:
    """An SAE with `n_new` fresh latents after those of a trained one, to be trained further.

    The old latents keep their weights and the SAE its state, such as BatchTopK's threshold; the new
    latents are drawn as sae-lens draws them. The last prefix of a Matryoshka SAE grows with it.

    Args:
        sae: a trained sae-lens training SAE; it stays as it is.
        n_new: number of latents to add.
        seed: draws the new latents, as `torch.manual_seed` would.

    Raises:
        TypeError, ValueError: for what is no training SAE, or a number below 1.
    """
    check_instance("sae", sae, TrainingSAE)
    changes: dict[str, Any] = {"d_sae": sae.cfg.d_sae + check_positive_int("n_new", n_new)}
    if hasattr(sae.cfg, "matryoshka_widths"):
        changes["matryoshka_widths"] = [*sae.cfg.matryoshka_widths[:-1], changes["d_sae"]]
    cfg = replace(copy.deepcopy(sae.cfg), **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_non_negative_int("seed", seed))
        wide = get_sae_training_class(cfg.architecture())[0](cfg)
    wide.activation_fn = copy.deepcopy(sae.activation_fn)  # its k may be another than the config's
    state = wide.state_dict()
    for name, old in sae.state_dict().items():
        state[name][tuple(map(slice, old.shape))] = old
    return wide


@torch.no_grad()
def turned(
    sae: TrainingSAE[Any], x: Float[Tensor, "n d_in"], *, share: float = 0.1
) -> TrainingSAE[Any]:
    """A copy in which latents that mean a feature's absence point the other way; the sae stays.

    Such a latent is active where the feature is absent and points away from it, while b_dec holds
    the feature for all inputs. So b_dec takes back what the latent adds: the component of b_dec
    along its decoder row is negative. Where that is more than a `share` of the latent's mean
    activation, encoder and decoder row change sign and b_enc is 0; training has to do the rest.

    Args:
        sae: a training SAE, whose latents are judged.
        x: inputs, on which mean activations are taken, of active latents.
        share: from 0; the lower, the more latents are turned.

    Raises:
        TypeError, ValueError: for what is no training SAE, other inputs, or a negative share.
    """
    check_instance("sae", sae, TrainingSAE)
    check_rows("x", x, sae.cfg.d_in)
    check_in_range("share", share, 0)
    changed, acts = copy.deepcopy(sae), sae.encode(x)
    mean = acts.sum(0) / (acts > 0).sum(0).clamp(min=1)
    along = (sae.W_dec @ sae.b_dec) / sae.W_dec.square().sum(1).clamp(min=1e-12)
    means_absence = (mean > 0) & (along < -share * mean)
    sign = 1 - 2 * means_absence.to(sae.W_dec.dtype)
    changed.W_enc.data *= sign
    changed.W_dec.data *= sign[:, None]
    if hasattr(changed, "b_enc"):
        changed.b_enc.data *= ~means_absence
    return changed


@torch.no_grad()
def inference_sae(sae: TrainingSAE[Any]) -> SAE[Any]:
    """The SAE as it is used after training: what sae-lens saves for inference, in memory.

    BatchTopK becomes JumpReLU with the threshold that training has tracked; decoder rows that count
    as unit vectors become unit vectors. The other variants keep their functions.
    """
    cfg = sae.cfg.get_inference_sae_cfg_dict()
    state = {name: value.clone() for name, value in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    ready = SAE.from_dict(cfg)
    ready.load_state_dict(state)
    return ready
