"""No result is typed in a chapter's prose, and chapters keep to their form.

The rule. In prose, these look like results and are errors: a decimal number, scientific notation,
a percentage, "N of M" and "N/M", and "N times", "N×" or "N-fold". Prose is everything but code,
formulas, link targets and comments; captions, titles, tables and exercises are prose. Allowed
are numbers in a role that says where they come from: glue (computed), `setting` (chosen),
`published` (quoted from a source), and references. A formula or inline code that holds nothing
but a number is a number.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

# Directives whose content is not prose. Any other is read, so that a new one is no loophole.
SILENT = {
    "code-cell",
    "code",
    "code-block",
    "literalinclude",
    "math",
    "raw",
    "include",
    "image",
    "toctree",
    "bibliography",
    "claims-ledger",
    "nb-exec-table",
}
# Directives with an argument that is a key, a label or a path.
KEYED = {"glue:figure", "glue", "figure", "solution", "exercise-start", "solution-start"}
ROLES = re.compile(
    r"\{(?:glue(?::\w+)?|found|setting|published|math|cite(?::\w+)*|ref|numref|eq|doc|any|term|download"
    r"|prf:ref|nb-download)\}(`+)[^`]+?\1"
)
NUMBER = r"(?<![\w.])[-−+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-−+]?\d+)?"
RESULTS = {
    "a decimal number": re.compile(r"(?<![\w.])[-−+]?\d*\.\d+(?!\.?\d)"),
    "scientific notation": re.compile(r"(?<![\w.])\d+(?:\.\d+)?[eE][-−+]?\d+\b"),
    "a percentage": re.compile(NUMBER + r"\s*(?:\\?%|percent\b|per cent\b)"),
    "N of M": re.compile(r"(?<![\w.])\d+\s+(?:out\s+)?of\s+(?:the\s+|all\s+)?\d+"),
    "N/M": re.compile(r"(?<![\w./])\d+\s*/\s*\d+(?![\w/])"),
    "N times": re.compile(NUMBER + r"\s*(?:×|x\b|times\b|-?fold\b)"),
}
BARE = re.compile(rf"\s*(?:[=<>≈~]|\\approx|\\sim|\\leq?|\\geq?)?\s*{NUMBER}\s*(?:\\?%)?\s*")
FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,}|:{3,})(?:\{(?P<name>[^}]*)\})?(?P<rest>.*)$")
OPTION = re.compile(r"^\s*:[\w-]+:")
METADATA = re.compile(
    r"^(?P<fence>`{3,}\{code-cell\}[^\n]*)\n---\n(?P<metadata>.*?)^---$", re.MULTILINE | re.DOTALL
)
CAPTION = " " * 6  # how far the metadata of a cell indent a caption


def pages():
    """The files of the table of contents that exist."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = re.findall(r"'(?:root|file)': '([^']+)'", str(toc))
    files = [ROOT / f"{name.removesuffix('.md')}.md" for name in names]
    return [file for file in files if file.is_file()]


def blank(match):
    """Nothing, on as many lines."""
    return "\n" * match[0].count("\n")


def unless_bare(match):
    """A number dressed as a formula or as code stays; anything else goes."""
    return match["inner"] if BARE.fullmatch(match["inner"]) else blank(match)


def with_captions_outside(text):
    """The text with the captions in the metadata of cells before these cells, on as many lines."""

    def move(match):
        lines = match["metadata"].split("\n")[:-1]
        kept = [line.strip() if line.startswith(CAPTION) else "" for line in lines]
        return "\n".join(["", "", *kept, match["fence"]])

    return METADATA.sub(move, text)


def outside_fences(text):
    """The text with the lines of silent blocks, fences, options and front matter emptied."""
    text = with_captions_outside(text)
    kept, stack, front = [], [], text.startswith("---\n")
    options = False
    for number, line in enumerate(text.split("\n")):
        if front:
            front = number == 0 or line != "---"
            kept.append("")
            continue
        fence = FENCE.match(line)
        if (
            fence
            and stack
            and not (fence["rest"].strip() or fence["name"])
            and (fence["fence"].startswith(stack[-1][0]))
        ):
            stack.pop()
            kept.append("")
        elif stack and stack[-1][1]:
            kept.append("")
        elif fence:
            name = fence["name"]
            stack.append((fence["fence"], name is None or name in SILENT))
            options = True
            kept.append("" if stack[-1][1] or name in KEYED else fence["rest"])
            continue
        else:
            kept.append("" if options and OPTION.match(line) else line)
        options = options and bool(OPTION.match(line))
    return "\n".join(kept)


def prose(text):
    """What a reader reads as sentences, on its own lines."""
    text = outside_fences(text)
    text = re.sub(r"<!--.*?-->", blank, text, flags=re.DOTALL)
    text = re.sub(r"^\s*(?:%.*|\([\w-]+\)=)$", "", text, flags=re.MULTILINE)
    text = ROLES.sub(blank, text)
    text = re.sub(r"\{[\w:-]+\}(?P<tick>`+)(?P<inner>[^`]+?)(?P=tick)", r"\g<inner>", text)
    text = re.sub(r"\$\$(?P<inner>.+?)\$\$", unless_bare, text, flags=re.DOTALL)
    text = re.sub(r"(?<![\\$])\$(?P<inner>[^$]+?)\$", unless_bare, text)
    text = re.sub(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", blank, text, flags=re.DOTALL)
    text = re.sub(r"(?P<tick>`+)(?P<inner>[^`]+?)(?P=tick)", unless_bare, text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"<?https?://[^\s>]+>?", "", text)
    text = re.sub(r"arXiv[: ]\d{4}\.\d{5}(?:v\d+)?", "", text)
    return re.sub(r"\b(?:Section|Equation|Appendix|Chapter|Python)\s+\d+(?:\.\d+)+", "", text)


def typed_results(text):
    """Each typed result as "line: kind: the match"."""
    lines = prose(text).split("\n")
    return [
        f"{number}: {kind}: {match[0].strip()}"
        for number, line in enumerate(lines, start=1)
        for kind, pattern in RESULTS.items()
        for match in pattern.finditer(line)
    ]


@dataclass
class Cell:
    """The code of one cell and its tags."""

    line: int
    tags: str
    code: list[str]


def cells(text):
    """The code cells of a page, without their options."""
    found, lines = [], text.split("\n")
    for number, line in enumerate(lines):
        if re.match(r"^`{3,}\{code-cell\}", line):
            fence = re.match(r"`+", line)[0]
            end = lines.index(fence, number + 1)
            body = lines[number + 1 : end]
            start = body.index("---", 1) + 1 if body[:1] == ["---"] else 0
            tags = " ".join(e for e in body if OPTION.match(e) or e.startswith("tags:"))
            code = [entry for entry in body[start:] if not OPTION.match(entry)]
            found.append(Cell(number + 1, tags, code))
    return found


def form_faults(text):
    """What breaks the form of a chapter, as sentences."""
    faults, found = [], cells(text)
    for index, cell in enumerate(found):
        at = f"cell at line {cell.line}"
        length = sum(bool(line.strip()) for line in cell.code)
        imports = [line for line in cell.code if re.match(r"\s*(?:import|from)\s+\w", line)]
        if index > 0 and length > 20:
            faults.append(f"{at} has {length} lines; expected at most 20")
        if index == 0 and not imports:
            faults.append(f"{at} is the first and imports nothing")
        if index > 0 and imports:
            faults.append(f"{at} imports ({imports[0].strip()}); imports belong in the first cell")
        if "teaches-function" not in cell.tags and any(
            re.match(r"\s*(?:async\s+)?(?:def|class)\s", line) for line in cell.code
        ):
            faults.append(f"{at} defines a function or class without the tag teaches-function")
        if "claims.check" in "\n".join(cell.code) and re.search(
            r"remove[-_](?:output|cell)", cell.tags
        ):
            faults.append(f"{at} hides a claim, which would then not be in the ledger")
        if re.search(r"plt\.subplots\(|plot_sweep_grid\(", "\n".join(cell.code)) and (
            "style.themed(" not in "\n".join(cell.code)
        ):
            faults.append(f"{at} begins a figure that it does not hand to style.themed")
    for match in METADATA.finditer(text):
        entries = [line.split(":")[0].strip() for line in match["metadata"].split("\n")]
        if "figure" in entries and not {"name", "caption"} <= set(entries):
            faults.append(f"a figure needs a name and a caption: {match['metadata']}")
    return faults + [fault for block in figures(text) for fault in figure_faults(*block)]


def figures(text):
    """Key, options and caption of each glued figure."""
    pattern = r"^(`{3,}|:{3,})\{glue:figure\}[ ]*(\S*)[ ]*\n(.*?)^\1[ ]*$"
    for match in re.finditer(pattern, text, flags=re.DOTALL | re.MULTILINE):
        lines = match[3].split("\n")
        options = [line for line in lines if OPTION.match(line)]
        yield match[2], options, "\n".join(line for line in lines if line not in options).strip()


def figure_faults(key, options, caption):
    """A figure has a caption and a name to refer to it by."""
    faults = [] if caption else [f"figure {key} has no caption"]
    named = any(option.strip().startswith(":name:") for option in options)
    return faults if named else [*faults, f"figure {key} has no :name:"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_result_is_typed_in(page):
    assert not typed_results(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_form_is_kept_in(page):
    assert not form_faults(page.read_text(encoding="utf-8"))


def test_the_pages_of_the_book_are_found():
    assert ROOT / "book" / "intro.md" in pages()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The error is 2.73.", "a decimal number"),
        ("A cosine of −0.4 or .85", "a decimal number"),
        ("It fell to 1e-4 there.", "scientific notation"),
        ("It recovers 98% of them.", "a percentage"),
        ("It recovers 98 percent.", "a percentage"),
        ("It recovers 48 of 50 features.", "N of M"),
        ("It recovers 48 out of the 50.", "N of M"),
        ("It recovers 48/50.", "N/M"),
        ("This is 2x the error.", "N times"),
        ("This is 20 times the error.", "N times"),
        ("# An error of 2.73", "a decimal number"),
        ("| k | error |\n|---|---|\n| 9 | 2.73 |", "a decimal number"),
        ("The error is $2.73$.", "a decimal number"),
        ("The error is $\\approx 2.73$.", "a decimal number"),
        ("The share is $48\\%$.", "a percentage"),
        ("The error is `2.73`.", "a decimal number"),
        ("[An error of 2.73](https://example.org)", "a decimal number"),
        ("{abbr}`2.73 (the error)`", "a decimal number"),
        ("```{note}\n:class: tip\nThe error is 2.73.\n```", "a decimal number"),
        ("```{admonition} It is 2.73\nText.\n```", "a decimal number"),
        ("```{glue:figure} fig-x\n:name: fig-x\n\nThe error is 2.73.\n```", "a decimal number"),
        ("````{note}\n```{code-cell} python\n1.5\n```\nIt is 2.73.\n````", "a decimal number"),
        (":::{tip}\nIt is 2.73.\n:::", "a decimal number"),
        ("{glue:text}`x:.2f` is not 2.73.", "a decimal number"),
    ],
)
def test_a_planted_result_is_found(text, kind):
    assert any(f": {kind}: " in fault for fault in typed_results(text))


@pytest.mark.parametrize(
    "text",
    [
        "The error is {glue:text}`mse:.2f`, published {published}`2.73`, at {setting}`0.15`.",
        "On another page it is {glue:text}`true_l0.md::mse:.2f`.",
        "A claim's number is {found}`mixing-pays/2:.2f`.",
        "With $p_i = 0.345 (50 - i) / 50$ it decays.",
        "$$\n\\alpha = 0.6 x\n$$ (eq-x)",
        "\\begin{align}\nx &= 0.5 y\n\\end{align}",
        "Call `clip(0.5, 1.0)` first.",
        "```{code-cell} python\n:tags: [hide-input]\n\nx = 2.73\n```",
        "```bash\npip install torch==2.13.0\n```",
        "```{math}\nx = 2.73 y\n```",
        "---\nversion: 1.16\n---\n\nText.",
        "See arXiv:2508.16560, [the paper](https://arxiv.org/abs/2508.16560), Section 3.2.",
        "Version 6.54.12 of the library, with 5 features in 2 dimensions and k = 11.",
        "See {cite:p}`chanin2025sparse`, {numref}`fig-x` and {eq}`eq-x`.",
        "<!-- 2.73 -->",
        "% 2.73",
    ],
)
def test_what_is_no_typed_result_passes(text):
    assert typed_results(text) == []


def test_the_line_of_a_fault_is_named():
    assert typed_results("One.\n\n```{code-cell}\n1.5\n```\n\nIt is 2.73.")[0].startswith("7: ")


IMPORTS = "```{code-cell} python\nimport torch\n```\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (IMPORTS + "```{code-cell} python\n" + "x = 1\n" * 21 + "```", "has 21 lines"),
        ("```{code-cell} python\nx = 1\n```", "imports nothing"),
        (IMPORTS + IMPORTS, "imports belong in the first cell"),
        (IMPORTS + "```{code-cell} python\ndef f(): ...\n```", "defines a function"),
        (
            IMPORTS + "```{code-cell} python\n:tags: [remove-output]\nclaims.check()\n```",
            "hides a claim",
        ),
        (IMPORTS + "```{code-cell} python\nfig, ax = plt.subplots()\n```", "begins a figure"),
        (
            IMPORTS + "```{code-cell}\n---\nmystnb:\n  figure:\n    name: fig-x\n---\nx\n```",
            "needs a name and a caption",
        ),
        ("```{glue:figure} fig-x\n:name: fig-x\n```", "figure fig-x has no caption"),
        ("```{glue:figure} fig-x\n\nCaption.\n```", "figure fig-x has no :name:"),
    ],
)
def test_a_planted_fault_of_form_is_found(text, fault):
    assert any(fault in found for found in form_faults(text))


def test_a_chapter_in_good_form_passes():
    function = "```{code-cell} python\n:tags: [teaches-function]\ndef f(): ...\n```\n"
    figure = "```{glue:figure} fig-x\n:name: fig-x\n\nThe caption.\n```\n"
    assert form_faults(IMPORTS + function + figure) == []


GRADES = ("Easy", "Medium", "Hard")
EXERCISE = re.compile(
    r"^(`{3,})\{exercise-start\} (?P<grade>\w+)\n:label: (?P<label>\S+)\n\1\n"
    r"(?P<body>.*?)^\1\{exercise-end\}\n\1\n",
    flags=re.DOTALL | re.MULTILINE,
)
SOLUTION = re.compile(
    r"^(`{3,})\{solution-start\} (?P<label>\S+)\n:class: dropdown\n\1\n"
    r"(?P<body>.*?)^\1\{solution-end\}\n\1$",
    flags=re.DOTALL | re.MULTILINE,
)


def experiments():
    """The chapters that the table of contents numbers."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    files = [entry["file"] for part in parts if part.get("numbered") for entry in part["chapters"]]
    return [ROOT / f"{file}.md" for file in files]


def exercise_faults(text):
    """What is missing from a chapter's exercises, as sentences."""
    exercises = list(EXERCISE.finditer(text))
    solutions = {match["label"]: match["body"] for match in SOLUTION.finditer(text)}
    checked, faults = 0, []
    if (begun := text.count("{exercise-start}")) != len(exercises):
        faults.append(f"{begun} exercises begin, {len(exercises)} have a grade, a label and an end")
    for exercise in exercises:
        at, solution = exercise["label"], solutions.get(exercise["label"])
        if solution is None:
            faults.append(f"{at} has no solution, or one that is not hidden")
        names = re.findall(r"^(\w+) = exercises\.", exercise["body"], flags=re.MULTILINE)
        checked += bool(names)
        faults += [
            f"the solution of {at} does not pass {name} strictly"
            for name in names
            if not re.search(rf"^{name}\(.*, strict=True\)$", solution or "", flags=re.MULTILINE)
        ]
    grades = [exercise["grade"] for exercise in exercises]
    if not set(grades) <= set(GRADES) or grades != sorted(grades, key=GRADES.index):
        faults.append(f"the grades are {grades}; expected {GRADES}, in this order")
    if checked < 2:
        faults.append(f"{checked} exercises check the reader's answer; expected at least 2")
    return faults


@pytest.mark.parametrize("page", experiments(), ids=lambda page: page.name)
def test_exercises_are_graded_solved_and_checked_in(page):
    assert not exercise_faults(page.read_text(encoding="utf-8"))


def test_the_chapters_with_experiments_are_found():
    assert ROOT / "book" / "true_l0.md" in experiments()
    assert ROOT / "book" / "claims.md" not in experiments()


def exercise(label, grade="Easy", strict=", strict=True"):
    """An exercise that checks its answer, and its solution."""
    return (
        f"```{{exercise-start}} {grade}\n:label: {label}\n```\nAsk.\n\n"
        "```{code-cell} python\nis_it = exercises.Number()\nis_it(None)\n```\n"
        "```{exercise-end}\n```\n\n"
        f"````{{solution-start}} {label}\n:class: dropdown\n````\n"
        f"```{{code-cell}} python\nis_it(1{strict})\n```\n````{{solution-end}}\n````\n\n"
    )


def test_two_graded_exercises_with_strict_solutions_pass():
    assert exercise_faults(exercise("ex-a") + exercise("ex-b", "Hard")) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("No exercises.", "0 exercises check"),
        (exercise("ex-a"), "1 exercises check"),
        (exercise("ex-a") * 2 + "```{exercise-start}\n```", "3 exercises begin, 2 have a grade"),
        (exercise("ex-a", "Hard") + exercise("ex-b"), "the grades are ['Hard', 'Easy']"),
        (exercise("ex-a", "Tricky"), "the grades are ['Tricky']"),
        (exercise("ex-a", strict=""), "solution of ex-a does not pass is_it strictly"),
        (exercise("ex-a").replace("start} ex-a", "start} ex-b"), "ex-a has no solution"),
        (exercise("ex-a").replace(":class: dropdown\n", ""), "ex-a has no solution, or one that"),
    ],
)
def test_a_planted_fault_of_exercises_is_found(text, fault):
    assert any(fault in found for found in exercise_faults(text))
