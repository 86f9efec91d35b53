"""Order statistics, remembered and bisected, against a full sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saebook.training.engine.selection import KthLargest, cuts_per_sample

TINY = torch.finfo(torch.float32).tiny


def sorted_kth(values: torch.Tensor, ranks: list[int]) -> torch.Tensor:
    ordered = values.sort(dim=1, descending=True).values
    return torch.stack([row[k - 1] for row, k in zip(ordered, ranks, strict=True)])


@given(
    seed=st.integers(0, 10_000),
    drift=st.sampled_from([0.0, 0.001, 0.1, 10.0]),
    size=st.sampled_from([60, 1023, 1024, 2500]),
    ranks=st.lists(st.integers(1, 60), min_size=3, max_size=3),
)
def test_the_answer_is_exact_however_far_the_values_drift(seed, drift, size, ranks):
    generator = torch.Generator().manual_seed(seed)
    kth = KthLargest(3)
    values = torch.randn(3, size, generator=generator)
    for _ in range(6):
        assert torch.equal(kth(values, ranks), sorted_kth(values, ranks))
        values = values + drift * torch.randn(3, size, generator=generator)


@given(seed=st.integers(0, 10_000))
def test_ties_do_not_disturb_the_rank(seed):
    generator = torch.Generator().manual_seed(seed)
    kth = KthLargest(2)
    for _ in range(5):
        values = torch.randint(0, 4, (2, 40), generator=generator).float()
        assert torch.equal(kth(values, [7, 23]), sorted_kth(values, [7, 23]))


def test_some_of_the_rows_can_be_looked_at_alone():
    values = torch.randn(3, 60, generator=torch.Generator().manual_seed(0))
    kth, ranks = KthLargest(3), [5, 6, 7]
    for _ in range(3):  # from the third time on there is a range to look in
        alone = [kth(values[i : i + 1], ranks[i : i + 1], slice(i, i + 1)) for i in (0, 2)]
        assert torch.equal(torch.cat(alone), sorted_kth(values, ranks)[[0, 2]])
        values = values + 0.01


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 9),
    shift=st.sampled_from([-9.0, -1.0, 0.0, 5.0]),
)
def test_a_cut_keeps_the_k_largest_that_are_positive(seed, k, shift):
    values = shift + torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(seed))
    kept = values >= cuts_per_sample(values, [k, 1], TINY)[:, :, None]
    aside = torch.zeros(2, 9, 7).mT  # not contiguous, as on other devices: PyTorch's words
    assert torch.equal(kept, values >= cuts_per_sample(aside + values, [k, 1], TINY)[:, :, None])
    positive = (values > 0).sum(-1)
    assert torch.equal(kept.sum(-1), torch.minimum(positive, torch.tensor([[k], [1]])))


@pytest.mark.parametrize("contiguous", [True, False])
def test_values_that_tie_at_the_cut_are_all_kept(contiguous):
    values = torch.tensor([3.0, 2.0, 2.0, 2.0, 1.0]).repeat(1, 2, 1)
    if not contiguous:
        values = values.mT.contiguous().mT
    cuts = cuts_per_sample(values, [2], TINY)
    assert (values >= cuts[:, :, None]).sum() == 8
