#!/bin/sh
# Find a Python that can run the book, then let tools/setup_env.py make or mend the environment.
#
#   PYTHON  the interpreter to use; without it the usual names are tried in turn
#   VENV    where the environment lives (default: .venv)
set -eu
cd "$(dirname "$0")/.."

# Each candidate runs this itself: a name on the PATH may be a dead shim, or an old version.
# It must parse under every Python, old ones included.
probe='
import sys
version = "%d.%d.%d" % tuple(sys.version_info[:3])
reason = ""
if not ((3, 11) <= sys.version_info[:2] <= (3, 13)):
    reason = "its version is outside 3.11 to 3.13"
elif sys.implementation.name != "cpython":
    reason = "it is not CPython"
else:
    import sysconfig
    try:
        import ensurepip, venv
    except ImportError:
        reason = "it has no venv and ensurepip modules (on Debian and Ubuntu: apt install python%d.%d-venv)" % tuple(sys.version_info[:2])
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        reason = "it is a free-threaded build"
sys.stdout.write("no %s: %s" % (version, reason) if reason else "ok %s" % version)
'

found=''
try_python() { # sets `chosen` and succeeds if $1 can run the book; else notes why not
    command -v "$1" >/dev/null 2>&1 || return 1
    answer=$("$1" -c "$probe" 2>/dev/null) || answer="no it does not run"
    case $answer in
        ok\ *) chosen=$1 ;;
        *) found="$found
    $1 (${answer#no })"
           return 1 ;;
    esac
}

# Python 3.11 first: the published book is built with it.
choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        try_python "$PYTHON"
        return
    fi
    for name in python3.11 python3.12 python3.13 python3 python; do
        if try_python "$name"; then return 0; fi
    done
    # None on the PATH: the one that an existing environment was made with will do.
    base=$("${VENV:-.venv}/bin/python" -c 'import sys; print(sys._base_executable)' 2>/dev/null) || return 1
    try_python "$base"
}

if ! choose_python; then
    if [ -n "${PYTHON:-}" ]; then
        [ -n "$found" ] || found="
    PYTHON=$PYTHON (no such command)"
        advice='Set PYTHON to such a Python, or leave PYTHON unset to let this script look for one.'
    else
        [ -n "$found" ] || found=' no Python at all'
        advice='Install one, for instance with the package manager, and run the same command again,
  or name one that is not on the PATH: make book PYTHON=/path/to/python3.12'
    fi
    cat >&2 <<MESSAGE
error: no suitable Python.
  Found:$found
  Expected: CPython 3.11, 3.12 or 3.13, with its venv and ensurepip modules.
  What to do: $advice
MESSAGE
    exit 1
fi

exec "$chosen" tools/setup_env.py
