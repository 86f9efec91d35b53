"""Make, mend or simply recognise the book's environment.

`tools/setup_env.sh` finds a suitable Python and runs this file with it. The file uses the standard
library only. When the environment is complete it installs nothing and takes about a second. It
judges the environment by what is in it (does every pinned package have all its files?), so that
an interrupted install, a deleted interpreter or a moved folder is noticed and mended.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / (os.environ.get("VENV") or ".venv")
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "saebook-complete"
# The interpreter on the first lines of a command; long paths and spaces take a second line.
SHEBANG = re.compile(r"""(?:#!|exec' "?)(/[^"\n]*?/bin/python[\d.]*)""")
REQUIREMENTS = ROOT / "requirements.txt"

# Runs inside the environment and prints {"version", "missing", "damaged", "editable"} as JSON. An
# interrupted pip leaves folders named ~…, records without their files, or no record at all.
INSPECT = """
import importlib.metadata, json, os, sys, sysconfig
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

def is_whole(dist):
    if dist.read_text("METADATA") is None or dist.read_text("RECORD") is None:
        return False
    return all(file.suffix == ".pyc" or os.path.exists(file.locate()) for file in dist.files)

site = sysconfig.get_path("purelib")
damaged = [name for name in os.listdir(site) if name.startswith("~")]
found = {}
for dist in importlib.metadata.distributions(path=[site]):
    if not str(dist._path).endswith(".dist-info"):
        continue
    name = os.path.basename(dist._path).split("-")[0]
    found[canonicalize_name(name)] = dist
    if not name.startswith("~") and not is_whole(dist):
        damaged.append(name)

missing = []
for line in open(sys.argv[1], encoding="utf-8"):
    line = line.split("#")[0].strip()
    if not line or line.startswith("-"):
        continue
    pin = Requirement(line)
    if pin.marker and not pin.marker.evaluate():
        continue
    dist = found.get(canonicalize_name(pin.name))
    if dist is None or not pin.specifier.contains(dist.version, prereleases=True):
        missing.append(line)

origin = "{}"
if "saebook" in found:
    origin = found["saebook"].read_text("direct_url.json") or "{}"
version = sys.version.split()[0]
editable = json.loads(origin).get("url")
json.dump(dict(version=version, missing=missing, damaged=damaged, editable=editable), sys.stdout)
"""


class SetupError(Exception):
    """A fault that the user has to know about, with what was found, expected and to be done."""


def say(text):
    print(f"[setup] {text}", flush=True)


def environment():
    """The caller's variables without those that would send packages or imports elsewhere."""
    unwanted = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(*arguments):
    return subprocess.run(arguments, cwd=ROOT, env=environment(), check=False).returncode


def answer(*arguments):
    """The standard output of a command, or None when it fails."""
    try:
        done = subprocess.run(
            arguments, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def was_moved():
    """Whether the environment's commands name an interpreter outside this folder."""
    try:
        head = (VENV / "bin" / "pip").read_text(encoding="utf-8", errors="replace")[:1000]
        return not Path(SHEBANG.search(head)[1]).parent.samefile(VENV / "bin")
    except (OSError, TypeError):
        return True


def fault():
    """Why the environment has to be made from scratch, or None."""
    if not VENV.exists():
        return "there is no environment yet"
    version = answer(str(VENV_PYTHON), "-c", "import sys; print(sys.version.split()[0])")
    if version is None:
        return "its Python is missing or does not run"
    if os.environ.get("PYTHON") and version.strip() != sys.version.split()[0]:
        return f"it has Python {version.strip()}, PYTHON is {sys.version.split()[0]}"
    minor = tuple(int(part) for part in version.split(".")[:2])
    if not (3, 11) <= minor <= (3, 13):
        return f"it has Python {version.strip()}, which the book does not support"
    if answer(str(VENV_PYTHON), "-c", "import pip._internal.cli.main") is None:
        return "its pip is missing or broken"
    if was_moved():
        return "it was made in another folder"
    return None


def remove_environment():
    if VENV.is_dir() and not VENV.is_symlink():
        shutil.rmtree(VENV)
    else:
        VENV.unlink(missing_ok=True)  # a link is removed, what it points to is not


def make_venv(reason):
    say(f"making {VENV} with Python {sys.version.split()[0]} ({reason})")
    is_ours = VENV == ROOT / ".venv" or (VENV / "pyvenv.cfg").exists()
    if VENV.is_dir() and any(VENV.iterdir()) and not is_ours:
        raise SetupError(
            f"VENV={VENV} is not an environment.\n"
            f"  Found: a folder with other files in it.\n"
            f"  Expected: a folder that does not exist, is empty, or was made by `make`.\n"
            f"  What to do: name another folder, or remove this one yourself."
        )
    remove_environment()
    # `python -m venv` writes pyvenv.cfg first, so a half-made folder is recognised as ours.
    if run(sys.executable, "-m", "venv", str(VENV)) != 0:
        raise SetupError(
            f"Python could not make an environment in {VENV}.\n"
            f"  Found: Python {sys.version.split()[0]}, {sys.executable}; its message is above.\n"
            f"  Expected: a Python with working venv and ensurepip modules, a writable folder.\n"
            f"  What to do: install your system's venv package (Debian and Ubuntu: python3-venv), "
            f"or choose another Python: make book PYTHON=/path/to/python3.12"
        )


def inspect():
    text = answer(str(VENV_PYTHON), "-c", INSPECT, str(REQUIREMENTS))
    return json.loads(text) if text else None


def is_installed_here(state):
    """Whether the environment holds this checkout's own package."""
    return state["editable"] == ROOT.as_uri()


def digest(state):
    parts = [REQUIREMENTS.read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    parts.append(f"{state['version']} {VENV}".encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_complete(state):
    stamp = STAMP.read_text(encoding="utf-8").strip() if STAMP.exists() else ""
    whole = not state["missing"] and not state["damaged"] and is_installed_here(state)
    return whole and stamp == digest(state)


def pip_install(*arguments):
    started = time.monotonic()
    code = run(str(VENV_PYTHON), "-m", "pip", "install", "--retries", "3", *arguments)
    if code != 0:
        free = shutil.disk_usage(ROOT).free / 1e9
        raise SetupError(
            f"pip could not install the packages.\n"
            f"  Found: pip's message above; {sys.executable}; {free:.1f} GB of free disk.\n"
            f"  Expected: a package index that pip can reach, and 3 GB of free disk "
            f"(10 GB if pip fetches the CUDA build of PyTorch).\n"
            f"  What to do: check the network, the proxy and pip's settings (pip config list), "
            f"then run the same command again. Nothing has to be removed first."
        )
    say(f"pip took {time.monotonic() - started:.0f} s")


def install(state):
    """Bring the packages to what requirements.txt names, then add this checkout's own one."""
    STAMP.unlink(missing_ok=True)
    if state["missing"]:
        say(f"installing {len(state['missing'])} package(s); all of them take minutes and 2.4 GB")
        pip_install(*state["missing"])
    say("installing the package of this checkout")
    pip_install("--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def check_result():
    state = inspect()
    if state is None or state["missing"] or state["damaged"] or not is_installed_here(state):
        raise SetupError(
            f"the environment is still incomplete after the installation.\n"
            f"  Found: {state}\n"
            f"  Expected: every pin of requirements.txt, and this checkout's own package.\n"
            f"  What to do: remove {VENV} and run the same command again."
        )
    if run(str(VENV_PYTHON), "-m", "pip", "check") != 0:
        raise SetupError(
            "the installed packages contradict one another.\n"
            "  Found: the conflicts above.\n"
            "  Expected: pins in requirements.txt that fit together.\n"
            "  What to do: correct requirements.txt, then run the same command again."
        )
    STAMP.write_text(digest(state) + "\n", encoding="utf-8")


def set_up():
    reason = fault()
    state = None if reason else inspect()
    if state is None or state["damaged"]:
        if state:
            reason = f"these packages are damaged: {', '.join(state['damaged'])}"
        make_venv(reason or "its packages cannot be listed")
        state = inspect()
    if is_complete(state):
        return
    install(state)
    check_result()
    say(f"{VENV} is complete")


def main():
    lock = os.open(ROOT, os.O_RDONLY)  # one set-up at a time; the system frees it when we end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another set-up is at work in this folder; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        set_up()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command, run again, mends the environment")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
