"""Roles that mark the numbers which a writer may type.

`` {setting}`0.15` `` is a choice, made before any computation. `` {published}`2.73` `` is quoted
from a source. Every other number in prose comes from the computation, through glue or the claim
that it belongs to; `tests/test_prose.py` keeps that rule.
"""

from __future__ import annotations

from docutils import nodes


def _number_role(name: str):
    def role(role_name, rawtext, text, lineno, inliner, options=None, content=()):
        return [nodes.inline(rawtext, text, classes=["number", name])], []

    return role


def setup(app):
    app.add_role("setting", _number_role("setting"))
    app.add_role("published", _number_role("published"))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
