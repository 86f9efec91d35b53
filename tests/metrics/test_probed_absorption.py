"""The absorption fraction on SAEs whose absorption is known, and against a loop."""

from __future__ import annotations

import math

import pytest
import torch

from saebook.metrics import absorption_fraction

PARENT = torch.tensor([1.0, 0.0, 0.0])


def valley(t: float):
    """Activations and rows at t of the valley of one parent and one child, for both firing."""
    length = math.sqrt(1 + t * t)
    rows = torch.tensor([[1.0, 0.0, 0.0], [t / length, 1 / length, 0.0]])
    return torch.tensor([[1 - t, length]]), torch.tensor([[1.0, 1.0, 0.0]]), rows


def by_loop(acts, x, W_dec, probe, main):
    """The definition for one input, written out."""
    probe = probe / probe.norm()
    written = [float(a * (d @ probe)) for a, d in zip(acts, W_dec, strict=True)]
    wanted, own = float(x @ probe), sum(written[i] for i in main)
    cosines = [float(d @ probe / d.norm()) for d in W_dec]
    others = [
        w for i, w in enumerate(written) if i not in main and cosines[i] >= 0.1 and written[i] > 0
    ]
    absorbed = sum(sorted(others)[-3:])
    if own >= wanted or absorbed < 0.4 * wanted:
        return 0.0
    if own <= 0:
        return 1.0
    taken = min(absorbed, wanted - own)
    return taken / (taken + own)


@pytest.mark.parametrize(("t", "fraction"), [(0.0, 0.0), (0.3, 0.0), (0.6, 0.6), (1.0, 1.0)])
def test_along_the_valley_it_is_t_from_the_threshold_on(t, fraction):
    acts, x, rows = valley(t)
    found = absorption_fraction(acts, x, rows, 5 * PARENT, [0])
    assert found.item() == pytest.approx(fraction, abs=1e-6)


def test_it_agrees_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    acts = torch.rand(200, 8, generator=generator) * (torch.rand(200, 8, generator=generator) < 0.6)
    x = torch.randn(200, 5, generator=generator) + 1
    W_dec = torch.randn(8, 5, generator=generator) + 0.3
    probe = torch.ones(5)
    found = absorption_fraction(acts, x, W_dec, probe, [2, 5])
    oracle = [by_loop(a, row, W_dec, probe, [2, 5]) for a, row in zip(acts, x, strict=True)]
    assert found.tolist() == pytest.approx(oracle, abs=1e-5)
    assert 0 < sum(f > 0 for f in oracle) < 200


def test_only_the_largest_absorbers_count():
    rows = torch.tensor([[1.0, 0.0, 0.0]] * 5)
    acts = torch.tensor([[0.0, 0.2, 0.2, 0.2, 0.2]])
    x = torch.tensor([[1.0, 0.0, 0.0]])
    assert absorption_fraction(acts, x, rows, PARENT, [0]).item() == 1
    assert absorption_fraction(acts, x, rows, PARENT, [0], n_absorbers=1).item() == 0
    assert absorption_fraction(acts, x, rows, PARENT, [0], least_share=0.7).item() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main": []}, "main must hold one or more different indices from 0 to 1"),
        ({"main": [2]}, "main must hold"),
        ({"main": [0, 0]}, "main must hold"),
        ({"probe": torch.zeros(3)}, "probe must be a direction"),
        ({"least_share": 2.0}, "least_share"),
        ({"n_absorbers": 0}, "n_absorbers"),
    ],
)
def test_bad_arguments_are_named(change, message):
    acts, x, rows = valley(0.5)
    arguments = {"x": x, "W_dec": rows, "probe": PARENT, "main": [0]} | change
    with pytest.raises(ValueError, match=message):
        absorption_fraction(acts, **arguments)
