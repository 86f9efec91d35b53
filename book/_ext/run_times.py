"""The `run-times` directive: how long each chapter took when it was executed."""

from __future__ import annotations

from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from reading_order import reading_order
from sphinx.environment.collectors import EnvironmentCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode


class RunTimesNode(nodes.General, nodes.Element):
    """Placeholder that becomes the table of run times."""


class RunTimes(SphinxDirective):
    """A table of the run time of each chapter, and their sum."""

    def run(self):
        _store(self.env)["pages"].add(self.env.docname)
        return [RunTimesNode()]


def _store(env) -> dict:
    if not hasattr(env, "saebook_run_times"):
        env.saebook_run_times = {"pages": set(), "printed": []}
    return env.saebook_run_times


class RunTimesCollector(EnvironmentCollector):
    """Forget pages that are read again, and merge those read in another process."""

    def clear_doc(self, app, env, docname):
        _store(env)["pages"].discard(docname)

    def process_doc(self, app, doctree):
        pass

    def merge_other(self, app, env, docnames, other):
        _store(env)["pages"].update(_store(other)["pages"] & set(docnames))


def seconds_by_page(env) -> list[tuple[str, float]]:
    """The pages that have code, in reading order, with the seconds their execution took."""
    data = NbMetadataCollector.get_doc_data(env)
    executed = ((name, data[name].get("exec_data")) for name in reading_order(env) if name in data)
    return [
        (name, run["runtime"]) for name, run in executed if run and run.get("runtime") is not None
    ]


def _update_tables(app, env):
    state = seconds_by_page(env)
    changed = state != _store(env)["printed"]
    _store(env)["printed"] = state
    return sorted(_store(env)["pages"]) if changed else []


class PrintRunTimes(SphinxPostTransform):
    """Replace each placeholder by the table."""

    default_priority = 5

    def run(self, **kwargs):
        for node in list(self.document.findall(RunTimesNode)):
            node.replace_self(self._table())

    def _table(self) -> nodes.table:
        times = seconds_by_page(self.env)
        rows = [_row(self._link(docname), f"{seconds:.1f}") for docname, seconds in times]
        rows += [_row(nodes.strong("", "All"), f"{sum(seconds for _, seconds in times):.1f}")]
        group = nodes.tgroup("", nodes.colspec(colwidth=3), nodes.colspec(colwidth=1), cols=2)
        head = nodes.thead("", _row(nodes.Text("Page"), "Seconds"))
        group += [head, nodes.tbody("", *rows)]
        return nodes.table("", group, classes=["colwidths-auto"])

    def _link(self, docname: str) -> nodes.reference:
        title = nodes.Text(self.env.titles[docname].astext())
        return make_refnode(self.app.builder, self.env.docname, docname, "", title)


def _row(first: nodes.Node, second: str) -> nodes.row:
    cells = (nodes.paragraph("", "", first), nodes.paragraph("", second))
    return nodes.row("", *[nodes.entry("", cell) for cell in cells])


def setup(app):
    app.add_node(RunTimesNode)
    app.add_directive("run-times", RunTimes)
    app.add_env_collector(RunTimesCollector)
    app.add_post_transform(PrintRunTimes)
    app.connect("env-updated", _update_tables)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
