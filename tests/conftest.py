"""Shapes and types of the whole library are checked at run time in every test."""

import hypothesis
import jaxtyping
import pytest

jaxtyping.install_import_hook("saebook", "typechecks.typecheck")

hypothesis.settings.register_profile(
    "saebook", deadline=None, derandomize=True, max_examples=40, database=None
)
hypothesis.settings.load_profile("saebook")


@pytest.fixture
def unchecked(monkeypatch):
    """Run the library as its users do, without the run-time check of shapes and types.

    The library's own errors for wrong shapes and types are then what is seen.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
