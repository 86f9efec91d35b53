"""Give each link to a glossary term the first sentence of its definition as a title.

A pointer that rests on the link shows the sentence, and a screen reader can read it out. The link
itself leads to the whole definition, so nothing depends on hovering.
"""

from __future__ import annotations

import re

from docutils import nodes


def first_sentence(definition: str) -> str:
    """The text up to the first full stop, on one line."""
    text = " ".join(definition.split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def definitions(env) -> dict[str, str]:
    """First sentence of each term's definition, by the address of the term: page#anchor."""
    objects = env.get_domain("std").get_objects()
    found = {}
    for page in {page for _, _, kind, page, *_ in objects if kind == "term"}:
        for item in env.get_doctree(page).findall(nodes.definition_list_item):
            for term in item.findall(nodes.term):
                sentence = first_sentence(item.next_node(nodes.definition).astext())
                found |= {f"{page}#{anchor}": sentence for anchor in term["ids"]}
    return found


def _read_definitions(app, env):
    """Write all pages anew when a definition has changed: any of them may link to it."""
    now = definitions(env)
    before, env.book_definitions = getattr(env, "book_definitions", {}), now
    return sorted(env.found_docs) if now != before else []


def _add_hints(app, doctree, docname):
    hints = {}
    for address, sentence in app.env.book_definitions.items():
        page, anchor = address.split("#")
        hints[app.builder.get_relative_uri(docname, page) + "#" + anchor] = sentence
    for reference in doctree.findall(nodes.reference):
        is_term = any("std-term" in label["classes"] for label in reference.findall(nodes.inline))
        if is_term and reference.get("refuri") in hints:
            reference["reftitle"] = hints[reference["refuri"]]


def setup(app):
    app.connect("env-updated", _read_definitions)
    app.connect("doctree-resolved", _add_hints)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
