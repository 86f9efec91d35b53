"""Shift every random seed of a kernel: IPython runs this at the start of a replication.

The environment variable SEED_SHIFT is added to each seed that PyTorch, NumPy or scikit-learn is
given as a number, wherever it stands. scikit-learn makes its own draws from NumPy's `RandomState`.
`replicate.py` puts a copy of this file among the start-up files of its kernels. They run in the
chapter's namespace, so no name may stay behind.
"""


def shift_seeds():
    """Add the shift to every seed from here on."""
    import os

    by = int(os.environ["SEED_SHIFT"])
    if by == 0:
        return

    import numpy as np
    import torch

    def shifted(seed):
        is_number = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        return int(seed) + by if is_number else seed  # not None, and no state

    def shifting(function):
        return lambda seed=None, *rest, **options: function(shifted(seed), *rest, **options)

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(shifted(seed))

    class RandomState(np.random.RandomState):
        def __init__(self, seed=None):
            super().__init__(shifted(seed))

        def seed(self, seed=None):
            super().seed(shifted(seed))

    torch.Generator, np.random.RandomState = Generator, RandomState
    torch.manual_seed = torch.random.manual_seed = shifting(torch.manual_seed)
    np.random.default_rng, np.random.seed = map(shifting, (np.random.default_rng, np.random.seed))


shift_seeds()
del shift_seeds
