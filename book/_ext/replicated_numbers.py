"""Say beside each number in prose over which range it fell in the replications.

A number in prose is glued from the computation. Where the chapter's live replications found other
values for it, the number can be pointed at and takes the keyboard's focus, and then tells its
range, in the format of the text. What a replication is, the Claims page says.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from myst_nb.core.variables import format_plain_text
from myst_nb.ext.glue.crossref import read_glue_cache
from myst_nb.ext.glue.roles import PasteTextRole
from replications import (
    FOLDER,
    OWN,
    Record,
    Run,
    code_digest,
    of_claim,
    of_glue,
    processor,
    read,
    records,
)


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


def told(env, docname: str) -> dict[str, Record]:
    """What the live replications say of a chapter's claims and glued numbers.

    Keys are "claim/<id>" and "glue/<name>". It is worked out once for each state of the build.
    """
    source, root = Path(env.doc2path(docname)), Path(env.app.srcdir)
    if not hasattr(env.app, "saebook_replications"):
        env.app.saebook_replications = {}
    kept = env.app.saebook_replications
    if docname not in kept:
        runs = read(root / FOLDER / f"{source.stem}.csv")
        code = code_digest(root, source)
        now = Run(
            shift=OWN,
            environment="machine",
            processor=processor(),
            code=code,
            seconds=0,
            values=_own_draw(env, docname),
        )
        kept[docname] = records(runs, now)
    return kept[docname]


def _own_draw(env, docname: str) -> dict[str, str]:
    """What the chapter found in this build."""
    found: dict[str, str] = {}
    for claim in getattr(env, "saebook_claims", {}).get("claims", {}).get(docname, ()):
        found |= of_claim(claim)
    for key, output in read_glue_cache(env.mystnb_config.output_folder, docname).items():
        found |= of_glue(key, output["data"].get("text/plain", ""))
    return found


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
