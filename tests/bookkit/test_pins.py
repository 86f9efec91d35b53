"""The pins behind code, on this environment's own packages."""

from __future__ import annotations

import ast

from bookkit.pins import imported, pinned

PINS = "ruff==1\nmyst-nb==1.4\nmatplotlib==3\ncontourpy==1  # why\nipykernel==7\nnumpy==2\n-e .\n"


def test_a_package_brings_what_it_requires():
    assert pinned(PINS, ["matplotlib"]) == "contourpy==1\nmatplotlib==3\nnumpy==2\n"
    assert pinned(PINS, ["Contourpy"]) == "contourpy==1\nnumpy==2\n"
    assert pinned(PINS, ["no_such_package"]) == ""


def test_what_is_left_out_brings_nothing():
    assert pinned(PINS, ["matplotlib"], without=["numpy"]) == "contourpy==1\nmatplotlib==3\n"
    assert pinned(PINS, ["matplotlib"], without=["matplotlib"]) == ""


def test_imports_name_the_distributions_that_hold_them():
    code = "import yaml, os\nfrom sklearn.cluster import KMeans\n\ndef f():\n    import PIL.Image\n"
    assert imported([ast.parse(code)]) == {"PyYAML", "scikit-learn", "pillow"}
    assert imported([ast.parse("from . import x\nfrom .y import z\n")]) == set()
