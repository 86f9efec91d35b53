"""Shift every random seed of a kernel: IPython runs this at the start of a replication.

The environment variable SEED_SHIFT is added to each seed that PyTorch, NumPy or scikit-learn is
given as a number, wherever it stands. scikit-learn makes its own draws from NumPy's `RandomState`.
`replicate.py` puts a copy of this file among the start-up files of its kernels.
"""

import os

import numpy as np
import torch

SHIFT = int(os.environ["SEED_SHIFT"])


def shifted(seed):
    """The seed with the shift; what is no whole number (None, a state) as it is."""
    is_number = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    return int(seed) + SHIFT if is_number else seed


class Generator(torch.Generator):
    """PyTorch's generator."""

    def manual_seed(self, seed):
        return super().manual_seed(shifted(seed))


class RandomState(np.random.RandomState):
    """NumPy's older generator, which scikit-learn uses."""

    def __init__(self, seed=None):
        super().__init__(shifted(seed))

    def seed(self, seed=None):
        super().seed(shifted(seed))


def shift(function):
    """A function whose first argument is a seed, with the shift."""
    return lambda seed=None, *rest, **options: function(shifted(seed), *rest, **options)


if SHIFT:
    torch.Generator = Generator
    torch.manual_seed = torch.random.manual_seed = shift(torch.manual_seed)
    np.random.RandomState = RandomState
    np.random.default_rng = shift(np.random.default_rng)
    np.random.seed = shift(np.random.seed)
