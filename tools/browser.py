"""Find the browser that checks the site: Chromium or Chrome."""

import os
import shutil
import sys

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


def find_browser() -> str:
    """The program that SAEBOOK_CHROMIUM names, else the first that is installed."""
    found = os.environ.get("SAEBOOK_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        raise FileNotFoundError(
            f"no browser: none of {', '.join(NAMES)} is installed. "
            "Run `apt-get install chromium` as root, "
            "or set SAEBOOK_CHROMIUM to the program of a Chromium or Chrome."
        )
    return found


if __name__ == "__main__":
    try:
        print(find_browser())
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
