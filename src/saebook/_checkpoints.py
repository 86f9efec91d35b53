"""Checkpoints of an ensemble in training: one safetensors file, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def digest(description: Any, tensors: Mapping[str, Tensor]) -> str:
    """A fingerprint of a run: its settings and its initial weights."""
    sha = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], *, run: str, step: int, log: Any) -> None:
    """Write the state after `step` steps of the run with fingerprint `run`, over what was there.

    `log` is anything that JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    metadata = {"run": run, "step": str(step), "log": json.dumps(log)}
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contents, partial, metadata=metadata)
    os.replace(partial, path)


def load(path: Path, *, run: str) -> tuple[dict[str, Tensor], int, Any]:
    """Read a checkpoint back: its tensors, how many steps they have seen, and the log.

    Raises:
        ValueError: if the file is no checkpoint, or one of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint must be a file that train_ensemble wrote, got {path}: {error}"
        ) from error
    if metadata.get("run") != run:
        raise ValueError(
            f"checkpoint must belong to this run, got {path}, which another one wrote: its "
            "configs, seeds, initial weights, batch size, learning rates or number of "
            "steps differ. Name another file or remove this one."
        )
    return tensors, int(metadata["step"]), json.loads(metadata["log"])
