"""The book's Sphinx extensions: the cache follows its inputs, and pages are mended."""

import os
from types import SimpleNamespace

import pytest
from docutils import nodes

from bookkit.sphinx import (
    execution_cache,
    figure_files,
    glossary_hints,
    site_mends,
    site_weight,
)
from bookkit.sphinx.claims import ledger
from bookkit.sphinx.claims.store import store as records_of


@pytest.fixture
def project(tmp_path):
    (tmp_path / "src" / "saebook").mkdir(parents=True)
    (tmp_path / "src" / "saebook" / "worlds.py").write_text("x = 1\n")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    return tmp_path


def test_the_digest_follows_the_library_and_finds_back(project):
    digest = execution_cache.inputs_digest
    module = project / "src" / "saebook" / "worlds.py"
    before = digest(project)
    module.write_text("x = 2\n")
    assert digest(project) != before
    module.write_text("x = 1\n")
    assert digest(project) == before


def test_comments_and_docstrings_execute_nothing(project):
    digest = execution_cache.inputs_digest
    before = digest(project)
    module = project / "src" / "saebook" / "worlds.py"
    module.write_text('"""Worlds."""\n\nx = 1  # one\n')
    assert digest(project) == before
    module.write_text("x = (")  # half an edit
    assert digest(project) != before


@pytest.mark.parametrize(
    "path",
    [
        "src/saebook/new.py",
        "src/bookkit/new.py",
        "requirements.txt",
        "pyproject.toml",
        "src/saebook/language/embedded/x.json",
    ],
)
def test_the_digest_covers(project, path):
    digest = execution_cache.inputs_digest
    before = digest(project)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("changed")
    assert digest(project) != before


@pytest.mark.parametrize("name", ["SAEBOOK_MODEL", "SAEBOOK_TEXT"])
def test_the_digest_follows_the_model_and_the_text_asked_for(project, monkeypatch, name):
    digest = execution_cache.inputs_digest
    monkeypatch.delenv(name, raising=False)
    before = digest(project)
    monkeypatch.setenv(name, "another")
    assert digest(project) != before


@pytest.mark.parametrize("setting", ["SAEBOOK_MODEL", "SAEBOOK_TEXT"])
@pytest.mark.parametrize("name", ["model.safetensors", "train/data.arrow"])
@pytest.mark.parametrize("is_relative", [True, False])
def test_the_digest_follows_the_content_of_a_folder_given_as_model_or_text(
    project, monkeypatch, setting, name, is_relative
):
    digest = execution_cache.inputs_digest
    file = project / "given" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"old")
    monkeypatch.setenv(setting, "given" if is_relative else str(project / "given"))
    before, time = digest(project), file.stat().st_mtime_ns
    file.write_bytes(b"new")
    os.utime(file, ns=(time, time))
    assert digest(project) != before
    file.write_bytes(b"old")
    assert digest(project) == before


def test_the_digest_follows_the_content_of_a_file_given_as_text(project, monkeypatch):
    digest = execution_cache.inputs_digest
    file = project / "[a] *.jsonl"
    file.write_text("old")
    monkeypatch.setenv("SAEBOOK_TEXT", str(file))
    before = digest(project)
    file.write_text("new")
    assert digest(project) != before


def test_a_folder_given_from_the_root_on_is_found_from_a_chapter(project, monkeypatch):
    (project / "models" / "mine").mkdir(parents=True)
    monkeypatch.setenv("SAEBOOK_MODEL", "models/mine")
    monkeypatch.setenv("SAEBOOK_TEXT", "NeelNanda/pile-10k")
    module = execution_cache
    before = module.inputs_digest(project)
    module._fix_places(project)
    assert os.environ["SAEBOOK_MODEL"] == str(project / "models" / "mine")
    assert os.environ["SAEBOOK_TEXT"] == "NeelNanda/pile-10k"
    assert module.inputs_digest(project) == before


LEFT_BEHIND = ".DS_Store ._x.py .git/index .cache/x.json .x.py.swp x.py~ #x.py# x.bak x.py.orig"
LEFT_BEHIND += " __pycache__/x.pyc saebook.egg-info/PKG-INFO Thumbs.db"


@pytest.mark.parametrize("name", LEFT_BEHIND.split())
@pytest.mark.parametrize(
    "folder", ["src/saebook/language/embedded", "src/saebook", "book/_static", "given"]
)
def test_what_systems_and_editors_leave_behind_is_no_input(project, monkeypatch, folder, name):
    module = execution_cache
    (project / "given").mkdir()
    monkeypatch.setenv("SAEBOOK_MODEL", str(project / "given"))
    before = module.inputs_digest(project), module.site_digest(project)
    (project / folder / name).parent.mkdir(parents=True, exist_ok=True)
    (project / folder / name).write_text("left behind")
    assert (module.inputs_digest(project), module.site_digest(project)) == before


@pytest.mark.parametrize("path", ["book/intro.md", "README.md", "tests/test_x.py", "_config.yml"])
def test_the_digest_leaves_out(project, path):
    digest = execution_cache.inputs_digest
    before = digest(project)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("changed")
    assert digest(project) == before


@pytest.mark.parametrize(
    "path", ["book/_static/saebook.css", "book/_templates/layout.html", "src/bookkit/sphinx/new.py"]
)
def test_a_change_of_style_template_or_extension_makes_all_pages_anew(project, path):
    digests = execution_cache
    before = digests.site_digest(project), digests.inputs_digest(project)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("changed")
    assert digests.site_digest(project) != before[0]
    assert digests.inputs_digest(project) == before[1]  # and executes nothing


def test_a_renamed_module_changes_the_digest(project):
    digest = execution_cache.inputs_digest
    before = digest(project)
    (project / "src" / "saebook" / "worlds.py").rename(project / "src" / "saebook" / "other.py")
    assert digest(project) != before


def test_the_oldest_caches_are_pruned(tmp_path):
    for age in range(7):
        (tmp_path / f"cache{age}").mkdir()
        os.utime(tmp_path / f"cache{age}", (1000 - age, 1000 - age))
    execution_cache.prune(tmp_path, keep=5)
    assert {path.name for path in tmp_path.iterdir()} == {f"cache{age}" for age in range(5)}


def test_half_written_outputs_are_forgotten_and_whole_ones_kept(tmp_path):
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from nbformat.v4 import new_code_cell, new_notebook

    store = get_cache(tmp_path)
    for name in ("whole", "torn", "gone"):
        notebook = new_notebook(cells=[new_code_cell(name, execution_count=1)])
        store.cache_notebook_bundle(CacheBundleIn(notebook, name))
    files = {
        record.uri: tmp_path / "executed" / record.hashkey / "base.ipynb"
        for record in store.list_cache_records()
    }
    files["torn"].write_text(files["torn"].read_text()[:-9])
    files["gone"].unlink()
    execution_cache.drop_torn(tmp_path)
    assert [record.uri for record in store.list_cache_records()] == ["whole"]
    assert [name for name, file in files.items() if file.parent.exists()] == ["whole"]


def chapter(tags, *, code="x = 1", **metadata):
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    output = new_output("stream", name="stdout", text="x")
    cell = new_code_cell(code, metadata={"tags": tags, **metadata}, outputs=[output])
    return new_notebook(cells=[cell])


@pytest.fixture
def store(tmp_path):
    """A cache that holds one chapter, whose cell is hidden."""
    from jupyter_cache.base import CacheBundleIn

    cache = execution_cache.ChapterCache(tmp_path)
    executed = CacheBundleIn(chapter(["hide-input"]), "chapter")
    cache.cache_notebook_bundle(executed, check_validity=False)
    return cache


@pytest.mark.parametrize(
    ("tags", "metadata"),
    [([], {}), (["remove-cell", "a"], {}), ([], {"mystnb": {"image": {"alt": "A"}}})],
)
def test_how_a_cell_is_shown_does_not_change_its_outputs(store, tags, metadata):
    _, merged = store.merge_match_into_notebook(chapter(tags, **metadata))
    assert merged.cells[0].outputs[0].text == "x"
    assert merged.cells[0].metadata == {"tags": tags, **metadata}


@pytest.mark.parametrize("tag", ["raises-exception", "skip-execution", "remove-stderr"])
def test_a_tag_that_changes_what_runs_asks_for_other_outputs(store, tag):
    with pytest.raises(KeyError):
        store.match_cache_notebook(chapter(["hide-input", tag]))


def test_other_code_asks_for_other_outputs(store):
    with pytest.raises(KeyError):
        store.match_cache_notebook(chapter(["hide-input"], code="x = 2"))


def mended(body):
    context = {"body": body}
    site_mends._mend_page(None, "page", "page.html", context, None)
    return context["body"]


def test_bibliography_entries_become_list_items():
    assert mended('<div role="doc-biblioentry">') == '<div role="listitem">'


def test_the_corner_of_a_table_is_no_empty_header():
    table = (
        '<table border="1" class="dataframe"><thead><tr style="x"><th></th><th>a</th></tr></thead>'
        "<tbody><tr><th>0</th><td>1</td></tr></tbody></table>"
    )
    html = mended(table)
    assert '<tr style="x"><td></td><th>a</th>' in html
    assert '<th scope="row">0</th>' in html
    assert html.startswith('<div class="pst-scrollable-table-container" tabindex="0"><table')


def test_numbers_in_sentences_have_a_minus_and_names_keep_their_hyphen():
    assert mended('<span class="pasted-text">-0.67</span>') == (
        '<span class="pasted-text">−0.67</span>'
    )
    assert mended('<span class="pasted-text">k-means</span>').count("-") == 2
    assert mended("<td>-0.67</td><td>k-means</td>") == "<td>−0.67</td><td>k-means</td>"
    assert mended("<td>-0.00</td><td>-0</td>") == "<td>0.00</td><td>0</td>"
    assert mended("<td>-0.001</td>") == "<td>−0.001</td>"


def test_no_line_breaks_between_a_formula_and_its_comma():
    formula = r'<span class="math notranslate nohighlight">\(k &lt; 2\)</span>'
    assert mended(f"{formula}, or") == f'<span class="unbroken">{formula},</span> or'
    assert mended(f"{formula} or") == f"{formula} or"


def test_a_list_of_uses_opens_with_a_button_without_a_link():
    assert mended('<summary>Expand for references to <a href="#x">x</a></summary>') == (
        "<summary>Used in</summary>"
    )


def test_boxes_do_not_share_an_id():
    theorem = '<div class="proof theorem admonition" id="thm-x">'
    content = '<section class="theorem-content" id="proof-content">'
    html = mended(theorem + content + '<div class="proof admonition" id="proof">')
    assert html.count(" id=") == 1
    assert 'id="thm-x"' in html


def test_scripts_of_a_kernel_server_are_dropped():
    script = SimpleNamespace(filename="_static/sphinx-thebe.js", attributes={})
    other = SimpleNamespace(filename="_static/doctools.js", attributes={})
    context = {"script_files": [script, other], "css_files": []}
    site_mends._mend_page(None, "page", "page.html", context, None)
    assert context["script_files"] == [other]


@pytest.mark.parametrize(
    ("address", "prefix"),
    [("", "/"), ("https://example.org/", "/"), ("https://example.org/book", "/book/")],
)
def test_the_404_page_follows_the_address_of_the_site(monkeypatch, address, prefix):
    monkeypatch.setenv("BOOK_BASEURL", address)
    config = SimpleNamespace(html_baseurl="", html_title="A book")
    site_mends._place_site(None, config)
    assert config.notfound_urls_prefix == prefix


@pytest.mark.parametrize("address", ["", "https://example.org/book/"])
def test_with_an_address_pages_can_be_shared_and_are_listed(monkeypatch, address):
    monkeypatch.setenv("BOOK_BASEURL", address)
    extensions = []
    site_mends.setup(
        SimpleNamespace(setup_extension=extensions.append, connect=lambda *a, **options: None)
    )
    assert extensions == (["sphinxext.opengraph", "sphinx_sitemap"] if address else [])
    config = SimpleNamespace(html_baseurl="", html_title="A book")
    site_mends._place_site(None, config)
    assert getattr(config, "ogp_site_url", "") == address


def test_a_citation_key_becomes_a_reference_and_other_sources_stay_text():
    assert ledger.source_node("chanin2025sparse", "page")["reftarget"] == "chanin2025sparse"
    assert ledger.source_node("saeproposal", "page")["reftarget"] == "saeproposal"
    assert ledger.source_node("Section 3 of 2025", "page") == "Section 3 of 2025"


def test_the_ledger_reads_what_claims_write():
    from bookkit import claims

    assert ledger.MIME == claims.MIME


def test_the_ledger_says_how_many_claims_there_are_and_whether_all_hold():
    plain = {"published": "–", "holds": True}
    claims_found = [plain, plain | {"published": "4.88"}]
    counted = ledger.counted
    assert counted(claims_found).startswith("The book checks 2 claims, 1 of them beside a")
    assert "Every one holds" in counted(claims_found)
    assert "Here 1 of them does not hold" in counted([*claims_found, plain | {"holds": False}])


def test_records_of_pages_read_in_another_process_are_merged():
    ours, theirs = SimpleNamespace(), SimpleNamespace()
    records_of(ours)["claims"]["a"] = [{"id": "one"}]
    records_of(theirs)["claims"].update({"b": [{"id": "two"}], "stale": [{"id": "old"}]})
    records_of(theirs)["pages"].update({"b", "stale"})
    collector = ledger.ClaimsCollector()
    collector.merge_other(None, ours, {"b"}, theirs)
    assert records_of(ours)["claims"] == {"a": [{"id": "one"}], "b": [{"id": "two"}]}
    assert records_of(ours)["pages"] == {"b"}
    collector.clear_doc(None, ours, "b")
    assert records_of(ours)["claims"] == {"a": [{"id": "one"}]}
    assert records_of(ours)["pages"] == set()


@pytest.mark.parametrize(
    ("definition", "sentence"),
    [
        ("A unit of an SAE. It fires.", "A unit of an SAE."),
        ("A number\n  on two lines. More.", "A number on two lines."),
        ("Sparse, e.g.of rank 1.5 only", "Sparse, e.g.of rank 1.5 only"),
    ],
)
def test_a_hint_is_the_first_sentence(definition, sentence):
    assert glossary_hints.first_sentence(definition) == sentence


def test_links_to_terms_get_hints_and_other_links_none():
    term = nodes.inline("", "", nodes.inline("", "latents", classes=["xref", "std", "std-term"]))
    links = [
        nodes.reference("", "", term, refuri="glossary.html#term-latent"),
        nodes.reference("", "", nodes.Text("other"), refuri="glossary.html#term-latent"),
    ]
    builder = SimpleNamespace(get_relative_uri=lambda here, there: f"{there}.html")
    env = SimpleNamespace(book_definitions={"glossary#term-latent": "A unit of an SAE."})
    document = nodes.section("", *links)
    glossary_hints._add_hints(SimpleNamespace(builder=builder, env=env), document, "x")
    assert [link.get("reftitle") for link in links] == ["A unit of an SAE.", None]


SVG = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
CSV = "data:text/csv;charset=utf-8,x%2Cy%0A1%2C2%0A"


def moved(body, page="book/page"):
    files = {}
    written = figure_files.with_files(body, page, lambda path: f"../{path}", files.__setitem__)
    return written, files


def test_drawings_become_files_and_keep_their_attributes():
    body, files = moved(f'<img class="a" src="{SVG}" alt="x" width="9" loading="lazy">')
    (path,) = files
    assert files[path].endswith(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert body == f'<img class="a" src="../{path}" alt="x" width="9" loading="lazy">'


def test_equal_drawings_are_one_file_and_others_are_not():
    other = SVG.replace("svg xml", "svg id='a' xml")
    body, files = moved(f'<img src="{SVG}"><li data-light="{SVG}" data-dark="{other}">')
    assert len(files) == 2
    assert "data:" not in body


def test_a_table_is_named_by_its_page_and_its_figure():
    body, files = moved(f'<figure class="c" id="fig-x"><a download="figure.csv" href="{CSV}">D</a>')
    assert files == {"_data/page-fig-x.csv": b"x,y\n1,2\n"}
    assert '<a download="page-fig-x.csv" href="../_data/page-fig-x.csv">' in body


def test_a_table_outside_a_figure_and_a_second_one_have_names_of_their_own():
    link = f'<a download="figure.csv" href="{CSV}">D</a>'
    _, files = moved(f'<figure id="f">{link}{link.replace("y", "z")}</figure>{link}')
    names = sorted(files)
    assert len(names) == 3 and names[-1] != names[-2]
    assert names[1].startswith("_data/page-f") and names[2].startswith("_data/page-f")


def test_other_data_addresses_stay():
    body = '<a href="data:text/plain,x">x</a>'
    assert moved(body) == (body, {})


@pytest.mark.parametrize("colours", [2, 3000])
def test_a_small_png_has_the_same_pixels(colours):
    import io

    import numpy as np
    from PIL import Image

    values = np.arange(64 * 64) % colours
    pixels = np.stack([values % 256, values // 256, values * 0, values * 0 + 255], axis=-1)
    image = Image.fromarray(pixels.astype(np.uint8).reshape(64, 64, 4))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    small = figure_files.small_png(buffer.getvalue())
    assert len(small) < len(buffer.getvalue())
    assert Image.open(io.BytesIO(small)).convert("RGBA").tobytes() == image.tobytes()


def test_files_that_no_page_names_are_removed(tmp_path):
    for name in ("_images/fig-old.svg", "_images/fig-new.svg", "_images/photo.png", "_data/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "page.html").write_text('<li data-dark="_images/fig-new.svg">')
    figure_files.remove_unnamed(tmp_path)
    left = {path.name for path in tmp_path.rglob("*.*")}
    assert left == {"fig-new.svg", "photo.png", "page.html"}


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        (".on{a:b}.off{a:b}", ".on{a:b}"),
        (".on,.off,p{a:b}", ".on,p{a:b}"),
        (".on .off,.on:not(.off){a:b}", ".on:not(.off){a:b}"),
        ("@media print{.off{a:b}p{a:b}}", "@media print{p{a:b}}"),
        (':is(.off,.on) a[href$=".pdf"]{a:b}', ':is(.off,.on) a[href$=".pdf"]{a:b}'),
        ("p:is(.off,.on:not(.off)),b{a:b}", "p:is(.off,.on:not(.off)),b{a:b}"),
        (
            "/*! MIT */ /* by example.com */p{a:b}.bs-tip-end{a:b}",
            "/*! MIT */ p{a:b}.bs-tip-end{a:b}",
        ),
    ],
)
def test_a_style_sheet_keeps_the_rules_that_can_fit_a_page(css, kept):
    assert site_weight.keep_rules(css, {"on"}) == kept


def described(doctree, **context):
    app = SimpleNamespace(config=SimpleNamespace(html_title="A book"))
    site_mends._describe(app, "search", "page.html", context, doctree)
    return context["metatags"]


def test_a_page_is_described_by_its_first_paragraph():
    page = nodes.section(
        "", nodes.paragraph(text="You need: X."), nodes.paragraph(text='An "SAE".')
    )
    assert described(page) == '<meta name="description" content="An &quot;SAE&quot;."/>'
    long = nodes.section("", nodes.paragraph(text="word " * 99))
    assert len(described(long)) < 200
    assert 'content="Search: A book"' in described(None)
    assert 'content="Index: A book"' in described(None, title="Index")


def test_scripts_wait_until_the_page_shows(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<html data-theme="auto"><script>x = localStorage.getItem("theme") || "auto";</script>'
        '<script src="documentation_options.js"></script><script id="a" src="a.js"></script>'
        '<script defer src="b.js"></script>'
    )
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=tmp_path)
    site_mends._mend_files(app, None)
    mended = page.read_text()
    assert '<html data-theme="light">' in mended and '"auto"' not in mended
    assert '<script src="documentation_options.js">' in mended
    assert '<script defer id="a" src="a.js">' in mended
    assert '<script defer src="b.js">' in mended
