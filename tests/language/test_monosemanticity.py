import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import f1_score

from saebook.language import (
    best_class_f1,
    best_token_f1,
    measure_units,
    monosemanticity,
    token_classes,
    token_entropy,
)

SEEDS = st.integers(0, 10_000)
SIZES = st.integers(1, 6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randint(high, *shape, seed=0, low=0):
    return torch.randint(low, high, shape, generator=generator(seed))


def random_units(n_tokens, n_units, *, density=0.4, seed=0):
    return torch.rand(n_tokens, n_units, generator=generator(seed)) < density


# Classes of tokens


def test_token_classes_worked_by_hand():
    expected = {
        " the": {"leading_space"},
        "ing": {"word_piece"},
        " The": {"leading_space", "upper_start"},
        "HTTP": {"word_piece", "upper_start", "all_upper"},
        "I": {"word_piece", "upper_start"},
        " 42": {"leading_space", "digit"},
        "x_2": {"word_piece", "underscore", "digit"},
        "();": {"punctuation", "opening_bracket", "closing_bracket"},
        "\n    ": {"newline", "blank"},
        " ": {"leading_space", "blank"},
        "“": {"punctuation", "quote", "non_ascii"},
        "É": {"word_piece", "upper_start", "non_ascii"},
        "": set(),
    }
    names, table = token_classes(list(expected))
    found = [{n for n, yes in zip(names, row, strict=True) if yes} for row in table.tolist()]
    assert dict(zip(expected, found, strict=True)) == expected
    assert set().union(*found) == set(names)


# Entropy


def test_entropy_worked_by_hand():
    # Two tokens twice each: 1 bit, and (2 − 1) / (2 · 4 · ln 2) for the bias.
    tokens = torch.tensor([[3, 0, 5], [3, 0, 1], [7, 0, 2], [7, 0, 4]])
    half = 1 + 1 / (8 * math.log(2))
    assert token_entropy(tokens, 16).tolist() == pytest.approx([half, 0, 2])  # the last cut off
    assert token_entropy(torch.tensor([[0], [0], [1], [1]]), 2).item() == pytest.approx(1)


def test_places_without_an_example_do_not_count():
    tokens = torch.tensor([[3, 9, -1], [3, -1, -1], [8, -1, -1], [8, -1, -1], [-1, -1, -1]])
    found = token_entropy(tokens, 10)
    assert found[:2].tolist() == pytest.approx([1 + 1 / (8 * math.log(2)), 0])
    assert found[2].isnan()
    assert token_entropy(torch.full((0, 2), -1), 10).isnan().all()


@given(n=st.integers(1, 12), n_units=SIZES, vocab_size=SIZES, seed=SEEDS)
def test_entropy_agrees_with_a_naive_loop(n, n_units, vocab_size, seed):
    tokens = randint(vocab_size, n, n_units, seed=seed, low=-1)
    for column, found in zip(tokens.T.tolist(), token_entropy(tokens, vocab_size), strict=True):
        counts = list(Counter(token for token in column if token >= 0).values())
        if not counts:
            assert found.isnan()
            continue
        n_shown = sum(counts)
        corrected = entropy(counts, base=2) + (len(counts) - 1) / (2 * n_shown * math.log(2))
        most = math.log2(min(n_shown, vocab_size))
        assert found.item() == pytest.approx(min(corrected, most), abs=1e-12)


def test_the_correction_removes_most_of_the_bias():
    p = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
    n_examples, n_units = 50, 2000
    draws = p.multinomial(n_examples * n_units, replacement=True, generator=generator())
    draws = draws.reshape(n_examples, n_units)
    truth = entropy(p.numpy(), base=2)
    plug_in = [entropy(list(Counter(c).values()), base=2) for c in draws.T.tolist()]
    corrected = token_entropy(draws, 6)
    standard_error = corrected.std().item() / n_units**0.5
    assert abs(corrected.mean().item() - truth) < 4 * standard_error
    assert sum(plug_in) / n_units < truth - 8 * standard_error


# Detectors


def test_best_token_f1_worked_by_hand():
    tokens = torch.tensor([0, 0, 1, 1, 2, 2])
    active = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [0, 1]]).bool()
    # Unit 0 with token 0: 2·2 / (3 + 2). Unit 1 with token 2: 2·2 / (4 + 2).
    f1, token = best_token_f1(active, tokens, 4)
    assert f1.tolist() == pytest.approx([4 / 5, 4 / 6])
    assert token.tolist() == [0, 2]


def test_a_unit_that_fires_on_one_token_only_has_f1_one():
    tokens = randint(7, 500)
    active = tokens[:, None] == torch.arange(7)
    f1, token = best_token_f1(active, tokens, 7)
    assert f1.tolist() == [1] * 7
    assert token.tolist() == list(range(7))


def test_a_unit_that_misses_half_of_its_token_has_precision_one_but_less_f1():
    tokens = torch.tensor([5, 5, 1, 1])
    f1, token = best_token_f1(torch.tensor([[True], [False], [False], [False]]), tokens, 6)
    assert f1.item() == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert token.item() == 5


@given(n_units=SIZES, vocab_size=SIZES, seed=SEEDS)
def test_best_token_f1_agrees_with_scikit_learn(n_units, vocab_size, seed):
    tokens, active = randint(vocab_size, 20, seed=seed), random_units(20, n_units, seed=seed)
    f1, token = best_token_f1(active, tokens, vocab_size)
    for unit in range(n_units):
        fires = active[:, unit]
        if not fires.any():
            assert f1[unit].isnan() and token[unit] == -1
            continue
        scores = [f1_score(fires, tokens == v, zero_division=0) for v in range(vocab_size)]
        assert f1[unit].item() == pytest.approx(max(scores))
        assert scores[token[unit]] == pytest.approx(max(scores))


@given(n_units=SIZES, n_classes=SIZES, seed=SEEDS)
def test_best_class_f1_agrees_with_scikit_learn(n_units, n_classes, seed):
    active = random_units(20, n_units, density=0.2, seed=seed)
    classes = random_units(20, n_classes, seed=seed + 1)
    f1, index = best_class_f1(active, classes)
    for unit in range(n_units):
        fires = active[:, unit]
        if not fires.any():
            assert f1[unit].isnan() and index[unit] == -1
            continue
        scores = [f1_score(fires, member, zero_division=0) for member in classes.T]
        assert f1[unit].item() == pytest.approx(max(scores))
        assert scores[index[unit]] == pytest.approx(max(scores))


@pytest.mark.parametrize("density", [0.02, 0.5])
def test_a_unit_that_knows_nothing_of_the_text_scores_the_closed_form(density):
    n, q = 200_000, 0.4
    tokens = (torch.rand(n, generator=generator()) > q).int() * randint(30, n, low=1)
    active = random_units(n, 4, density=density, seed=2)
    f1, token = best_token_f1(active, tokens.long(), 30)
    expected = 2 * density * q / (density + q)
    deviation = 2 * math.sqrt(n * density * q) / (n * (density + q))  # of the hits, the most noisy
    assert f1.tolist() == pytest.approx([expected] * 4, abs=4 * deviation)
    assert token.tolist() == [0] * 4


def test_many_units_are_measured_as_each_alone(monkeypatch):
    tokens, active = randint(9, 60), random_units(60, 7)
    classes = random_units(60, 3, seed=1)
    together = (*best_token_f1(active, tokens, 9), *best_class_f1(active, classes))
    monkeypatch.setattr(monosemanticity, "_UNITS_AT_ONCE", 2)
    apart = (*best_token_f1(active, tokens, 9), *best_class_f1(active, classes))
    assert all(torch.equal(one, other) for one, other in zip(together, apart, strict=True))


# All measures


def measure(acts, tokens, *, previous=None, classes=None, n_examples=5, seed=0):
    previous = tokens.roll(1) if previous is None else previous
    classes = tokens[:, None] < 2 if classes is None else classes
    gen = generator(seed)
    return measure_units(acts, tokens, previous, classes, n_examples=n_examples, generator=gen)


def test_known_units_are_told_apart():
    n = 4000
    tokens = randint(20, n, seed=1)
    previous, strength = tokens.roll(1), 0.5 + torch.rand(n, generator=generator(2))
    acts = torch.stack(
        [
            strength * (tokens == 7),
            strength * (previous == 3),
            strength * (tokens < 10),
            torch.where(tokens == 7, 2, strength) * (tokens < 10),  # one token at the top
            torch.relu(torch.randn(n, generator=generator(3))),
        ],
        dim=1,
    )
    frame = measure(acts, tokens, classes=tokens[:, None] < 10, n_examples=50)
    by_token, by_previous, by_class, mixed, random = (row for _, row in frame.iterrows())
    assert by_token.entropy_top == by_token.entropy_uniform == 0
    assert by_token.token_f1 == by_token.best_f1 == 1
    assert by_previous.previous_entropy_top == by_previous.previous_entropy_uniform == 0
    assert by_previous.previous_f1 == 1 and by_previous.token_f1 < 0.2
    assert by_class.class_f1 == 1 and by_class.entropy_top > 3
    assert mixed.entropy_top == 0 and mixed.entropy_uniform > 3
    assert random.best_f1 < random.chance_f1 + 0.05
    assert random.entropy_top > 3.5
    assert frame.density.tolist() == (acts > 0).double().mean(0).tolist()


@given(seed=SEEDS)
def test_measures_agree_with_their_parts(seed):
    tokens, previous = randint(5, 30, seed=seed), randint(6, 30, seed=seed + 1)
    classes = random_units(30, 3, seed=seed)
    acts = torch.relu(torch.randn(30, 4, generator=generator(seed)))
    frame = measure(acts, tokens, previous=previous, classes=classes, n_examples=30, seed=seed)
    active = acts > 0
    f1 = {
        "token_f1": best_token_f1(active, tokens, 5)[0],
        "previous_f1": best_token_f1(active, previous, 6)[0],
        "class_f1": best_class_f1(active, classes)[0],
    }
    for name, expected in f1.items():
        assert frame[name].tolist() == pytest.approx(expected.tolist())
    assert frame.best_f1.tolist() == frame[list(f1)].max(axis=1).tolist()
    shown = torch.where(active, tokens[:, None], -1)  # as many examples as there are
    for name in ("entropy_top", "entropy_uniform"):
        expected = token_entropy(shown, int(tokens.max()) + 1)
        assert frame[name].tolist() == pytest.approx(expected.tolist())


def test_the_top_examples_are_the_highest_activations():
    acts = torch.tensor([[1.0], [5.0], [0.0], [4.0], [2.0], [3.0]])
    tokens = torch.tensor([0, 9, 9, 9, 0, 9])
    frame = measure(acts, tokens, n_examples=3)
    assert frame.entropy_top.item() == 0
    assert measure(acts, tokens, n_examples=4).entropy_top.item() > 0


def test_ties_among_activations_are_broken_at_random():
    # A cluster: all its activations are 1. In order of the text its first 20 are one token.
    tokens = torch.tensor([0] * 200 + [1] * 200)
    frame = measure(torch.ones(400, 50), tokens, n_examples=20)
    assert frame.entropy_top.min() > 0.3
    ranks = frame.entropy_top.mean(), frame.entropy_uniform.mean()
    # Examples split 10 to 10 on average, with a deviation of √5: little less than 1 bit.
    assert ranks == (pytest.approx(0.97, abs=0.04), pytest.approx(0.97, abs=0.04))


def test_chance_f1_is_that_of_the_most_frequent_detector():
    tokens = torch.tensor([0, 0, 0, 1])
    acts = torch.tensor([[1.0], [0.0], [0.0], [1.0]])  # density 1/2
    frame = measure(acts, tokens, previous=torch.arange(4), classes=tokens[:, None] == 1)
    assert frame.chance_f1.item() == pytest.approx(2 * 0.5 * 0.75 / 1.25)


def test_a_unit_that_never_fires_is_nan_save_for_its_density():
    frame = measure(torch.tensor([[0.0, 1.0], [-2.0, 0.0]]), torch.tensor([0, 1]))
    assert frame.density.tolist() == [0, 0.5]
    assert frame.iloc[0].drop("density").isna().all()
    assert frame.iloc[1].notna().all()
    assert list(frame.index) == [0, 1]


def test_the_same_generator_draws_the_same_examples():
    acts, tokens = torch.rand(300, 5, generator=generator()), randint(9, 300)
    one, same, other = (measure(acts, tokens, n_examples=20, seed=s) for s in (1, 1, 2))
    assert one.equals(same)
    assert (one.entropy_uniform != other.entropy_uniform).any()
    assert one.entropy_top.equals(other.entropy_top)  # no ties to break


# Errors


def test_arguments_out_of_range_are_named():
    tokens, active = torch.tensor([0, 1, 4]), random_units(3, 2)
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 3\], got 4"):
        best_token_f1(active, tokens, 4)
    with pytest.raises(ValueError, match=r"tokens must be in \[-1, 3\], got -2"):
        token_entropy(tokens[:, None] - 2, 4)
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        token_entropy(tokens[:, None], 0)
    with pytest.raises(ValueError, match="n_examples must be at least 1, got 0"):
        measure(active.float(), tokens, n_examples=0)
    with pytest.raises(ValueError, match=r"previous must be in \[0, inf\], got -1"):
        measure(active.float(), tokens, previous=tokens - 1)
    with pytest.raises(ValueError, match="acts must be finite, got nan"):
        measure(active / 0 * 0, tokens)
    with pytest.raises(ValueError, match="strings must have at least one token"):
        token_classes([])


@pytest.mark.usefixtures("unchecked")
def test_shapes_and_types_that_do_not_fit_are_named():
    tokens, active = torch.tensor([0, 1, 4]), random_units(3, 2)
    with pytest.raises(TypeError, match="active must be Boolean, got dtype torch.float32"):
        best_token_f1(active.float(), tokens, 5)
    with pytest.raises(TypeError, match="tokens must hold integers, got dtype torch.float32"):
        best_token_f1(active, tokens.float(), 5)
    with pytest.raises(ValueError, match=r"tokens must have shape \(3\), got \(2,\)"):
        best_token_f1(active, tokens[:2], 5)
    with pytest.raises(ValueError, match=r"active must have shape .*, got \(0, 2\)"):
        best_token_f1(active[:0], tokens[:0], 5)
    with pytest.raises(ValueError, match=r"classes must have shape \(3, n_classes\), got \(2, 2\)"):
        best_class_f1(active, active[:2])
    with pytest.raises(ValueError, match=r"acts must have shape \(n_tokens, n_units\), got \(3,\)"):
        measure(active.float()[:, 0], tokens)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        measure_units(active.float(), tokens, tokens, active, n_examples=1, generator=None)
