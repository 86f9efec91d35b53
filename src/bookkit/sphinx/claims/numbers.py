"""Numbers in prose: those of claims by the claim's id, and of all, how they moved in replications.

A number in prose comes from the computation: it is glued, or `` {found}`some-claim/2:.1f` `` takes
the second number of a claim, from whichever page. Where the chapter's live replications found other
values for it, the number can be pointed at and takes the keyboard's focus, and then tells its
range, in the format of the text. What a replication is, the Claims page says.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue.roles import PasteTextRole
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from bookkit.replications import Record
from bookkit.sphinx.claims.store import store, told

LOGGER = logging.getLogger(__name__)


class Glued(nodes.inline):
    """A number: attributes `page`, `key` (of its record), `number` (in that) and `fmt`."""


class FoundRole(SphinxRole):
    """The role `found`: a number of a claim, which is looked up when all pages are read."""

    def run(self):
        name, _, fmt = self.text.partition(":")
        claim, _, number = name.partition("/")
        node = Glued(self.rawtext, "", claim=claim, number=number or "1", fmt=fmt or "s")
        self.set_source_info(node)
        return [node], []


class GlueText(PasteTextRole):
    """The role `glue:text`, which leaves a note of the number's name."""

    def run(self):
        content, messages = super().run()
        name, colon, fmt = self.text.rpartition(":")
        page, _, key = (name if colon else self.text).rpartition("::")
        env = self.document.settings.env
        docname = env.path2doc(env.relfn2path(page, env.docname)[1]) if page else env.docname
        fmt = fmt if colon else "s"
        glued = Glued("", "", *content, page=docname, key=f"glue/{key}", number="1", fmt=fmt)
        return ([glued] if content else []), messages


def found_in(claims: dict[str, list[dict]], id: str, number: str) -> tuple[str, float]:
    """The page of a claim and one of its numbers, counted from 1.

    Raises:
        LookupError: there is no such claim, or it has no such number.
    """
    places = {
        claim["id"]: (page, claim["findings"])
        for page, several in claims.items()
        for claim in several
    }
    if id not in places:
        raise LookupError(f"no page checks the claim {id!r}")
    page, findings = places[id]
    if number not in map(str, range(1, len(findings) + 1)):
        raise LookupError(
            f"the claim {id!r} has {len(findings)} numbers, and none called {number!r}"
        )
    return page, findings[int(number) - 1]["value"]


def range_of(record: Record | None, fmt: str, number: int = 1) -> str:
    """The range of a number as a sentence, in the format of the text; empty where it is none."""
    if record is None or len(record.ranges) < number:
        return ""
    ends = [format_plain_text(str(end), fmt) for end in record.ranges[number - 1]]
    if fmt == "s" or ends[0] == ends[1]:
        return ""
    return f"{ends[0]} to {ends[1]} in {len(record.environments)} replications"


def _look_up(env, node):
    try:
        page, value = found_in(store(env)["claims"], node["claim"], node["number"])
        text = format_plain_text(str(value), node["fmt"])
    except (LookupError, ValueError) as error:
        LOGGER.warning("cannot show %s: %s", node.rawsource, error, location=node)
        return
    node["page"], node["key"] = page, f"claim/{node['claim']}"
    node += nodes.inline("", text, classes=["pasted-text"])


def _add_numbers_and_ranges(app, doctree, docname):
    for node in doctree.findall(Glued):
        if "claim" in node:
            _look_up(app.env, node)
        if "page" in node:
            record = told(app.env, node["page"]).get(node["key"])
            node["range"] = range_of(record, node["fmt"], int(node["number"]))


def _visit(self, node):
    if node.get("range"):
        hint = {"title": node["range"], "tabindex": "0"}
        self.body.append(self.starttag(node, "span", "", CLASS="replicated", **hint))


def _depart(self, node):
    if node.get("range"):
        self.body.append("</span>")


def _skip(self, node):
    pass


def setup(app):
    app.add_node(Glued, html=(_visit, _depart), text=(_skip, _skip))
    app.add_role_to_domain("glue", "text", GlueText(), override=True)
    app.add_role("found", FoundRole())
    app.connect("doctree-resolved", _add_numbers_and_ranges)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
