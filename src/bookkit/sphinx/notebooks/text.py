"""Turn a page's resolved doctree into the cells of a notebook: Markdown, and the page's own code.

In a resolved doctree every role has become text or a link, so what a reader of the notebook sees is
what a reader of the page sees. What a cell put out is left out: running the notebook makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin

from docutils import nodes
from docutils.nodes import Element, Node

SPECIAL = re.compile(r"[\\`*_\[\]<$|]")
LINE_START = re.compile(r"^(\d+)([.)] )|^([-+#>~])")
LEFT_OUT = (
    nodes.target,
    nodes.raw,
    nodes.comment,
    nodes.compound,  # a table of contents
    nodes.system_message,
)
FOLDED = {"solution_node", "dropdown_main"}  # shown after a click
BOXES = {"exercise_enumerable_node", "exercise_node", "proof_node"}


@dataclass(frozen=True)
class Text:
    """A block of Markdown. `summary` names the folded box it belongs to, if any."""

    source: str
    summary: str = ""


@dataclass(frozen=True)
class Code:
    """A cell of the page, the one at place `index` of its source."""

    source: str
    tags: tuple[str, ...] = ()
    is_folded: bool = False
    index: int = 0


@dataclass
class Page:
    """What the doctree of a page does not hold itself.

    Attributes:
        env: Sphinx's environment, which numbers sections, figures, theorems and equations.
        docname: the page's name.
        address: where the page is published; empty where links are to become plain text.
        cited: what the page cites, collected while it is read.
    """

    env: object
    docname: str
    address: str = ""
    cited: set[str] = field(default_factory=set)

    def number(self, kind: str, node: Element) -> str:
        """The number of a figure, theorem, … such as "5.1"; empty where it has none."""
        of_page = self.env.toc_fignumbers.get(self.docname, {}).get(kind, {})
        return ".".join(str(n) for n in next((of_page[i] for i in node["ids"] if i in of_page), ()))

    def section_number(self, section: Element) -> str:
        """The number of a section and a space, or nothing."""
        numbers = self.env.toc_secnumbers.get(self.docname, {})
        anchors = [f"#{anchor}" for anchor in section["ids"]]
        if not isinstance(section.parent, nodes.section):
            anchors.append("")
        found = next((numbers[a] for a in anchors if a in numbers), ())
        return "".join(f"{n}." for n in found) + (" " if found else "")


def cells(doctree: Element, page: Page) -> Iterator[Text | Code]:
    """The page as Markdown cells and code cells, in order; neighbouring Markdown is joined."""
    waiting: list[Text] = []
    for part in _blocks(doctree, page, depth=0):
        if isinstance(part, Text) and (not waiting or waiting[0].summary == part.summary):
            waiting.append(part)
            continue
        yield from _joined(waiting)
        waiting = [part] if isinstance(part, Text) else []
        if isinstance(part, Code):
            yield part
    yield from _joined(waiting)


def _joined(texts: list[Text]) -> Iterator[Text]:
    if texts:
        source = "\n\n".join(text.source for text in texts)
        summary = texts[0].summary
        if summary:
            source = f"<details>\n<summary>{summary}</summary>\n\n{source}\n\n</details>"
        yield Text(source)


def _blocks(parent: Node, page: Page, depth: int) -> Iterator[Text | Code]:
    for node in parent.children:
        yield from _block(node, page, depth)


def _block(node: Node, page: Page, depth: int) -> Iterator[Text | Code]:
    kind = type(node).__name__
    if isinstance(node, LEFT_OUT):
        return
    if isinstance(node, nodes.section):
        yield from _blocks(node, page, depth + (not _is_box(node.parent)))
    elif isinstance(node, nodes.container) and node.get("nb_element") == "cell_code":
        yield from _code(node, page)
    elif isinstance(node, nodes.title):
        number = page.section_number(node.parent)
        yield Text(f"{'#' * min(max(depth, 1), 6)} {number}{inline(node, page)}")
    elif kind in FOLDED:
        yield from _folded(node, page, depth)
    elif kind in BOXES or "countertype" in getattr(node, "attributes", {}):
        yield from _box(node, page, depth)
    elif isinstance(node, nodes.figure):
        yield from _figure(node, page)
    elif kind in _WRITERS:
        if source := _WRITERS[kind](node, page):
            yield Text(source)
    else:
        yield from _blocks(node, page, depth)


def _is_box(node: Node) -> bool:
    """Whether a section is only the inside of a theorem, an exercise, …"""
    return not isinstance(node, nodes.section | nodes.document)


def _code(cell: Element, page: Page) -> Iterator[Text | Code]:
    for block in cell.findall(nodes.literal_block):
        if block.parent.get("nb_element") == "cell_code_source":
            tags = tuple((cell.get("cell_metadata") or {}).get("tags", ()))
            yield Code(block.astext().rstrip("\n"), tags, index=cell["cell_index"])
    for figure in cell.findall(nodes.figure):  # its caption; the code makes the rest
        yield from _figure(figure, page)


def _folded(node: Element, page: Page, depth: int) -> Iterator[Text | Code]:
    """A solution or a drop-down box: text that shows after a click, and shut code cells."""
    head, *rest = node.children
    words = [str(text) for text in head.findall(nodes.Text) if _is_shown(text)]
    summary = " ".join(" ".join(words).split()).replace("<", "&lt;").replace("( ", "(")
    summary = summary.replace(" )", ")")
    parts = [part for child in rest for part in _block(child, page, depth)]
    if not isinstance(next(iter(parts), None), Text):
        yield Text(f"**{summary}**: the folded cells below.")
    for part in parts:
        if isinstance(part, Code):
            yield replace(part, is_folded=True)
        else:
            yield replace(part, summary=summary)


def _is_shown(text: Node) -> bool:
    return not isinstance(text.parent, nodes.raw)


def _box(node: Element, page: Page, depth: int) -> Iterator[Text | Code]:
    """A theorem, a definition, an exercise, …: its number, its title and what is in it, set off."""
    waiting, rest = [], node.children
    if isinstance(rest[0], nodes.title):
        kind = "exercise" if "exercise" in type(node).__name__ else node["countertype"]
        name = f"{node.get('realtype', kind).title()} {page.number(kind, node)}".strip()
        waiting, rest = [f"**{name}** {inline(rest[0], page).strip()}".strip()], rest[1:]
    for part in (part for child in rest for part in _block(child, page, depth)):
        if isinstance(part, Text):
            waiting.append(part.source)
            continue
        if waiting:
            yield Text(_quoted("\n\n".join(waiting)))
        waiting = []
        yield part
    if waiting:
        yield Text(_quoted("\n\n".join(waiting)))


def _quoted(source: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in source.split("\n"))


def _figure(node: Element, page: Page) -> Iterator[Text]:
    captions = [inline(child, page) for child in node.children if isinstance(child, nodes.caption)]
    number = page.number("figure", node)
    yield Text(" ".join([f"**Fig. {number}**" if number else "**Figure.**", *captions]))
    for legend in node.findall(nodes.legend):
        yield from _blocks(legend, page, 0)


def _paragraph(node: Element, page: Page) -> str:
    text = re.sub(r"\s*\n\s*", " ", inline(node, page)).strip()
    return LINE_START.sub(lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", text)


def _math_block(node: Element, page: Page) -> str:
    # One line: in a quotation or a list the marks of further lines would end up in the formula.
    source = " ".join(node.astext().split())
    if node.get("nowrap") is True:
        return source  # an environment of its own
    if r"\\" in source and r"\begin{" not in source:
        source = rf"\begin{{split}} {source} \end{{split}}"
    if number := page.number("displaymath", node):
        source += rf" \tag{{{number}}}"
    return f"$$ {source} $$"


def _list(node: Element, page: Page) -> str:
    items, start = [], node.get("start", 1)
    for place, item in enumerate(node.children, start=start):
        mark = f"{place}. " if isinstance(node, nodes.enumerated_list) else "- "
        body = "\n\n".join(_texts(item, page)).replace("\n", "\n" + " " * len(mark))
        items.append(mark + body)
    return "\n".join(re.sub(r"\n +\n", "\n\n", item) for item in items)


def _definitions(node: Element, page: Page) -> str:
    lines = []
    for item in node.children:
        terms = ", ".join(inline(t, page) for t in item.children if isinstance(t, nodes.term))
        meaning = " ".join(text for d in item.findall(nodes.definition) for text in _texts(d, page))
        lines.append(f"- **{terms}**: {meaning}")
    return "\n".join(lines)


def _table(node: Element, page: Page) -> str:
    rows = [
        [" ".join(_texts(entry, page)).replace("\n", " ") for entry in row.children]
        for row in node.findall(nodes.row)
    ]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _texts(node: Node, page: Page) -> Iterable[str]:
    return [part.source for part in _blocks(node, page, 0) if isinstance(part, Text)]


_WRITERS: dict[str, Callable[[Element, Page], str]] = {
    "paragraph": _paragraph,
    "rubric": lambda node, page: f"**{inline(node, page)}**",
    "math_block": _math_block,
    "bullet_list": _list,
    "enumerated_list": _list,
    "definition_list": _definitions,
    "table": _table,
    "literal_block": lambda node, page: "```{}\n{}\n```".format(
        node.get("language", "").replace("ipython3", "python"), node.astext().rstrip()
    ),
    "block_quote": lambda node, page: _quoted("\n\n".join(_texts(node, page))),
    "transition": lambda node, page: "---",
}


def inline(node: Node, page: Page) -> str:
    """What is in a paragraph, as Markdown."""
    return "".join(_inline(child, page) for child in node.children)


def _inline(node: Node, page: Page) -> str:
    if isinstance(node, nodes.Text):
        return SPECIAL.sub(r"\\\g<0>", str(node).replace("\n", " "))
    if isinstance(node, nodes.math):
        return f"${' '.join(node.astext().split())}$"
    if isinstance(node, nodes.literal):
        return f"`{node.astext()}`" if "`" not in node.astext() else f"`` {node.astext()} ``"
    if isinstance(node, nodes.image | nodes.raw | nodes.target):
        return ""
    text = inline(node, page)
    if isinstance(node, nodes.emphasis | nodes.strong):
        mark = "*" if isinstance(node, nodes.emphasis) else "**"
        return f"{mark}{text}{mark}"
    if isinstance(node, nodes.reference):
        return _reference(node, text, page)
    return text


def _reference(node: Element, text: str, page: Page) -> str:
    if "bibtex-citation" in node.parent.get("classes", ()) and "reftitle" in node:
        page.cited.add(node["reftitle"])
    target = node.get("refuri") or f"#{node.get('refid', '')}"
    if not node.get("internal") and "://" in target:
        return f"[{text}]({target})"
    return f"[{text}]({urljoin(page.address, target)})" if page.address else text
