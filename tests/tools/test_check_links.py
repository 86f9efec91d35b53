"""What `make check-links` makes of the report of Sphinx's link checker."""

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def link(status, info="", uri="https://example.org/a"):
    return {"uri": uri, "status": status, "info": info, "filename": "book/a.md", "lineno": 3}


WORKING = link("working")
MISSING = link("broken", "404 Client Error: Not Found")
UNREACHED = link("broken", "Failed to resolve the name")
SLOW = link("timeout", "Read timed out")
LOCAL = link("broken", "no such page", uri="intro.md")


@pytest.mark.parametrize(
    ("links", "status", "told"),
    [
        ([WORKING, link("redirected"), link("ignored")], 0, "3 links to other sites, 0 broken."),
        ([WORKING, MISSING], 1, "book/a.md:3: https://example.org/a\n    404 Client Error"),
        ([WORKING, SLOW], 1, "2 links to other sites, 1 broken."),
        ([MISSING], 1, "1 links to other sites, 1 broken."),
        ([UNREACHED, SLOW], 2, "none of the 2 links could be reached. Is there a network?"),
        ([UNREACHED, MISSING], 1, "2 links to other sites, 2 broken."),
        ([UNREACHED, link("ignored")], 2, "none of the 1 links could be reached."),
        ([WORKING, LOCAL], 0, "1 links to other sites, 0 broken."),
        ([LOCAL], 1, "no links were found"),
    ],
)
def test_the_verdict_tells_broken_links_from_a_missing_network(monkeypatch, links, status, told):
    monkeypatch.syspath_prepend(TOOLS)
    found, message = importlib.import_module("check_links").verdict(links)
    assert found == status
    assert told in message
