"""Build the book with warnings as errors: `.venv/bin/python tools/build_book.py`.

The site is built in `_build/draft` and moved to `_build/html` when it is whole: a build that fails
or is killed publishes nothing. What it leaves in the draft may be torn, and Sphinx repeats a page's
warnings only when it reads the page again, so that an identical second run of a failed build would
pass. So the next build starts anew. The outputs of chapters that ran stay cached.

A claim that is false here is marked on its page and listed at the end. With STRICT=1, and in CI, it
fails the build, after all chapters have run.

With the name of a chapter, execute that chapter only and build a preview in `_build/chapter`, where
chapters that never ran have no outputs.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SITE = BUILD / "html"
DRAFT = BUILD / "draft"
DRAFT_SITE = DRAFT / "html"
ADVICE = (
    "Mend the chapter or the library and run the same command again: only what changed runs anew."
)
PREVIEW = BUILD / "chapter" / "html"
VERBS = {
    "CellExecutionError": "failed",
    "CellTimeoutError": "took too long",
    "StderrError": "wrote to stderr, which only a cell with the tag remove-stderr may do",
}


def choose(chapter):
    """Let only one chapter run.

    Raises:
        SystemExit: the book has no such chapter.
    """
    names = sorted(path.stem for path in (ROOT / "book").glob("*.md"))
    if chapter not in names:
        sys.exit(f"error: no chapter {chapter!r}. NAME is one of: {', '.join(names)}")
    os.environ["CHAPTER"] = f"book/{chapter}"


def isolate():
    """Start from the root, with this environment's kernels and packages only."""
    os.chdir(ROOT)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["PYTHONNOUSERSITE"] = "1"
    for name in ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND"):
        os.environ.pop(name, None)


def lock():
    """Keep other builds away until this process ends, however it ends.

    Raises:
        SystemExit: another build is running.
    """
    BUILD.mkdir(exist_ok=True)
    file = (BUILD / "lock").open("w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("error: another build of this book is running. Wait for it, or stop it.")
    return file


def begin():
    """Take the site back into the draft to go on from it, or start anew.

    Anew where there is no whole site, or where a page lost its source: Sphinx would keep the page.
    """
    pages = (SITE / "book").glob("*.html")
    if SITE.exists() and all((ROOT / "book" / f"{page.stem}.md").exists() for page in pages):
        DRAFT.mkdir(exist_ok=True)
        SITE.rename(DRAFT_SITE)
    else:
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.rmtree(DRAFT, ignore_errors=True)


def sphinx(output, *, builder="html", strict=True, silent=False, **settings):
    """Run Sphinx with Jupyter Book's settings; 0, or an exit status or exception where it failed.

    What Sphinx keeps between builds lies beside the folder `output`. With `strict`, warnings are
    errors, also those of references that lead nowhere.
    """
    from jupyter_book.sphinx import build_sphinx

    overrides = {
        "external_toc_path": str(ROOT / "_toc.yml"),
        "nitpicky": strict,
        "latex_individualpages": False,
        **settings,
    }
    return build_sphinx(
        ROOT,
        output,
        builder=builder,
        noconfig=True,
        path_config=ROOT / "_config.yml",
        confoverrides=overrides,
        warningiserror=strict,
        keep_going=True,
        really_quiet=silent,
    )


def causes(error):
    """The error and what led to it, the first cause first."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return reversed(chain)


def explain(fault):
    """A failed cell in a few lines; Sphinx and Jupyter Book have told of other faults already."""
    error = fault if isinstance(fault, Exception) else None
    told = {type(cause).__name__: str(cause).strip() for cause in causes(error)}
    chapter = told.get("ExecutionError", "a chapter")
    for kind, verb in VERBS.items():
        if kind in told:
            return f"a cell of {chapter} {verb}.\n\n{told[kind]}"
    return "the book was not built: its warnings and errors, all of them faults, are above."


def is_strict():
    """Whether a false claim fails the build: the setting STRICT, else whether this is CI.

    Raises:
        SystemExit: STRICT is neither 0 nor 1.
    """
    given = os.environ.get("STRICT") or str(int(os.environ.get("CI", "") not in ("", "false", "0")))
    if given not in ("0", "1"):
        sys.exit(f"error: STRICT must be 0 or 1, got {given!r}")
    return given == "1"


def false_claims(site, chapter=None):
    """A line for each claim of a built site, or of one chapter, that is false here."""
    ledger = site / "claims.json"
    claims = json.loads(ledger.read_text(encoding="utf-8")) if ledger.exists() else []
    return [
        f"  {claim['page']}, {claim['id']}: {claim['statement']} (found: {claim['value']})"
        for claim in claims
        if not claim["holds"] and chapter in (None, Path(claim["page"]).name)
    ]


def tell_of(false, *, strict):
    """List false claims and what follows from them."""
    number = "1 claim does" if len(false) == 1 else f"{len(false)} claims do"
    print(f"\n{'error' if strict else 'warning'}: {number} not hold here:", file=sys.stderr)
    print("\n".join(false), file=sys.stderr)
    if not strict:
        print("Their pages say so. With STRICT=1 this fails the build.\n", file=sys.stderr)


def main(chapter=None):
    strict = is_strict()
    isolate()
    locked = lock()
    if chapter:
        choose(chapter)
    else:
        begin()
    started = time.monotonic()
    fault = sphinx(PREVIEW, strict=False) if chapter else sphinx(DRAFT_SITE)
    if fault:
        print(f"\nerror: {explain(fault)}\n\n{ADVICE}", file=sys.stderr)
        return 1
    page = PREVIEW / "book" / f"{chapter}.html"
    if false := false_claims(PREVIEW if chapter else DRAFT_SITE, chapter):
        tell_of(false, strict=strict)
        if strict:
            return 1
    if not chapter:
        DRAFT_SITE.rename(SITE)
        page = SITE / "index.html"
    locked.close()
    print(f"Built in {time.monotonic() - started:.0f} s. Open: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
