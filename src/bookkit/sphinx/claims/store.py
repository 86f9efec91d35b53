"""What the pages of a build claim, and what the replications say of it."""

from __future__ import annotations

from pathlib import Path

from myst_nb.ext.glue.crossref import read_glue_cache

from bookkit.code_behind import code_digest, said_and_asked
from bookkit.replications import (
    FOLDER,
    OWN,
    Record,
    Run,
    of_claim,
    of_glue,
    processor,
    read,
    records,
)


def store(env) -> dict:
    """The environment's record: claims by page, and the pages that print a ledger."""
    if not hasattr(env, "bookkit_claims"):
        env.bookkit_claims = {"claims": {}, "pages": set(), "printed": ""}
    return env.bookkit_claims


def reading_order(env) -> list[str]:
    """Every page reachable from the root, once, in the order of the table of contents."""
    order: list[str] = []

    def visit(docname: str) -> None:
        if docname not in order:
            order.append(docname)
            for child in env.toctree_includes.get(docname, []):
                visit(child)

    visit(env.config.root_doc)
    return order


def in_order(env) -> list[tuple[str, list[dict]]]:
    """The pages that claim something, in reading order, with their claims."""
    claims = store(env)["claims"]
    return [(docname, claims[docname]) for docname in reading_order(env) if docname in claims]


def told(env, docname: str) -> dict[str, Record]:
    """What the live replications say of a chapter's claims and glued numbers.

    Keys are "claim/<id>" and "glue/<name>". It is worked out once for each state of the build.
    """
    source, root = Path(env.doc2path(docname)), Path(env.app.srcdir)
    if not hasattr(env.app, "bookkit_replications"):
        env.app.bookkit_replications = {}
    kept = env.app.bookkit_replications
    if docname not in kept:
        runs = read(root / FOLDER / f"{source.stem}.csv")
        now = Run(
            shift=OWN,
            environment="machine",
            processor=processor(),
            code=code_digest(root, source),
            seconds=0,
            values=_own_draw(env, docname) | said_and_asked(source),
        )
        kept[docname] = records(runs, now)
    return kept[docname]


def _own_draw(env, docname: str) -> dict[str, str]:
    """What the chapter found in this build."""
    found: dict[str, str] = {}
    for claim in store(env)["claims"].get(docname, ()):
        found |= of_claim(claim)
    for key, output in read_glue_cache(env.mystnb_config.output_folder, docname).items():
        found |= of_glue(key, output["data"].get("text/plain", ""))
    return found
