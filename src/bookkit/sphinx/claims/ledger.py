"""Collect the claims that chapters check, and print them as a ledger.

`bookkit.claims.check` leaves a JSON output beside each cell's HTML. This extension renders that
output as a paragraph with an anchor, records it per page, and fills every `claims-ledger`
directive once all pages have been read. Records live in Sphinx's environment, so the ledger is
whole when chapters come from the cache or only one has changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import myst_nb.core.render as myst_nb_render
from docutils import nodes
from sphinx import addnodes
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from bookkit.claims import format_value
from bookkit.replications import FOLDER, PROMISED
from bookkit.sphinx.claims.store import in_order, store, told
from bookkit.sphinx.claims.tables import lines, row, table
from bookkit.sphinx.figure_files import DATA

MIME = "application/vnd.bookkit.claim+json"
HEADERS = ("Claim", "Found", "Replications", "Verdict")
CITATION_KEY = re.compile(r"[a-z]+[a-z0-9]*")
FALSE_HERE = (
    "This page was computed here, and what it found here contradicts some of its statements. The "
    "text around them may not fit either."
)
LOGGER = logging.getLogger(__name__)


class ClaimNode(nodes.container):
    """A claim in a chapter: attribute `claim` holds its record."""


class LedgerNode(nodes.General, nodes.Element):
    """Placeholder that becomes the ledger's tables."""


class ClaimRenderer:
    """A myst-nb renderer for the claims' media type."""

    mime_priority_overrides = (("*", MIME, 1),)

    @staticmethod
    def handle_mime(renderer, data, inline):
        if data.mime_type != MIME:
            return None
        claim = data.content
        kinds = ["claim"] if claim["holds"] else ["claim", "claim-false"]
        node = ClaimNode(classes=kinds, ids=[claim["anchor"]], claim=claim)
        docname = renderer.renderer.sphinx_env.docname
        verdict = nodes.inline("", claim["verdict"], classes=["claim-verdict"])
        paragraph = nodes.paragraph("", "", verdict, nodes.Text(f" {claim['statement']}"))
        if claim["value"] != "–":
            paragraph += [
                nodes.Text(" "),
                nodes.inline("", claim["value"], classes=["claim-value"]),
            ]
        paragraph += _published(claim, docname)
        node += paragraph
        return [node]


def _published(claim: dict, docname: str) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    if claim["published"] != "–":
        parts += [nodes.Text(f"published {claim['published']}")]
    if claim["source"]:
        parts += [nodes.Text(", ")] if parts else []
        parts += [source_node(claim["source"], docname)]
    return [nodes.Text(" ("), *parts, nodes.Text(")")] if parts else []


def counted(claims: list[dict]) -> str:
    """How many claims the book checks, how many beside a published value, and whether all hold."""
    number = "1 claim" if len(claims) == 1 else f"{len(claims)} claims"
    published = sum(claim["published"] != "–" for claim in claims)
    verdict = "Every one holds here."
    if false := sum(not claim["holds"] for claim in claims):
        verdict = f"Here {false} of them {'does' if false == 1 else 'do'} not hold."
    return f"The book checks {number}, {published} of them beside a published value. {verdict}"


def how_often(record) -> list[str]:
    """In how many live replications a claim held, and the range of each of its numbers."""
    if record is None or not record.held:
        return ["none yet"]
    ranges = (f"{format_value(low)} to {format_value(high)}" for low, high in record.ranges)
    return [f"held in {sum(record.held)} of {len(record.held)}", *ranges]


def replicated(found: list) -> str:
    """How many of the claims have their replications, and how many held in all of them."""
    claims = [record for record in found if record.is_claim]
    enough = [record for record in claims if len(record.held) >= PROMISED]
    if not any(record.held for record in claims):
        return "None of the claims has live replications yet."
    fell = sum(not all(record.held) for record in claims)
    environments = len({name for record in claims for name in record.environments})
    return (
        f"{len(enough)} of {len(claims)} claims have {PROMISED} or more live replications, in "
        f"{environments} numerical environments; {fell or 'none'} fell in any."
    )


def source_node(source: str, docname: str) -> nodes.Node:
    """A reference to the bibliography when `source` looks like a citation key, else its text."""
    if not CITATION_KEY.fullmatch(source):
        return nodes.Text(source)
    xref = addnodes.pending_xref(
        "", refdomain="cite", reftype="t", reftarget=source, refdoc=docname, refwarn=True
    )
    xref += nodes.inline("", source)
    return xref


class ClaimsLedger(SphinxDirective):
    """The `claims-ledger` directive: all claims of the book, chapter by chapter."""

    def run(self):
        store(self.env)["pages"].add(self.env.docname)
        return [LedgerNode()]


def _mark_page(app, doctree) -> None:
    """Say at the top of a page which of its statements do not hold here, with links to them."""
    false = [n["claim"] for n in doctree.findall(ClaimNode) if not n["claim"]["holds"]]
    title = next(iter(doctree.findall(nodes.title)), None)
    if false and title is not None:
        box = nodes.warning(classes=["claims-false"])
        box += nodes.paragraph("", FALSE_HERE)
        links = [nodes.reference("", c["statement"], refid=c["anchor"]) for c in false]
        items = [nodes.list_item("", nodes.paragraph("", "", link)) for link in links]
        box += nodes.bullet_list("", *items)
        title.parent.insert(title.parent.index(title) + 1, box)


class ClaimsCollector(EnvironmentCollector):
    """Keep the records in step with the pages: read, purged, or read in another process."""

    def clear_doc(self, app, env, docname):
        store(env)["claims"].pop(docname, None)
        store(env)["pages"].discard(docname)

    def process_doc(self, app, doctree):
        docname = app.env.docname
        claims = [node["claim"] for node in doctree.findall(ClaimNode)]
        labels = app.env.get_domain("std")
        for claim in claims:
            labels.note_hyperlink_target(
                claim["anchor"], docname, claim["anchor"], claim["statement"]
            )
        if claims:
            store(app.env)["claims"][docname] = claims

    def merge_other(self, app, env, docnames, other):
        theirs = store(other)
        store(env)["claims"].update(
            {name: theirs["claims"][name] for name in docnames if name in theirs["claims"]}
        )
        store(env)["pages"].update(theirs["pages"] & set(docnames))


def _update_ledgers(app, env):
    """Warn of ids used twice; print the ledger again when a claim has changed."""
    seen: dict[str, str] = {}
    for docname, claims in in_order(env):
        for claim in claims:
            if claim["id"] in seen:
                LOGGER.warning(
                    "claim id %r is used in %s and %s",
                    claim["id"],
                    seen[claim["id"]],
                    docname,
                    location=docname,
                )
            seen[claim["id"]] = docname
    state = hashlib.sha256(json.dumps(in_order(env), sort_keys=True).encode()).hexdigest()
    changed = state != store(env)["printed"]
    store(env)["printed"] = state
    return sorted(store(env)["pages"]) if changed else []


class PrintLedger(SphinxPostTransform):
    """Replace each placeholder by the tables; before references are resolved (priority 10)."""

    default_priority = 5

    def run(self, **kwargs):
        for node in list(self.document.findall(LedgerNode)):
            node.replace_self(self._ledger())

    def _ledger(self) -> list[nodes.Node]:
        chapters = in_order(self.env)
        intro = counted([claim for _, claims in chapters for claim in claims])
        out: list[nodes.Node] = [nodes.paragraph("", intro)]
        found = [told(self.env, docname) for docname, _ in chapters]
        out += [nodes.paragraph("", replicated([r for each in found for r in each.values()]))]
        for docname, claims in chapters:
            out += [self._heading(docname), self._table(docname, claims)]
            if table_of(self.app, docname).is_file():
                out += [self._link_to_table(docname)]
        return out

    def _heading(self, docname: str) -> nodes.rubric:
        title = self.env.titles[docname].astext()
        link = make_refnode(self.app.builder, self.env.docname, docname, "", nodes.Text(title))
        return nodes.rubric("", "", link, **{"heading-level": 3, "level": 3})

    def _link_to_table(self, docname: str) -> nodes.paragraph:
        """A link to the published copy of a chapter's table of replications."""
        up = "../" * self.env.docname.count("/")
        address = f"{up}{DATA}/replications-{Path(docname).name}.csv"
        text = f"All replications of {self.env.titles[docname].astext()} (CSV)"
        return nodes.paragraph("", "", nodes.reference("", text, refuri=address))

    def _table(self, docname: str, claims: list[dict]) -> nodes.table:
        found = told(self.env, docname)
        rows = [self._row(docname, claim, found.get(f"claim/{claim['id']}")) for claim in claims]
        return table(HEADERS, rows, kinds=["ledger"])

    def _row(self, docname: str, claim: dict, record) -> nodes.row:
        statement = make_refnode(
            self.app.builder,
            self.env.docname,
            docname,
            claim["anchor"],
            nodes.Text(claim["statement"]),
        )
        statement = nodes.paragraph("", "", statement, *_published(claim, self.env.docname))
        cells = (
            [statement],
            lines(claim["numbers"]),
            lines(how_often(record)),
            lines(["✓ holds" if claim["holds"] else "✗ does not hold here"]),
        )
        return row(cells, kinds=[] if claim["holds"] else ["claim-false"])


def _write_data(app, exception):
    """Leave the ledger and the tables of replications beside the pages for machines to read."""
    if exception is not None or app.builder.format != "html":
        return
    ledger = []
    for docname, claims in in_order(app.env):
        found, table = told(app.env, docname), table_of(app, docname)
        for claim in claims:
            held = found[f"claim/{claim['id']}"].held
            counts = {"replications": len(held), "held": sum(held)}
            ledger += [{"page": docname, **claim, **counts}]
        if table.is_file():
            copy = Path(app.outdir, DATA, f"replications-{table.name}")
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(table.read_bytes())
    text = json.dumps(ledger, indent=1, ensure_ascii=False)
    Path(app.outdir, "claims.json").write_text(text, encoding="utf-8")


def table_of(app, docname: str) -> Path:
    """The file with a chapter's replications."""
    return Path(app.srcdir, FOLDER, f"{Path(docname).name}.csv")


def _register_renderer() -> None:
    """Add the renderer for this build; by itself myst-nb finds those of installed packages only."""
    installed = myst_nb_render.load_mime_renders
    if ClaimRenderer not in installed():
        myst_nb_render.load_mime_renders = lambda: [*installed(), ClaimRenderer]


def setup(app):
    _register_renderer()
    app.add_node(
        ClaimNode,
        html=(lambda self, n: self.visit_container(n), lambda self, n: self.depart_container(n)),
    )
    app.add_node(LedgerNode)
    app.add_directive("claims-ledger", ClaimsLedger)
    app.add_env_collector(ClaimsCollector)
    app.add_post_transform(PrintLedger)
    app.connect("doctree-read", _mark_page)
    app.connect("env-updated", _update_ledgers)
    app.connect("build-finished", _write_data)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
