import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nltk.lm import KneserNeyInterpolated

from ngrams import NGrams, fit_ngrams

SEEDS = st.integers(0, 10_000)
DISCOUNTS = st.sampled_from([0.1, 0.5, 0.75, 1.0])


def sample_rows(n_contexts=6, n_ctx=8, vocab_size=5, *, seed=0):
    """Rows that start with token 0, of which small numbers are frequent."""
    rng = np.random.default_rng(seed)
    rows = np.floor(vocab_size * rng.random((n_contexts, n_ctx)) ** 2).astype(np.int64)
    rows[:, 0] = 0
    return rows


def after(context, vocab_size):
    """One row a token of the vocabulary, in which it follows the context."""
    return np.array([[*context, w] for w in range(vocab_size)])


def probabilities_after(ngrams: NGrams, context):
    return np.exp(ngrams.log_probabilities(after(context, ngrams.vocab_size))[:, -1])


# Values


def test_bigrams_worked_by_hand():
    # The separator is 0; bigrams are 01 twice, and 02, 11, 12 and 22 once.
    tokens = np.array([[0, 1, 1], [0, 1, 2], [0, 2, 2]])
    ngrams = fit_ngrams(tokens, vocab_size=3, n=2, discount=0.5)
    # Distinct tokens before 1: {0, 1}; before 2: {0, 1, 2}; before 0: none. Add one to each.
    p0, p1, p2 = 1 / 8, 3 / 8, 4 / 8
    np.testing.assert_allclose(ngrams.unigram, [p0, p1, p2])
    after_0 = [0.5 * 2 / 3 * p0, 1.5 / 3 + 0.5 * 2 / 3 * p1, 0.5 / 3 + 0.5 * 2 / 3 * p2]
    after_2 = [0.5 * p0, 0.5 * p1, 0.5 + 0.5 * p2]
    np.testing.assert_allclose(probabilities_after(ngrams, [0]), after_0)
    np.testing.assert_allclose(probabilities_after(ngrams, [2]), after_2)
    expected = -(math.log(after_0[2]) + math.log(after_2[0])) / 2
    assert ngrams.cross_entropy(np.array([[0, 2, 0]])) == pytest.approx(expected)


def test_a_repeated_start_counts_each_time_and_a_repeated_middle_once():
    # Order 2 under trigrams: 01 starts three rows; 12 follows only 0, so it counts once.
    tokens = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 3]])
    bigrams = fit_ngrams(tokens, vocab_size=4, n=3, discount=0.5).tables[0]
    assert bigrams.keys.tolist() == [0b0001, 0b0110, 0b0111]
    assert bigrams.counts.tolist() == [3, 1, 1]


def test_unigrams_are_add_one_and_leave_the_separators_out():
    tokens = np.array([[0, 1, 1, 2], [0, 1, 3, 1]])
    ngrams = fit_ngrams(tokens, vocab_size=5, n=1)
    np.testing.assert_allclose(ngrams.unigram, np.array([1, 5, 2, 2, 1]) / 11)
    expected = -(math.log(5 / 11) + math.log(1 / 11)) / 2
    assert ngrams.cross_entropy(np.array([[3, 1, 4]])) == pytest.approx(expected)
    assert ngrams.n == 1


@given(n=st.integers(2, 5), seed=SEEDS)
def test_the_discounts_are_the_share_of_counts_of_one(n, seed):
    ngrams = fit_ngrams(sample_rows(vocab_size=12, seed=seed), vocab_size=12, n=n)
    for table, discount in zip(ngrams.tables, ngrams.discounts, strict=True):
        ones, twos = sum(table.counts == 1), sum(table.counts == 2)
        assert discount == pytest.approx(ones / (ones + 2 * twos))


def naive_probability(rows, n, vocab_size, discount, context, word):
    """The formula of the docstring, by scanning the rows."""
    context = tuple(context)[max(0, len(context) - (n - 1)) :]

    def occurrences(gram):
        spots = [(r, i) for r in range(len(rows)) for i in range(rows.shape[1] - len(gram) + 1)]
        return [(r, i) for r, i in spots if tuple(rows[r, i : i + len(gram)]) == gram]

    def a(gram):
        found = occurrences(gram)
        if len(gram) == 1:
            found = [(r, i) for r, i in found if i > 0]
        if len(gram) == n:
            return len(found)
        before = {rows[r, i - 1] for r, i in found if i > 0}
        return len(before) + sum(i == 0 for _, i in found)

    def p(context):
        if not context:
            return (a((word,)) + 1) / (sum(a((w,)) for w in range(vocab_size)) + vocab_size)
        counts = [a((*context, w)) for w in range(vocab_size)]
        if sum(counts) == 0:
            return p(context[1:])
        spread = discount * sum(c > 0 for c in counts) * p(context[1:])
        return (max(counts[word] - discount, 0) + spread) / sum(counts)

    return p(context)


@given(n=st.integers(1, 4), discount=DISCOUNTS, seed=SEEDS)
def test_log_probabilities_agree_with_a_naive_loop(n, discount, seed):
    rows = sample_rows(3, 5, 4, seed=seed)
    ngrams = fit_ngrams(rows, vocab_size=4, n=n, discount=discount)
    asked = sample_rows(2, 5, 4, seed=seed + 1)
    expected = [
        [naive_probability(rows, n, 4, discount, row[:i], row[i]) for i in range(1, 5)]
        for row in asked
    ]
    np.testing.assert_allclose(np.exp(ngrams.log_probabilities(asked)), expected)


# nltk


def nltk_model(rows, n, vocab_size, discount):
    """nltk's model of the same counts.

    Three conventions differ. nltk knows no start of a row, where nothing precedes an n-gram: a
    token before it that no other row has makes each such occurrence count. nltk counts the token
    of index 0 as predicted: n-grams that end there are left out. Its unigram gives unseen tokens
    no probability: here it adds one.
    """
    marked = [[f"row {r}", *map(str, row)] for r, row in enumerate(rows)]
    grams = [
        tuple(row[end - k + 1 : end + 1])
        for row in marked
        for end in range(2, len(row))
        for k in range(1, min(n, end + 1) + 1)
    ]
    model = KneserNeyInterpolated(n, discount=discount)
    markers = [row[0] for row in marked]  # else nltk takes them all for one unknown token
    model.fit([grams], vocabulary_text=[*map(str, range(vocab_size)), *markers])

    def add_one(word):
        count, total = model.estimator._continuation_counts(word)
        return (count + 1) / (total + vocab_size)

    model.estimator.unigram_score = add_one
    return model


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("discount", [0.1, 0.75])
def test_probabilities_agree_with_nltk_for_every_context(n, discount):
    rows = sample_rows(8, 7, 4, seed=n)
    ngrams = fit_ngrams(rows, vocab_size=4, n=n, discount=discount)
    model = nltk_model(rows, n, 4, discount)
    for context in product(range(4), repeat=n - 1):
        expected = [model.unmasked_score(str(w), tuple(map(str, context))) for w in range(4)]
        np.testing.assert_allclose(probabilities_after(ngrams, context), expected)


def test_short_contexts_at_the_start_of_a_row_agree_with_nltk():
    rows = sample_rows(8, 7, 4)
    ngrams = fit_ngrams(rows, vocab_size=4, n=4, discount=0.5)
    model = nltk_model(rows, 4, 4, 0.5)
    found = np.exp(ngrams.log_probabilities(rows))
    for row, p in zip(rows.astype(str).tolist(), found, strict=True):
        expected = [model.unmasked_score(row[i], tuple(row[:i])) for i in range(1, 7)]
        np.testing.assert_allclose(p, expected)


def test_plain_nltk_does_not_sum_to_one_where_an_ngram_only_starts_rows():
    model = KneserNeyInterpolated(3, discount=0.5)
    rows = ["01202", "01102"]  # 01 only at the start: nothing ever precedes it
    grams = [
        tuple(row[i : i + k]) for row in rows for k in (1, 2, 3) for i in range(len(row) - k + 1)
    ]
    model.fit([grams], vocabulary_text="012")
    assert sum(model.unmasked_score(w, ("0",)) for w in "012") > 1.1
    tokens = np.array([list(map(int, row)) for row in rows])
    ngrams = fit_ngrams(tokens, vocab_size=3, n=3, discount=0.5)
    assert probabilities_after(ngrams, [0]).sum() == pytest.approx(1)


# Properties


@given(
    n=st.integers(1, 5),
    discount=DISCOUNTS,
    vocab_size=st.integers(2, 9),
    context=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    seed=SEEDS,
)
def test_the_probabilities_of_the_vocabulary_sum_to_one(n, discount, vocab_size, context, seed):
    rows = sample_rows(vocab_size=vocab_size, seed=seed)
    ngrams = fit_ngrams(rows, vocab_size=vocab_size, n=n, discount=discount)
    p = probabilities_after(ngrams, [min(token, vocab_size - 1) for token in context])
    assert p.min() > 0
    assert p.sum() == pytest.approx(1)


def test_an_unseen_context_gives_way_to_its_shorter_end():
    rows = np.array([[0, 1, 2, 3, 1, 2], [0, 1, 2, 1, 3, 3]])
    ngrams = fit_ngrams(rows, vocab_size=5, n=3, discount=0.5)
    unseen, shorter = (probabilities_after(ngrams, context) for context in ([4, 1], [1]))
    np.testing.assert_array_equal(unseen, shorter)
    np.testing.assert_allclose(probabilities_after(ngrams, [1, 4]), ngrams.unigram)
    assert (probabilities_after(ngrams, [2, 1]) != probabilities_after(ngrams, [1])).any()


def test_tokens_further_back_than_the_order_do_not_matter():
    ngrams = fit_ngrams(sample_rows(), vocab_size=5, n=3)
    far, farther = (probabilities_after(ngrams, [*head, 1, 2]) for head in ([3], [0, 4, 4]))
    assert (far == farther).all()


def test_no_ngram_crosses_rows():
    apart = np.array([[0, 1, 1, 2], [0, 3, 3, 1]])
    both_orders = [fit_ngrams(rows, vocab_size=4, n=3) for rows in (apart, apart[::-1])]
    for one, other in zip(both_orders[0].tables, both_orders[1].tables, strict=True):
        assert one.keys.tolist() == other.keys.tolist()
        assert one.counts.tolist() == other.counts.tolist()
    assert 0b1000 not in both_orders[0].tables[0].keys  # 2 then 0


def test_longer_contexts_help_where_the_source_has_a_memory():
    # A token repeats the one three before it with probability 0.9.
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 8, (400, 40))
    for i in range(3, 40):
        keep = rng.random(400) < 0.9
        rows[keep, i] = rows[keep, i - 3]
    rows[:, 0] = 0
    train, test = rows[:300], rows[300:]
    nats = [
        fit_ngrams(train, vocab_size=8, n=n, discount=0.75).cross_entropy(test)
        for n in (1, 2, 3, 4)
    ]
    assert nats[0] == pytest.approx(math.log(8), abs=0.02)
    assert nats[3] < nats[2] - 0.5


def test_the_cross_entropy_of_a_known_source_is_its_entropy():
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.25, 0.125, 0.125])
    rows = rng.choice(4, size=(2000, 20), p=p)
    entropy = -(p * np.log(p)).sum()
    deviation = math.sqrt((p * np.log(p) ** 2).sum() - entropy**2)
    ngrams = fit_ngrams(rows, vocab_size=4, n=2, discount=0.75)
    found = ngrams.cross_entropy(rng.choice(4, size=(2000, 20), p=p))
    assert found == pytest.approx(entropy, abs=4 * deviation / math.sqrt(38_000))


def test_tensors_and_arrays_of_any_integer_type_count_the_same():
    rows = sample_rows()
    found = {
        fit_ngrams(tokens, vocab_size=5, n=3).cross_entropy(tokens)
        for tokens in (rows, rows.astype(np.uint16), torch.from_numpy(rows).int())
    }
    assert len(found) == 1


def test_keys_may_fill_all_bits_of_an_integer():
    rows = sample_rows(4, 8, 5)
    wide = np.where(rows == 4, 511, rows)  # 9 bits a token, 63 for seven
    narrow = fit_ngrams(rows, vocab_size=512, n=7, discount=0.5).cross_entropy(rows)
    assert fit_ngrams(wide, vocab_size=512, n=7, discount=0.5).cross_entropy(wide) == narrow


# Errors


def test_bad_arguments_are_named():
    rows = sample_rows()
    for message, changes in {
        "vocab_size must be at least 2, got 1": {"vocab_size": 1},
        r"tokens must be in \[0, 2\], got 0 … 4": {"vocab_size": 3},
        "n must be at least 1, got 0": {"n": 0},
        "n must be at most n_ctx of tokens, 8, got 9": {"n": 9},
        "n must be at most 5 for 4096 tokens, got 6": {"n": 6, "vocab_size": 4096},
        r"discount must be in \(0, 1\], got 0.0": {"discount": 0.0},
        r"discount must be in \(0, 1\], got 1.5": {"discount": 1.5},
    }.items():
        with pytest.raises(ValueError, match=message):
            fit_ngrams(rows, **{"vocab_size": 5, "n": 3, **changes})


def test_a_discount_that_cannot_be_estimated_must_be_given():
    twice = np.array([[0, 1, 2]] * 2)
    with pytest.raises(ValueError, match="discount must be given if no 2-gram has a count of 1"):
        fit_ngrams(twice, vocab_size=3, n=2)
    assert fit_ngrams(twice, vocab_size=3, n=2, discount=0.5).discounts == (0.5,)


@pytest.mark.usefixtures("unchecked")
def test_tokens_of_another_kind_are_refused():
    ngrams = fit_ngrams(sample_rows(), vocab_size=5, n=3)
    with pytest.raises(TypeError, match="tokens must be ndarray or Tensor"):
        ngrams.cross_entropy([[0, 1]])
    with pytest.raises(TypeError, match="tokens must hold integers, got dtype float64"):
        ngrams.cross_entropy(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"tokens must have shape .*, got \(3,\)"):
        ngrams.cross_entropy(np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"n_ctx of at least 2, got \(3, 1\)"):
        ngrams.cross_entropy(np.zeros((3, 1), dtype=int))
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 4\], got -1 … 2"):
        ngrams.cross_entropy(np.array([[0, -1, 2]]))
