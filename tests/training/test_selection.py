"""The remembered order statistic against a full sort."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from saebook.training.engine.selection import KthLargest


def sorted_kth(values: torch.Tensor, ranks: list[int]) -> torch.Tensor:
    ordered = values.sort(dim=1, descending=True).values
    return torch.stack([row[k - 1] for row, k in zip(ordered, ranks, strict=True)])


@given(
    seed=st.integers(0, 10_000),
    drift=st.sampled_from([0.0, 0.001, 0.1, 10.0]),
    ranks=st.lists(st.integers(1, 60), min_size=3, max_size=3),
)
def test_the_answer_is_exact_however_far_the_values_drift(seed, drift, ranks):
    generator = torch.Generator().manual_seed(seed)
    kth = KthLargest(3)
    values = torch.randn(3, 60, generator=generator)
    for _ in range(6):
        assert torch.equal(kth(values, ranks), sorted_kth(values, ranks))
        values = values + drift * torch.randn(3, 60, generator=generator)


@given(seed=st.integers(0, 10_000))
def test_ties_do_not_disturb_the_rank(seed):
    generator = torch.Generator().manual_seed(seed)
    kth = KthLargest(2)
    for _ in range(5):
        values = torch.randint(0, 4, (2, 40), generator=generator).float()
        assert torch.equal(kth(values, [7, 23]), sorted_kth(values, [7, 23]))
