"""Docstrings as the reference reads them."""

from bookkit.sphinx.library_reference import plain


def test_markup_characters_of_docstrings_mean_themselves_outside_of_code():
    assert plain("|cos(W)| of `a*b|c` is (*saes), x_ too") == (
        r"\|cos(W)\| of `a*b|c` is (\*saes), x\_ too"
    )
    assert plain("with *one* word, not **two**, nor x * y") == (
        r"with *one* word, not \*\*two\*\*, nor x \* y"
    )
