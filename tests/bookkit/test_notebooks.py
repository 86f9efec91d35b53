"""Notebooks: from a page to cells, what the first cell does, launch buttons, and the comparison."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import run_notebooks as runner
import saebook
from bookkit.sphinx import notebooks
from bookkit.sphinx.notebooks import files

ROOT = Path(__file__).resolve().parents[2]

PAGE = """---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  display_name: Python 3
  name: python3
---

# Two *rays*

See {doc}`other`, {ref}`there <place>`, {eq}`eq-one` and {numref}`fig-one`;
`a_b` costs 3 \\$ * 2 for $x
< y$, {setting}`0.5`.

$$
a &= b \\\\
c &= d
$$ (eq-one)

- one
- two

  and more

````{prf:theorem} Small
:label: thm-small
It holds that

$$
a = b .
$$
````

```{code-cell} python
from myst_nb import glue
glue("one", figure, display=False)
glue("number", 1.5, display=False)
```

```{code-cell} python
:tags: [remove-cell]
glue("unseen", 2, display=False)
```

```{glue:figure} one
:name: fig-one

A line.
```

```{exercise-start} Easy
:label: ex-small
```
Why?
```{exercise-end}
```

````{solution-start} ex-small
:class: dropdown
````
Because.

```{code-cell} python
:tags: [teaches-function]
answer = 1
```
````{solution-end}
````
"""

HIDDEN = "application/papermill.record/"
CONF = """
html_title = "A book"
extensions = ["myst_nb", "sphinx_proof", "sphinx_exercise"]
extensions += ["bookkit.sphinx.prose_roles", "bookkit.sphinx.notebooks"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
numfig = math_numfig = True
html_theme = "basic"
notebook_library = "saebook"
html_theme_options = {{}}
html_baseurl = {baseurl!r}
suppress_warnings = ["*"]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A book of one such page, published at an address: the folder of its site."""
    folder = tmp_path_factory.mktemp("book")
    page = jupytext.reads(PAGE, fmt="md:myst")
    first = next(cell for cell in page.cells if cell.cell_type == "code")
    first.outputs = [
        new_output(
            "display_data",
            {f"{HIDDEN}text/plain": "a line"},
            metadata={"scrapbook": {"name": "one", "mime_prefix": HIDDEN}},
        )
    ]
    nbformat.write(page, folder / "index.ipynb")
    (folder / "other.md").write_text("(place)=\n# The other page\n")
    (folder / "requirements.txt").write_text("numpy==2.0\nmyst-nb==1.0\nruff==1.0\n")
    (folder / "README.md").write_text("A book.")
    (folder / "LICENSE").write_text("MIT")
    (folder / "src" / "saebook").mkdir(parents=True)
    (folder / "src" / "saebook" / "__init__.py").write_text(
        f'"""A book."""\n\n__version__ = "{saebook.__version__}"\n'
    )
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    conf = CONF.format(baseurl="https://example.org/book/")
    (folder / "conf.py").write_text(conf)
    command = [sys.executable, "-m", "sphinx", "-q", str(folder), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture
def published(built):
    return nbformat.read(built / "notebooks" / "index.ipynb", as_version=4)


@pytest.fixture
def prose(published):
    return "\n\n".join(c.source for c in published.cells if c.cell_type == "markdown")


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_roles_are_resolved_with_links_to_the_published_page(prose):
    assert "[The other page](https://example.org/book/other.html)" in prose
    assert "[there](https://example.org/book/other.html#place)" in prose
    assert "[(1)](https://example.org/book/index.html#equation-eq-one)" in prose
    assert "[Fig. 1](https://example.org/book/index.html#fig-one)" in prose
    assert "`a_b` costs 3 \\$ \\* 2 for $x < y$, 0.5." in prose
    assert "{" not in prose.replace("{split}", "").replace("{1}", "")


def test_formulas_lists_boxes_and_captions_are_markdown(prose):
    assert "$$ \\begin{split} a &= b \\\\ c &= d \\end{split} \\tag{1} $$" in prose
    assert "- one\n- two\n\n  and more" in prose
    assert "> **Theorem 1** (Small)\n>\n> It holds that\n>\n> $$ a = b . $$" in prose
    assert "**Fig. 1** A line." in prose
    assert "> **Exercise 1** (Easy)\n>\n> Why?" in prose


def test_a_solution_is_folded(published, prose):
    assert "<summary>Solution to Exercise 1 (Easy)</summary>\n\nBecause.\n\n</details>" in prose
    assert code(published)[-1].source == "answer = 1"
    assert code(published)[-1].metadata == {
        "tags": ["teaches-function"],
        "jupyter": {"source_hidden": True},
    }


def test_a_reader_sees_the_figures_but_not_the_numbers(published):
    assert 'glue("one", figure)\nglue("number", 1.5, display=False)' in code(published)[1].source


def test_code_that_the_page_removes_runs_in_its_place(published, prose):
    assert [cell.source.splitlines()[0] for cell in code(published)][1:] == [
        "from myst_nb import glue",
        'glue("unseen", 2, display=False)',
        "answer = 1",
    ]
    assert code(published)[2].metadata == {"jupyter": {"source_hidden": True}}


def test_a_notebook_is_valid_says_what_it_is_and_holds_no_outputs(published, prose):
    nbformat.validate(published)
    assert prose.startswith("# Two *rays*\n\nThis notebook is [a page](https://example.org/book/")
    assert "install" in code(published)[0].metadata.tags
    assert not any(cell.outputs or cell.execution_count for cell in code(published))
    assert [cell.id for cell in published.cells][:2] == ["cell-000", "cell-001"]


def test_only_pages_with_code_get_a_notebook_and_all_they_need_lies_beside(built):
    assert {path.name for path in (built / "notebooks").iterdir()} == {
        "index.ipynb",
        "requirements.txt",
        "runtime.txt",
        f"saebook-{saebook.__version__}-py3-none-any.whl",
    }


def test_pins_are_those_of_what_the_notebooks_import():
    pinned = "ruff==1\nmyst-nb==1.4\nmatplotlib==3\ncontourpy==1  # why\nipykernel==7\n-e .\n"
    assert files.pins(pinned, "saebook") == "contourpy==1\nmatplotlib==3\nmyst-nb==1.4\n"


def test_a_glue_over_several_lines_loses_its_display_only():
    source = 'glue(\n    "é", themed(fig, alt="ü"),\n    display=False,\n)\nx = "display=False"'
    shown = notebooks.with_figures_shown(source, {"é"})
    assert shown == 'glue(\n    "é", themed(fig, alt="ü"),\n)\nx = "display=False"'
    assert notebooks.with_figures_shown(source, {"e"}) == source


class Pip:
    """Stands in for subprocess and keeps the commands."""

    def __init__(self):
        self.commands = []

    def run(self, command, *, check):
        self.commands.append(command[4:])


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Run the first cell of a notebook in an empty folder; what it asks of pip."""

    def run(*, installed=(), site=""):
        found = [SimpleNamespace(version=version) for version in installed]
        monkeypatch.setattr("importlib.metadata.distributions", lambda name: found)
        pip = Pip()
        monkeypatch.setitem(sys.modules, "subprocess", pip)
        exec(notebooks.install_cell("saebook", site), {})
        return pip.commands

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is put back
    monkeypatch.chdir(tmp_path)
    return run


WHEEL = f"saebook-{saebook.__version__}-py3-none-any.whl"


def test_the_first_cell_installs_nothing_where_the_version_is_there(install):
    assert install(installed=[saebook.__version__], site="https://example.org/") == []


def test_the_first_cell_asks_for_one_thread_unless_told_otherwise(install, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    install(installed=[saebook.__version__])
    assert os.environ["OMP_NUM_THREADS"] == "4"
    monkeypatch.delenv("OMP_NUM_THREADS")
    install(installed=[saebook.__version__])
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("site", ["", "https://example.org/"])
def test_the_first_cell_takes_files_beside_the_notebook(install, tmp_path, site):
    (tmp_path / WHEEL).touch()
    (tmp_path / "requirements.txt").touch()
    assert install(installed=["0.0.1"], site=site) == [
        ["--quiet", "--requirement", "requirements.txt", WHEEL]
    ]


def test_the_first_cell_takes_files_from_the_site(install):
    base = "https://example.org/notebooks/"
    assert install(site=base) == [
        ["--quiet", "--requirement", f"{base}requirements.txt", base + WHEEL]
    ]


def test_the_first_cell_says_what_is_missing(install):
    with pytest.raises(FileNotFoundError, match=f"put {WHEEL} and requirements.txt beside"):
        install()


def config(repository="", baseurl=""):
    return SimpleNamespace(html_theme_options={"repository_url": repository}, html_baseurl=baseurl)


def test_no_repository_no_launch_buttons():
    assert notebooks.launch_links(config(), "hedging") == []
    assert notebooks.source_of_files(config()) == ""


def test_one_setting_brings_the_launch_buttons_and_the_place_of_the_wheel():
    given = config("https://github.com/someone/book/")
    assert notebooks.launch_links(given, "hedging") == [
        (
            "Colab",
            "https://colab.research.google.com/github/someone/book/blob/notebooks/hedging.ipynb",
        ),
        (
            "Binder",
            "https://mybinder.org/v2/gh/someone/book/notebooks?urlpath=lab/tree/hedging.ipynb",
        ),
    ]
    place = "https://raw.githubusercontent.com/someone/book/notebooks/"
    assert notebooks.source_of_files(given) == place
    given.html_baseurl = "https://example.org/book/"
    assert notebooks.source_of_files(given) == "https://example.org/book/notebooks/"


@pytest.mark.parametrize("address", ["https://example.org/a/b", "https://github.com/someone"])
def test_another_address_is_refused(address):
    with pytest.raises(ValueError, match="must be https://github.com/<owner>/<name>"):
        notebooks.repository(config(address))


@pytest.mark.parametrize("launchers", [[], [("Colab", "https://example.org/c")]])
def test_buttons_are_those_that_are_given(launchers):
    from jinja2 import Environment, FileSystemLoader

    templates = Environment(loader=FileSystemLoader(ROOT / "book" / "_templates"))
    page = templates.get_template("notebook-buttons.html").render(
        pathto=lambda path, resource: f"../{path}",
        notebook="notebooks/hedging.ipynb",
        notebook_launchers=launchers,
    )
    assert 'href="../notebooks/hedging.ipynb" download' in page
    assert page.count("<a ") == 1 + len(launchers)
    assert ("https://example.org/c" in page) == bool(launchers)
    assert "<a" not in templates.get_template("notebook-buttons.html").render()


def ran(*, number="1.5", holds=True, key="loss", prefix="", table="a"):
    """A notebook that ran: an install cell, a glued number, a claim, a table, and noise."""
    claim = {"application/vnd.bookkit.claim+json": {"id": "falls", "holds": holds}}
    outputs = [
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"id": number}}),
        new_output(
            "display_data",
            {f"{prefix}text/plain": number},
            metadata={"scrapbook": {"name": key}},
        ),
        new_output("display_data", claim),
        new_output("execute_result", {"text/plain": table}),
        new_output("stream", name="stderr", text=f"noise {number}"),
    ]
    install = new_code_cell("", metadata={"tags": ["install"]})
    install.outputs = [new_output("stream", name="stdout", text="Installing")]
    return new_notebook(cells=[install, new_code_cell("x", outputs=outputs)])


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({}, []),
        ({"prefix": HIDDEN}, []),
        (
            {"number": "1.5000000000000002"},
            ["glue 'loss', text/plain: '1.5' in the book, '1.5000000000000002' in the notebook"],
        ),
        ({"key": "l0"}, ["glue 'l0': in the notebook only", "glue 'loss': in the book only"]),
        (
            {"holds": False},
            [
                "claim 'falls', application/vnd.bookkit.claim+json, holds: "
                "True in the book, False in the notebook"
            ],
        ),
        (
            {"table": "b"},
            [
                "output 3 of code cell 1, text/plain: 'a' in the book, 'b' in the notebook",
            ],
        ),
    ],
)
def test_the_comparison_names_each_difference(changed, faults):
    assert runner.differences(runner.results(ran()), runner.results(ran(**changed))) == faults


def test_a_key_that_is_glued_twice_is_compared_twice():
    book, run = ran(), ran(number="2")
    book.cells += ran(number="3").cells[1:]
    run.cells += ran(number="3").cells[1:]
    assert runner.differences(runner.results(book), runner.results(run)) == [
        "glue 'loss', text/plain: '1.5' in the book, '2' in the notebook"
    ]


def test_what_a_clock_says_is_not_compared():
    timed = {"metadata": {"tags": ["clock"]}}
    book, run = ran(), ran()
    for notebook, seconds in ((book, "4.6"), (run, "5.1")):
        output = new_output("execute_result", {"text/plain": seconds})
        notebook.cells.append(new_code_cell("t", outputs=[output], **timed))
    assert runner.differences(runner.results(book), runner.results(run)) == []


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A site with two notebooks, and what the book gave for each."""
    monkeypatch.setattr(runner, "PUBLISHED", tmp_path)
    monkeypatch.setattr(runner, "of_book", lambda name: ran())
    for page in ("intro", "true_l0"):
        nbformat.write(ran(), tmp_path / f"{page}.ipynb")


def test_the_longest_runs_first_and_unknown_names_are_refused(site):
    assert runner.choose([]) == ["true_l0", "intro"]
    with pytest.raises(
        runner.RunError, match=r"no notebook gone; expected some of: intro, true_l0"
    ):
        runner.choose(["gone"])


def test_a_changed_number_ends_with_status_1_and_its_name(site, monkeypatch, capsys):
    def run(python, folder, name):
        nbformat.write(ran(number="2" if name == "intro" else "1.5"), folder / f"{name}.ipynb")
        return 0.5

    monkeypatch.setattr(runner, "prepare", lambda folder, names: sys.executable)
    monkeypatch.setattr(runner, "execute", run)
    assert runner.main(["true_l0"]) == 0
    assert runner.main([]) == 1
    told = capsys.readouterr()
    assert "intro: glue 'loss', text/plain: '1.5' in the book, '2' in the notebook" in told.out
    assert "1 of 2 notebooks" in told.err


def test_a_notebook_that_fails_ends_with_status_1_and_its_message(site, monkeypatch, capsys):
    def run(python, folder, name):
        return runner.call([sys.executable, "-c", "raise SystemExit('no such thing')"], folder)

    monkeypatch.setattr(runner, "prepare", lambda folder, names: sys.executable)
    monkeypatch.setattr(runner, "execute", run)
    assert runner.main(["intro"]) == 1
    assert "no such thing" in capsys.readouterr().out


def test_the_readers_shell_does_not_lead_back(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("VIRTUAL_ENV", str(ROOT / ".venv"))
    shell = runner.outside(tmp_path)
    assert "PYTHONPATH" not in shell and "VIRTUAL_ENV" not in shell
    assert shell["OMP_NUM_THREADS"] == "1"
    with pytest.raises(SystemExit):
        runner.main(["--help"])
    assert runner.main(["--keep", str(ROOT / "here")]) == 1


def test_published_json_has_no_path_of_this_machine(built):
    text = (built / "notebooks" / "index.ipynb").read_text()
    assert str(built.parent) not in text and str(ROOT) not in text
    assert json.loads(text)["metadata"]["kernelspec"]["name"] == "python3"
