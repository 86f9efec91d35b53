import html
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bookkit import style
from saebook.language import Examples, highlighted, top_examples, uniform_examples

SEEDS = st.integers(0, 10_000)
ACTS = torch.tensor([[0.0, 3.0, 1.0], [0.0, 0.0, 0.0], [5.0, 0.0, 4.0], [0.0, -1.0, 2.0]])
TOKENS = torch.tensor([[0, 1, 2], [0, 1, 1], [1, 3, 2], [0, 0, 4]])
STRINGS = ["<s>", " cat", " & dog", "\n", '"x"']


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse_acts(n_contexts=6, n_ctx=5, *, seed=0):
    return torch.relu(torch.randn(n_contexts, n_ctx, generator=generator(seed)))


def places(examples):
    return list(zip(examples.rows.tolist(), examples.positions.tolist(), strict=True))


# Top examples


def test_top_examples_are_the_highest_of_each_context_in_order():
    examples = top_examples(ACTS, 2)
    assert places(examples) == [(2, 0), (0, 1)]  # not (2, 2), the second highest of all
    assert examples.activations.tolist() == [5, 3]


def test_top_examples_are_fewer_where_fewer_contexts_are_active():
    assert places(top_examples(ACTS, 4)) == [(2, 0), (0, 1), (3, 2)]


def test_of_equal_activations_the_first_is_taken():
    examples = top_examples(torch.ones(300, 4), 100)
    assert places(examples) == [(row, 0) for row in range(100)]


@given(n=st.integers(1, 6), seed=SEEDS)
def test_top_examples_agree_with_a_naive_loop(n, seed):
    acts = sparse_acts(seed=seed)
    best = sorted(((max(row), i) for i, row in enumerate(acts.tolist())), reverse=True)
    expected = [(i, acts[i].tolist().index(a)) for a, i in best[:n] if a > 0]
    assert places(top_examples(acts, n)) == expected


# Uniform examples


@given(n=st.integers(1, 30), seed=SEEDS)
def test_uniform_examples_are_active_and_repeat_a_context_only_if_they_must(n, seed):
    acts = sparse_acts(seed=seed)
    examples = uniform_examples(acts, n, generator=generator(seed))
    n_active, n_rows = int((acts > 0).sum()), int((acts > 0).any(1).sum())
    assert len(examples) == len(set(places(examples))) == min(n, n_active)
    assert len(set(examples.rows[:n_rows].tolist())) == min(n, n_rows)
    assert (examples.activations > 0).all()
    assert torch.equal(examples.activations, acts[examples.rows, examples.positions])


def test_the_first_uniform_example_is_a_uniform_draw_from_the_active_positions():
    n_draws, n_active = 3000, 5
    gen = generator()
    drawn = Counter(places(uniform_examples(ACTS, 2, generator=gen))[0] for _ in range(n_draws))
    assert len(drawn) == n_active
    deviation = (n_draws * 1 / n_active * (1 - 1 / n_active)) ** 0.5
    assert all(abs(count - n_draws / n_active) < 4 * deviation for count in drawn.values())


def test_the_second_uniform_example_is_drawn_from_the_other_contexts():
    # Contexts of 2, 2 and 1 active positions. The last comes second after either other (4/5 of the
    # time) with probability 1/3.
    acts = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    n_draws, p = 3000, 4 / 5 / 3
    gen = generator()
    draws = (places(uniform_examples(acts, 2, generator=gen))[1] for _ in range(n_draws))
    found = sum(place == (2, 0) for place in draws)
    assert abs(found - n_draws * p) < 4 * (n_draws * p * (1 - p)) ** 0.5


def test_uniform_examples_have_no_bias_to_the_top():
    acts = torch.rand(400, 1, generator=generator())
    mean = uniform_examples(acts, 200, generator=generator(1)).activations.mean().item()
    assert mean == pytest.approx(acts.mean().item(), abs=4 * acts.std().item() / 200**0.5)
    assert top_examples(acts, 200).activations.mean() > mean + 0.1


def test_the_same_generator_draws_the_same_examples():
    draws = [places(uniform_examples(sparse_acts(), 4, generator=generator(s))) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_examples_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        top_examples(ACTS, 1).rows = torch.tensor([0])


# Highlighted


class Outline(HTMLParser):
    """The elements in their order, with a check that each that opens also closes."""

    def __init__(self, source):
        super().__init__()
        self.open, self.seen, self.said = [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def show(**settings):
    return highlighted(top_examples(ACTS, 3), ACTS, TOKENS, STRINGS, **settings)


def test_plain_text_puts_the_token_in_brackets_and_says_where_the_text_is_cut():
    assert show(before=1, after=0, title="Latent 7").text().splitlines() == [
        "Latent 7",
        "5.00: [[ cat]]…",
        "3.00: <s>[[ cat]]…",
        '2.00: …<s>[["x"]]',
    ]


def test_html_is_a_captioned_list_that_reads_as_the_plain_text():
    shown = show()
    outline = Outline(shown.html())
    assert outline.seen[:4] == ["figure", "figcaption", "ul", "li"]
    assert outline.seen.count("li") == outline.seen.count("strong") == 3
    said = re.sub(r"\[\[|\]\]|\n", "", shown.text())
    assert "".join(outline.said) == said


def test_all_text_is_escaped_and_newlines_are_visible():
    shown = show(title="a < b")
    assert (
        "&amp; dog" in shown.html() and "&lt;s&gt;" in shown.html() and "a &lt; b" in shown.html()
    )
    assert "<s>" not in shown.html()
    assert "⏎" in shown.text()
    assert "\n" not in shown.html()


def test_a_background_grows_with_the_activation_over_the_latents_highest():
    source = show().html()
    shades = {"3.00": "0.3", "1.00": "0.1", "5.00": "0.5", "4.00": "0.4", "2.00": "0.2"}
    assert sorted(re.findall(r"rgba\(213,94,0,([\d.]+)\)", source)) == sorted(shades.values())
    assert "<strong" in source.split("0.5)")[0]
    assert "⏎<span" in source  # a silent token has no element of its own
    assert "color:" not in source  # text keeps the page's colour


def test_examples_of_one_latent_are_shaded_on_one_scale():
    low = Examples(
        rows=torch.tensor([3]), positions=torch.tensor([2]), activations=torch.tensor([2.0])
    )
    assert "213,94,0,0.2)" in highlighted(low, ACTS, TOKENS, STRINGS).html()


def test_a_function_may_name_the_tokens():
    by_call = highlighted(top_examples(ACTS, 3), ACTS, TOKENS, lambda token: STRINGS[token])
    assert by_call == show()


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(code):
    return [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]


@pytest.mark.parametrize(
    ("text", "page"),
    [
        (style.LIGHT.text, style.LIGHT.background),
        (style.DARK.text, style.DARK.background),
        ("#ced6dd", "#14181e"),  # the book's theme at night
        ("#cccccc", "#1f1f1f"),  # notebooks in VS Code at night
    ],
)
def test_text_on_the_strongest_background_can_be_read_in_light_and_dark(text, page):
    strongest = max(
        re.findall(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", show().html()), key=lambda s: s[3]
    )
    *color, opacity = map(float, strongest)
    over = [opacity * c / 255 + (1 - opacity) * p for c, p in zip(color, rgb(page), strict=True)]
    assert contrast(rgb(text), over) >= 4.5


def test_a_notebook_gets_html_and_plain_text():
    shown = show()
    assert shown._repr_mimebundle_() == {"text/html": shown.html(), "text/plain": shown.text()}


@given(texts=st.lists(st.text(max_size=4), min_size=5, max_size=5))
def test_any_token_text_survives(texts):
    source = highlighted(top_examples(ACTS, 3), ACTS, TOKENS, texts).html()
    shown = [text.translate(str.maketrans("\n\r\t", "⏎␍⇥")) for text in texts]
    assert all(html.escape(text) in source for text in shown)
    assert Outline(source).seen.count("li") == 3


# Errors


def test_a_latent_that_never_fires_has_no_examples():
    silent = -torch.ones(2, 3)
    for call in (
        lambda: top_examples(silent, 1),
        lambda: uniform_examples(silent, 1, generator=generator()),
        lambda: highlighted(top_examples(ACTS, 1), 0 * ACTS, TOKENS, STRINGS),
    ):
        with pytest.raises(ValueError, match="acts must be above 0 somewhere, got at most (0|-1)"):
            call()


def test_a_number_out_of_range_is_named():
    for n in (0, 5):
        with pytest.raises(ValueError, match=f"n must be .*, got {n}"):
            top_examples(ACTS, n)
    for n in (0, 13):
        with pytest.raises(ValueError, match=f"n must be .*, got {n}"):
            uniform_examples(ACTS, n, generator=generator())
    with pytest.raises(ValueError, match="before must be at least 0, got -1"):
        show(before=-1)
    with pytest.raises(ValueError, match="after must be at least 0, got -2"):
        show(after=-2)
    with pytest.raises(ValueError, match="title must not be empty, got ' '"):
        show(title=" ")


def test_examples_of_other_activations_are_refused():
    with pytest.raises(IndexError):
        highlighted(top_examples(ACTS, 3), ACTS[:2], TOKENS[:2], STRINGS)


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"acts must have shape \(n_contexts, n_ctx\), got \(3,\)"):
        top_examples(ACTS[0], 1)
    with pytest.raises(ValueError, match="acts must be finite, got nan"):
        top_examples(ACTS / 0, 1)
    with pytest.raises(
        ValueError, match=r"tokens must have the shape of acts, \(4, 3\), got \(3, 3\)"
    ):
        highlighted(top_examples(ACTS, 1), ACTS, TOKENS[1:], STRINGS)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator"):
        uniform_examples(ACTS, 1, generator=None)
