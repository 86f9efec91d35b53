"""Say beside each number in prose over which range it fell in the replications.

A number in prose is glued from the computation. Where the chapter's live replications found other
values for it, the number can be pointed at and takes the keyboard's focus, and then tells its
range, in the format of the text. What a replication is, the Claims page says.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue.roles import PasteTextRole

from bookkit.replications import Record
from bookkit.sphinx.claims_store import told


class Glued(nodes.inline):
    """A glued number: attributes `page`, `key` and `fmt`."""


class GlueText(PasteTextRole):
    """The role `glue:text`, which leaves a note of the number's name."""

    def run(self):
        content, messages = super().run()
        name, colon, fmt = self.text.rpartition(":")
        page, _, key = (name if colon else self.text).rpartition("::")
        env = self.document.settings.env
        docname = env.path2doc(env.relfn2path(page, env.docname)[1]) if page else env.docname
        glued = Glued("", "", *content, page=docname, key=key, fmt=fmt if colon else "s")
        return ([glued] if content else []), messages


def range_of(record: Record | None, fmt: str) -> str:
    """The range of a number as a sentence, in the format of the text; empty where it is none."""
    if record is None or not record.ranges:
        return ""
    ends = [format_plain_text(str(end), fmt) for end in record.ranges[0]]
    if fmt == "s" or ends[0] == ends[1]:
        return ""
    return f"{ends[0]} to {ends[1]} in {len(record.environments)} replications"


def _add_ranges(app, doctree, docname):
    for node in doctree.findall(Glued):
        told_of_page = told(app.env, node["page"])
        node["range"] = range_of(told_of_page.get(f"glue/{node['key']}"), node["fmt"])


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
    app.connect("doctree-resolved", _add_ranges)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
