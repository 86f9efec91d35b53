"""Check the book's links to other sites, with Sphinx's link checker: `make check-links`.

Links lie in the text, so no chapter is executed. The exit status is 1 if a link is broken, and 2 if
no site could be reached at all.
"""

import json
import sys

import build_book

REPORT = build_book.BUILD / "links" / "linkcheck" / "output.json"


def verdict(links):
    """Exit status and message for what Sphinx found: a dict for each link."""
    links = [link for link in links if link["uri"].startswith(("http:", "https:"))]
    broken = [link for link in links if link["status"] in ("broken", "timeout")]
    if not links:
        return 1, "error: no links were found; expected some in book/."
    # A site that answers, if only to refuse, has a status; one that is out of reach has none.
    tried = [link for link in links if link["status"] != "ignored"]
    if len(broken) == len(tried) and not any(link["info"][:1].isdigit() for link in broken):
        return 2, (
            f"error: none of the {len(tried)} links could be reached. Is there a network?\n"
            f"  for instance {broken[0]['uri']}: {broken[0]['info']}"
        )
    faults = [f"  {x['filename']}:{x['lineno']}: {x['uri']}\n    {x['info']}" for x in broken]
    faults.insert(0, f"{len(links)} links to other sites, {len(broken)} broken.")
    return int(bool(broken)), "\n".join(faults)


def main():
    build_book.isolate()
    REPORT.unlink(missing_ok=True)
    print("Checking the links to other sites …")
    build_book.sphinx(
        REPORT.parent, builder="linkcheck", strict=False, silent=True, nb_execution_mode="off"
    )
    if not REPORT.exists():
        print("error: the link checker did not come to its end.", file=sys.stderr)
        return 1
    status, message = verdict([json.loads(line) for line in REPORT.read_text().splitlines()])
    print(message, file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
