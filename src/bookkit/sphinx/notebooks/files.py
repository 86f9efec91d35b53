"""What the notebooks need beside them: the library's wheel and the versions that they run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bookkit.pins import pinned

WHEEL_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")
NEEDED = ("myst-nb", "ipywidgets")  # the second because tqdm warns where it is absent
# Jupyter itself is the reader's: replacing it under a running kernel would break that.
READERS_OWN = {"ipykernel", "ipython", "jupyter-client", "jupyter-core"}


def pins(requirements: str, library: str) -> str:
    """The lines of a requirements file for what the notebooks import, with all that pulls in."""
    return pinned(requirements, [library, *NEEDED], without=READERS_OWN)


def build_wheel(root: Path, folder: Path) -> None:
    """Put the library's wheel into a folder; the same sources give the same bytes.

    Raises:
        subprocess.CalledProcessError: pip could not build it; its message is on stderr.
    """
    for old in folder.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as copied:
        for name in WHEEL_SOURCES:
            if (root / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(root / name, Path(copied, name), ignore=ignored)
            else:
                shutil.copy(root / name, copied)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        clock = {"SOURCE_DATE_EPOCH": "315532800"}  # 1980, where the dates of zip files begin
        command = [*pip, "--wheel-dir", str(folder), copied]
        subprocess.run(command, check=True, env=os.environ | clock)
