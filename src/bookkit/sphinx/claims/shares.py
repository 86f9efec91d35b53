"""What a chapter counted, added up over its replications: a directive for tables, a role for text.

A chapter that tries a method on cases drawn at random counts them and glues the counts; each of its
replications draws other cases. The counts of the live replications are added up and shown as
shares with their intervals. The chapter's own draw is left out: its cases have been seen.

In text `` {replicated-share}`found-all/20` `` is the share that the glued count `found-all` has of
20 cases a replication. As a table,

    ```{replicated-shares} tried
    :groups: cases
    :of: cases
    :columns: right, wrong

    All = all
    With noise = noisy
    ```

shows, for the glued counts `tried-all-cases`, `tried-all-right`, `tried-all-wrong` and so on, one
row a group and one column a count. Column heads are the counts' names with spaces for underscores;
`groups` is the head of the first.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bookkit._findings import at_least
from bookkit.replications import FOLDER, Record
from bookkit.sphinx.claims.store import told
from bookkit.sphinx.claims.tables import lines, row, table

NONE_YET = "The present code of this chapter has no replications yet."


class SharesNode(nodes.General, nodes.Element):
    """Placeholder: attributes `prefix`, `of`, `columns`, `head` and `groups`, words and names."""


class ReplicatedShares(SphinxDirective):
    """The directive; see the module."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "groups": directives.unchanged_required,
        "of": directives.unchanged_required,
        "columns": directives.unchanged_required,
    }

    def run(self):
        if missing := sorted(self.option_spec.keys() - self.options.keys()):
            raise self.error(f"replicated-shares needs the option {', '.join(missing)}")
        pairs = [line.rpartition("=") for line in self.content if line.strip()]
        if not pairs or not all(words.strip() and name.strip() for words, _, name in pairs):
            raise self.error("replicated-shares must hold lines of the form 'words = group'")
        self.env.note_dependency(f"{FOLDER}/{self.env.docname.rpartition('/')[2]}.csv")
        return [
            SharesNode(
                prefix=self.arguments[0],
                head=self.options["groups"].strip(),
                of=self.options["of"].strip(),
                columns=[name.strip() for name in self.options["columns"].split(",")],
                groups=[(words.strip(), name.strip()) for words, _, name in pairs],
            )
        ]


class ShareNode(nodes.Inline, nodes.Element):
    """Placeholder in text: attributes `count`, a glued one, and `n`, the cases a replication."""


class ReplicatedShare(SphinxRole):
    """The role; see the module."""

    def run(self):
        count, _, n = self.text.partition("/")
        if not n.isdigit():
            told = f"replicated-share must name a count and its cases, as in a/20, got {self.text}"
            return [], [self.inliner.reporter.error(told, line=self.lineno)]
        return [ShareNode(self.rawtext, count=count, n=int(n))], []


def counts_of(found: dict[str, Record], name: str) -> tuple[float, ...]:
    """A glued count in each live replication.

    Raises:
        LookupError: the chapter glues no such count.
    """
    if f"glue/{name}" not in found:
        raise LookupError(f"the chapter glues no count {name!r}")
    return next(iter(found[f"glue/{name}"].values), ())


def share(count: int, n: int) -> str:
    """A share in percent with Wilson's interval of 95 %; a dash for fewer than two cases."""
    if n < 2:
        return "–"
    found = at_least([True] * count + [False] * (n - count), 0)
    return f"{100 * found.value:.0f} % ({100 * found.low:.0f}–{100 * found.high:.0f})"


def rows_of(found: dict[str, Record], node: SharesNode) -> list[list[str]]:
    """The cells of the table, without its head; no rows unless all counts have as many runs."""
    counts = {
        words: [
            counts_of(found, f"{node['prefix']}-{group}-{name}")
            for name in (node["of"], *node["columns"])
        ]
        for words, group in node["groups"]
    }
    if len({len(each) for row in counts.values() for each in row} - {0}) != 1:
        return []
    totals = {words: [round(sum(each)) for each in row] for words, row in counts.items()}
    return [
        [words, str(n), *(share(count, n) for count in row)] for words, (n, *row) in totals.items()
    ]


def in_text(found: dict[str, Record], node: ShareNode) -> str:
    """The share that a role shows; words where there is none."""
    counts = counts_of(found, node["count"])
    if not counts:
        return "a share not yet known"
    return share(round(sum(counts)), node["n"] * len(counts))


class FillShares(SphinxPostTransform):
    """Replace each placeholder by its table or its share."""

    default_priority = 5

    def run(self, **kwargs):
        for node in list(self.document.findall(ShareNode)):
            text = in_text(told(self.env, self.env.docname), node)
            node.replace_self(nodes.inline("", text, classes=["pasted-text"]))
        for node in list(self.document.findall(SharesNode)):
            rows = rows_of(told(self.env, self.env.docname), node)
            if rows:
                names = [node["head"], node["of"], *node["columns"]]
                cells = [row(lines([text]) for text in texts) for texts in rows]
                node.replace_self(table([name.replace("_", " ") for name in names], cells))
            else:
                node.replace_self(nodes.paragraph("", NONE_YET))


def setup(app):
    app.add_node(SharesNode)
    app.add_node(ShareNode)
    app.add_directive("replicated-shares", ReplicatedShares)
    app.add_role("replicated-share", ReplicatedShare())
    app.add_post_transform(FillShares)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
