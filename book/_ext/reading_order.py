"""The pages of the book in the order of its table of contents."""

from __future__ import annotations


def reading_order(env) -> list[str]:
    """Every page reachable from the root, once, in reading order."""
    order: list[str] = []

    def visit(docname: str) -> None:
        if docname not in order:
            order.append(docname)
            for child in env.toctree_includes.get(docname, []):
                visit(child)

    visit(env.config.root_doc)
    return order
