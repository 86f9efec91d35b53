"""The table of replications: what is kept, what is live, and what it says of a claim."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from bookkit import claims
from bookkit import replications as table
from bookkit.claims import at_least, at_most
from bookkit.sphinx.claims import ledger, numbers, shares

ROOT = Path(__file__).resolve().parents[2]
Run = table.Run


def run(shift=0, *, code="new", processor="this", environment="machine", **values):
    names = {key.replace("__", "/"): str(value) for key, value in values.items()}
    return Run(
        shift=shift,
        environment=environment,
        processor=processor,
        code=code,
        seconds=1,
        values=names,
    )


def number(value, *, least=None, most=None, rest=1, low=None, high=None):
    """The rows of a claim with one number."""
    rows = {"value": value, "least": least, "most": most, "low": low, "high": high}
    found = {f"claim__c__1__{key}": each for key, each in rows.items() if each is not None}
    return found | {"claim__c__rest": rest}


def record_of(runs, now, name="claim/c"):
    return table.records(runs, now)[name]


# What a run found


@pytest.mark.filterwarnings("ignore::bookkit.claims.ClaimWarning")
def test_a_claim_leaves_its_numbers_bounds_and_the_rest():
    parts = [at_least(0.25, 0.125), at_most([1.0, 3.0], 9), False]
    found = table.of_claim(claims.check("c", "C", parts).payload())
    assert found["claim/c/rest"] == "0"
    assert (found["claim/c/1/value"], found["claim/c/1/least"]) == ("0.25", "0.125")
    assert (found["claim/c/2/value"], found["claim/c/2/n"]) == ("2", "2")
    assert float(found["claim/c/2/high"]) == pytest.approx(2 + 12.7062, abs=1e-4)
    assert not {"claim/c/1/most", "claim/c/1/low", "claim/c/words"} & found.keys()


def test_a_claim_without_numbers_leaves_a_digest_of_what_it_says_and_shows():
    def words(statement, value):
        payload = claims.check("c", statement, True, value=value).payload()
        return table.of_claim(payload)["claim/c/words"]

    assert words("C", 1) == words("C", 1)
    assert len({words("C", 1), words("C", 2), words("D", 1)}) == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [("0.123456789", "0.123457"), ("48", "48"), ("'0.5'", "0.5"), ("'none'", None), ("", None)],
)
def test_a_glued_value_is_kept_if_it_is_a_number(text, found):
    assert table.of_glue("x", text) == ({"glue/x": found} if found else {})


def test_a_notebook_leaves_claims_glued_numbers_and_raised_errors():
    payload = claims.check("c", "C", at_least(2, 1)).payload()
    glued = {"scrapbook": {"name": "x", "mime_prefix": "application/papermill.record/"}}
    outputs = [
        new_output("display_data", {table.CLAIM: payload, "text/plain": "✓"}),
        new_output(
            "display_data", {"application/papermill.record/text/plain": "7"}, metadata=glued
        ),
        new_output("stream", text="noise"),
        new_output("error", ename="ValueError", evalue="no", traceback=[]),
    ]
    cells = [new_code_cell("a"), new_code_cell("b", outputs=outputs)]
    found = table.of_notebook(new_notebook(cells=cells))
    assert found["claim/c/1/value"] == "2"
    assert found["glue/x"] == "7"
    assert found["raised/1"] == "ValueError: no"


# The table

NAMES = st.sampled_from(["claim/a/rest", "claim/a/1/value", "glue/x", "raised/3"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)
RUNS = st.builds(
    Run,
    shift=st.integers(0, 3),
    environment=st.sampled_from(["machine", "avx2"]),
    processor=st.sampled_from(["this", 'an "other", family 6']),
    code=st.sampled_from(["old", "new"]),
    seconds=st.integers(0, 999).map(float),
    values=st.dictionaries(NAMES, TEXTS),
)


@given(st.lists(RUNS, unique_by=lambda r: r.key))
def test_a_table_reads_back_as_it_was_written(tmp_path_factory, runs):
    path = tmp_path_factory.mktemp("t") / "chapter.csv"
    table.write(path, runs)
    assert table.read(path) == sorted(runs, key=lambda r: r.key)
    assert [each.name for each in path.parent.iterdir()] == ["chapter.csv"]


def test_no_file_is_no_runs(tmp_path):
    assert table.read(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must be a table of replications"),
        ("name,0 machine\nrun/shift,0\n", "must be a table of replications"),
        ("quantity,0 machine\nrun/shift\n", "equally long rows"),
        ("quantity,0 machine\nrun/shift,0\n", "must have the rows run/environment, run/processor"),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path, text, fault):
    (tmp_path / "chapter.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"chapter\.csv .*{fault}|chapter\.csv {fault}"):
        table.read(tmp_path / "chapter.csv")


def test_a_run_takes_the_place_of_an_earlier_one_of_its_kind_only():
    old, other = run(1, code="old"), run(1, environment="avx2")
    assert table.with_run([old, other], new := run(1)) == [other, new]


def test_own_draws_stay_while_replications_of_their_code_do():
    runs = [run(code="old"), run(1, code="old")]
    runs = table.with_run(runs, run())
    assert [r.code for r in runs] == ["old", "old", "new"]
    assert table.with_run(runs, run(1)) == [run(), run(1)]


# What is live


def test_replications_of_the_same_code_are_live():
    now = run(**number(0.5, least=0.1))
    runs = [run(1, **number(0.4, least=0.1)), run(2, code="old", **number(0.3, least=0.1))]
    assert record_of(runs, now).held == (True,)


def test_replications_of_other_code_are_live_where_its_own_draw_is_todays():
    now = run(**number(0.5, least=0.1), glue__x=1, glue__y=2)
    old_draw = run(code="old", **number(0.5, least=0.1), glue__x=1, glue__y=3)
    runs = [old_draw, run(1, code="old", **number(0.4, least=0.1), glue__x=5, glue__y=6)]
    found = table.records(runs, now)
    assert found["claim/c"].held == (True,)  # a refactoring that has not moved this number
    assert found["glue/x"].ranges == ((5, 5),)
    assert found["glue/y"].ranges == ()  # the change has moved this one


def test_confirmed_replications_get_todays_code_and_others_keep_theirs():
    now = run(glue__x=1, glue__y=2)
    old_draw = run(code="old", glue__x=1, glue__y=2)
    assert table.renewed([old_draw, run(1, code="old", glue__x=5, glue__y=6)], now) == [
        run(1, glue__x=5, glue__y=6),
        now,
    ]
    moved = [run(code="old", glue__x=1, glue__y=3), run(1, code="old", glue__x=5, glue__y=6)]
    assert table.renewed(moved, now) == [*moved, now]


def test_confirmed_replications_get_todays_bounds_where_these_are_constants():
    now = run(**number(0.5, least=0.3, most=0.8))
    old = [run(code="old", **number(0.5, least=0.1, most=0.7))]
    old += [run(1, code="old", **number(0.2, least=0.1, most=0.6))]
    replication = table.renewed(old, now)[0]
    assert replication.values["claim/c/1/least"] == "0.3"  # a constant that a writer moved
    assert replication.values["claim/c/1/most"] == "0.6"  # computed in each run


def test_own_draws_of_another_processor_do_not_tell():
    now = run(**number(0.5, least=0.1))
    runs = [run(code="old", processor="other", **number(0.5, least=0.1)), run(1, code="old")]
    assert record_of(runs, now).held == ()


def test_a_claim_with_another_number_more_is_another_claim():
    now = run(**number(0.5, least=0.1), claim__c__2__value=1)
    runs = [run(code="old", **number(0.5, least=0.1)), run(1, code="old", **number(0.5, least=0.1))]
    assert record_of(runs, now).held == ()


def test_a_claim_that_asks_something_else_is_another_claim():
    now = run(**number(0.5, least=0.1), claim__c__asks="new")
    asked = [
        run(i, **number(0.4, least=0.1), claim__c__asks=a) for i, a in enumerate(["new", "old"])
    ]
    assert record_of([*asked[1:], run(3, **number(0.4), claim__c__asks="new")], now).held == (True,)


def test_a_claim_without_numbers_is_live_while_its_words_stay():
    words = {"claim__c__rest": 1, "claim__c__words": "abc"}
    runs = [run(code="old", **words), run(1, code="old", **words)]
    assert record_of(runs, run(**words)).held == (True,)
    assert record_of(runs, run(**words | {"claim__c__words": "xyz"})).held == ()


# What replications say


def test_a_claim_held_where_its_interval_kept_the_bounds_and_the_rest_was_true():
    now = run(**number(0.5, least=0.1, most=0.9))
    found = [
        number(0.4, least=0.1, most=0.9),
        number(0.05, least=0.1, most=0.9),
        number(0.95, least=0.1, most=0.9),
        number(0.4, low=0.05, high=0.5, least=0.1, most=0.9),
        number(0.4, low=0.3, high=0.5, least=0.1, most=0.9),
        number(0.4, least=0.1, most=0.9, rest=0),
    ]
    runs = [run(i, **values) for i, values in enumerate(found, start=1)]
    assert record_of(runs, now).held == (True, False, False, False, True, False)


def test_a_claim_that_a_failing_cell_left_out_did_not_hold():
    now = run(**number(0.5, least=0.1))
    assert record_of([run(1, raised__3="ValueError")], now).held == (False,)


def test_a_constant_bound_that_was_moved_is_judged_anew():
    now = run(**number(0.5, least=0.3))
    runs = [run(code="old", **number(0.5, least=0.1))]
    runs += [run(i, code="old", **number(v, least=0.1)) for i, v in [(1, 0.4), (2, 0.2)]]
    assert record_of(runs, now).held == (True, False)


def test_a_constant_bound_is_one_also_beside_replications_of_the_newer_code():
    now = run(**number(0.5, least=0.3))
    runs = [run(code="old", **number(0.5, least=0.1)), run(1, code="old", **number(0.4, least=0.1))]
    runs += [run(2, **number(0.2, least=0.3)), run(3, raised__3="ValueError")]
    assert record_of(runs, now).held == (True, False, False)


def test_a_constant_bound_that_was_moved_is_judged_anew_though_it_is_no_code():
    now = run(**number(0.5, least=0.3))
    runs = [run(**number(0.5, least=0.1))]
    runs += [run(i, **number(v, least=0.1)) for i, v in [(1, 0.4), (2, 0.2)]]
    assert record_of(runs, now).held == (True, False)


def test_a_bound_that_each_run_computes_is_its_own():
    now = run(**number(0.5, least=0.3))
    runs = [run(1, **number(0.4, least=0.35)), run(2, **number(0.4, least=0.45))]
    assert record_of(runs, now).held == (True, False)


def test_ranges_and_environments_are_those_of_live_replications():
    now = run(**number(0.5, least=0.1))
    runs = [
        run(i, environment=name, **number(value, least=0.1))
        for i, (name, value) in enumerate([("machine", 0.4), ("avx2", 0.7), ("avx2", 0.6)], 1)
    ]
    record = record_of([*runs, run(9, code="old", **number(5, least=0.1))], now)
    assert record.ranges == ((0.4, 0.7),)
    assert record.environments == ("machine", "avx2", "avx2")


def test_room_is_the_mean_distance_from_the_bound_in_standard_deviations():
    now = run(**number(0.5, least=0.1))
    runs = [run(i, **number(value, least=0.1)) for i, value in enumerate([0.3, 0.4, 0.5], 1)]
    assert record_of(runs, now).room == pytest.approx(0.3 / 0.1)
    assert record_of(runs[:1], now).room == math.inf
    assert record_of([runs[0], dataclasses.replace(runs[0], shift=2)], now).room == math.inf


# Seeds


DRAWS = """
import numpy as np, torch
from sklearn.cluster import KMeans
x = np.random.RandomState(0 if {plain} else -{shift}).rand(30, 2)
draws = [
    torch.rand(1, generator=torch.Generator().manual_seed({seed})).item(),
    (torch.manual_seed({seed}), torch.rand(1).item())[1],
    (torch.random.manual_seed({seed}), torch.rand(1).item())[1],
    np.random.default_rng({seed}).random(),
    np.random.RandomState({seed}).rand(),
    (np.random.seed({seed}), np.random.rand())[1],
    KMeans(3, n_init=1, max_iter=1, random_state={seed}).fit(x).inertia_,
]
print(draws)
"""


def draws(seed, shift):
    start = f"exec(open({str(ROOT / 'tools' / 'shift_seeds.py')!r}).read())"
    code = start + DRAWS.format(seed=seed, shift=shift, plain=shift == 0)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SEED_SHIFT": str(shift), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_kind_of_seed_is_shifted():
    assert draws(3, 10) == draws(13, 0)
    assert draws(3, 10) != draws(3, 0)


def test_the_shift_leaves_no_name_in_the_chapter():
    read = f"exec(open({str(ROOT / 'tools' / 'shift_seeds.py')!r}).read())"
    left = "[name for name in globals() if name not in known and name[:2] != '__']"
    code = f"known = {{*globals(), 'known'}}; {read}; print({left})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SEED_SHIFT": "5", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


# What the pages say


def test_the_ledger_says_how_often_a_claim_held_and_over_which_range():
    record = table.Record(is_claim=True, held=(True, False), values=((-0.51234, 2),))
    assert ledger.how_often(record) == ["held in 1 of 2", "−0.512 to 2"]
    assert ledger.how_often(table.Record(is_claim=True)) == ["none yet"]


def test_the_ledger_counts_replicated_and_fallen_claims():
    good = table.Record(is_claim=True, held=(True,) * 8, environments=("a", "b") * 4)
    fell = table.Record(is_claim=True, held=(True, False), environments=("a", "c"))
    glued = table.Record(is_claim=False)
    text = ledger.replicated([good, fell, glued])
    assert text.startswith("1 of 2 claims have 8 or more live replications, in 3 numerical")
    assert text.endswith("1 fell in any.")
    assert ledger.replicated([good]).endswith("none fell in any.")
    assert "None of the claims" in ledger.replicated([table.Record(is_claim=True)])


@pytest.mark.parametrize(
    ("ranges", "fmt", "text"),
    [
        (((0.211, 0.254),), ".2f", "0.21 to 0.25 in 3 replications"),
        (((0.211, 0.214),), ".2f", ""),
        (((0.211, 0.254),), "s", ""),
        ((), ".2f", ""),
    ],
)
def test_a_number_tells_its_range_in_its_own_format(ranges, fmt, text):
    record = table.Record(is_claim=False, values=ranges, environments=("a", "b", "c"))
    assert numbers.range_of(record, fmt) == text
    assert numbers.range_of(None, fmt) == ""


def test_a_number_of_a_claim_is_found_on_whichever_page_it_is():
    claims = {"a": [{"id": "x", "findings": []}], "b": [{"id": "y", "findings": [{"value": 7}]}]}
    claims["b"][0]["findings"].append({"value": 8.5})
    assert numbers.found_in(claims, "y", "2") == ("b", 8.5)
    with pytest.raises(LookupError, match="'x' has 0 numbers, and none called '1'"):
        numbers.found_in(claims, "x", "1")
    with pytest.raises(LookupError, match="no page checks the claim 'z'"):
        numbers.found_in(claims, "z", "1")


@pytest.mark.parametrize(("claim", "shown"), [("y", "8.50"), ("z", "")])
def test_a_number_of_a_claim_is_shown_or_warned_of(claim, shown, caplog):
    node = numbers.Glued("{found}`…`", "", claim=claim, number="1", fmt=".2f")
    claims = {"b": [{"id": "y", "findings": [{"value": 8.5}]}]}
    env = SimpleNamespace(bookkit_claims={"claims": claims})
    numbers._look_up(env, node)
    assert node.astext() == shown
    assert bool(caplog.records) is not bool(shown)


def test_the_processor_tells_the_instructions_that_pytorch_uses():
    assert table.processor().endswith(f" {torch.backends.cpu.get_cpu_capability()}")


def counted(**values):
    """Records of glued counts."""
    return {
        f"glue/{name.replace('_', '-')}": table.Record(
            is_claim=False, values=(each,) if each else ()
        )
        for name, each in values.items()
    }


def test_a_share_in_text_is_of_the_cases_of_all_replications():
    found = counted(whole=(10, 8), none=())
    node = shares.ShareNode(count="whole", n=12)
    assert shares.in_text(found, node) == "75 % (55–88)"
    node = shares.ShareNode(count="none", n=12)
    assert shares.in_text(found, node) == "a share not yet known"
    with pytest.raises(LookupError, match="glues no count 'other'"):
        shares.in_text(found, shares.ShareNode(count="other", n=12))


def rows_from(**values):
    """The rows of two groups, from counts of each in two replications."""
    found = counted(**values)
    groups = [("All", "all"), ("Noisy", "noisy")]
    node = shares.SharesNode(prefix="w", of="n", columns=["right"], groups=groups)
    return shares.rows_of(found, node)


def test_counts_are_added_up_over_replications_and_shown_as_shares():
    rows = rows_from(w_all_n=(12, 12), w_all_right=(7, 11), w_noisy_n=(0, 1), w_noisy_right=(0, 1))
    # Wilson's interval of 18 in 24, by hand: (18 + z²/2) / (24 + z²) ± …, z = 1.96.
    assert rows == [["All", "24", "75 % (55–88)"], ["Noisy", "1", "–"]]


def test_counts_without_replications_or_of_different_ones_give_no_rows():
    assert rows_from(w_all_n=(), w_all_right=(), w_noisy_n=(), w_noisy_right=()) == []
    assert (
        rows_from(w_all_n=(12, 12), w_all_right=(7,), w_noisy_n=(1, 1), w_noisy_right=(0, 1)) == []
    )


def test_a_count_that_the_chapter_does_not_glue_is_named():
    with pytest.raises(LookupError, match="the chapter glues no count 'w-noisy-n'"):
        rows_from(w_all_n=(12,), w_all_right=(7,))
