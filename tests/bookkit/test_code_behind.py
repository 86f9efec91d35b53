import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bookkit.chapters import code_of
from bookkit.code_behind import code_digest, files_behind, meaning, said_and_asked

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "saebook/__init__.py": "if TYPE_CHECKING:\n    from saebook.saes import f as f\n",
    "saebook/alone.py": "import torch\n",
    "saebook/saes/__init__.py": "from saebook.saes.one import f\n"
    "from saebook.saes.two import g as h\n",
    "saebook/saes/one.py": "from saebook.saes._base import start\nfrom sae_lens import SAE\n",
    "saebook/saes/two.py": "",
    "saebook/saes/_base.py": "",
    "saebook/saes/weights.safetensors": "w",
    "saebook/worlds/__init__.py": "from saebook.worlds.tree import grow\n",
    "saebook/worlds/tree.py": "import saebook.alone\n",
    "bookkit/claims.py": "",
}
ONE = {"saebook/saes/one.py", "saebook/saes/_base.py", "saebook/saes/weights.safetensors"}
TWO = {"saebook/saes/two.py", "saebook/saes/weights.safetensors"}
TREE = {"saebook/worlds/tree.py", "saebook/alone.py"}


@pytest.fixture
def library(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("import torch\nfrom json import loads", set()),
        ("from saebook.saes import f", ONE),
        ("from saebook.saes import h as again", TWO),
        ("from saebook import f", ONE),
        ("from saebook import saes\nsaes.h()\nsaes.h.name", TWO),
        ("from saebook import saes as kinds\nkinds.f()\nsaes.h()", ONE),
        (
            "from saebook import saes\nsaes.h()\nprint(saes)",
            ONE | TWO | {"saebook/saes/__init__.py"},
        ),
        ("from saebook import alone, worlds\nworlds.grow()", TREE),
        ("import saebook.alone", {"saebook/alone.py"}),
        ("from saebook.saes.two import anything", TWO),
        ("from bookkit import claims\nclaims.check()", {"bookkit/claims.py"}),
    ],
)
def test_the_modules_behind_the_names_that_are_used(library, code, files):
    found = files_behind(library, ast.parse(code))
    assert {path.relative_to(library / "src").as_posix() for path in found} == files
    assert found == sorted(found)


def test_a_new_function_in_a_module_of_its_own_leaves_others_alone(library):
    tree = ast.parse("from saebook import saes\nsaes.f()")
    before = files_behind(library, tree)
    (library / "src/saebook/saes/three.py").write_text("")
    init = library / "src/saebook/saes/__init__.py"
    init.write_text(init.read_text() + "from saebook.saes.three import i\n")
    assert files_behind(library, tree) == before


def test_a_chapter_rests_on_what_it_trains_with_and_not_on_other_chapters_parts():
    page = (ROOT / "book" / "hedging.md").read_text(encoding="utf-8")
    found = {
        path.relative_to(ROOT / "src").as_posix() for path in files_behind(ROOT, code_of(page))
    }
    assert {"saebook/training/engine/stack.py", "saebook/worlds/finite.py"} <= found
    assert not any(name.startswith(("saebook/language", "saebook/toy_models")) for name in found)


@pytest.fixture
def project(tmp_path):
    for name, text in {
        "src/saebook/language/x.py": "'''X.'''\n\nimport torch\n\n\ndef f(a):\n    '''Add one.'''\n"
        "    return a + 1\n",
        "src/saebook/language/embedded/weights.safetensors": "w",
        "src/bookkit/replications.py": "ROOM = 1\n",
        "requirements.txt": "torch==2.13.0  # arithmetic\nruff==1\nsympy==1.14\n",
        "book/chapter.md": "# T\n\n```{code-cell}\nfrom saebook.language.x import f\nx = 1\n```\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "same"),
    [
        ("src/saebook/language/x.py", "Add one", "Add 1", True),
        ("src/saebook/language/x.py", "return a + 1", "return (a  +  1)  # sum", True),
        ("src/saebook/language/x.py", "a + 1", "a + 2", False),
        ("src/saebook/language/embedded/weights.safetensors", "w", "v", False),
        ("src/bookkit/replications.py", "1", "2", True),
        ("requirements.txt", "arithmetic", "products", True),
        ("requirements.txt", "2.13.0", "2.14.0", False),
        ("requirements.txt", "sympy==1.14", "sympy==1.15", False),  # torch requires it
        ("requirements.txt", "ruff==1", "ruff==2", True),
        ("book/chapter.md", "# T", "# Another title", True),
        ("book/chapter.md", "x = 1", "x  =  1  # one", True),
        ("book/chapter.md", "x = 1", "x = 2", False),
    ],
)
def test_the_digest_of_code_sees_code_only(project, name, old, new, same):
    before = code_digest(project, project / "book" / "chapter.md")
    path = project / name
    path.write_text(path.read_text().replace(old, new))
    assert (code_digest(project, project / "book" / "chapter.md") == before) is same


CLAIM = 'claims.check("a", "One.", [claims.at_least(x, 1)], value=x)'


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ('claims.check("a", "Two.", [claims.at_least(x, 2, "all")], source="b", value=x)', True),
        ('claims.check("a", "One.", [claims.at_least(x, -1.5)], published="1", value=x)', True),
        ('claims.check("a", "One.", [claims.at_least(y, 1)], value=x)', False),
        ('claims.check("a", "One.", [claims.at_most(x, 1)], value=x)', False),
        ('claims.check("a", "One.", [claims.at_least(x, y)], value=x)', False),
        ('claims.check("a", "One.", [claims.at_least(x, 1)], value=y)', False),
        ('claims.check("b", "One.", [claims.at_least(x, 1)], value=x)', False),
    ],
)
def test_a_claim_is_no_code_and_what_it_asks_has_neither_words_nor_bounds(project, new, same):
    page = project / "book" / "chapter.md"
    text = page.read_text()
    page.write_text(text.replace("x = 1", CLAIM))
    before, asked = code_digest(project, page), said_and_asked(page)
    page.write_text(text.replace("x = 1", new))
    assert code_digest(project, page) == before
    assert said_and_asked(page)["run/said"] != asked["run/said"]
    assert (said_and_asked(page).get("claim/a/asks") == asked["claim/a/asks"]) is same


def test_a_claim_whose_value_is_used_is_code(project):
    page = project / "book" / "chapter.md"
    before = code_digest(project, page)
    page.write_text(page.read_text().replace("x = 1", f"x = 1\n{CLAIM}\nothers.check(x)"))
    with_call = code_digest(project, page)
    page.write_text(page.read_text().replace(CLAIM, f"found = {CLAIM}"))
    assert len({before, with_call, code_digest(project, page)}) == 3


def test_half_an_edit_means_its_own_text(tmp_path):
    half = tmp_path / "x.py"
    half.write_text("x = (")
    assert meaning(half) == b"x = ("


def test_two_threads_can_take_digests_at_once():
    book = ROOT / "book" / "true_l0.md"
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: code_digest(ROOT, book), range(8)))) == 1
