"""One version everywhere."""

import re
from pathlib import Path

import yaml
from setuptools.config.pyprojecttoml import apply_configuration
from setuptools.dist import Distribution

import saebook

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_the_citation_and_the_changelog_have_one_version(monkeypatch):
    monkeypatch.chdir(ROOT)
    package = apply_configuration(Distribution(), ROOT / "pyproject.toml").get_version()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert package == citation == saebook.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.M)
    announced = re.search(r"^To be (\d+\.\d+\.\d+)", changelog, re.M)
    assert headings[0] == "Unreleased"
    assert saebook.__version__ == (announced[1] if announced else headings[1])
