"""Learned hot set: how often each expert was chosen, kept in a file for the next run.

`NativeExperts.set_counts` takes the counts, so that `preload` reads the experts ahead that were chosen most.

The file is JSON: `{"format": "moedge-expert-counts", "version": 1, "moe_layers": [0, 1, …], "num_experts": 128,
"counts": [[…], …]}`, with a row of `num_experts` counts for every decoder layer of `moe_layers`.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import TextInfo
from moedge_runtime.durable import sync_path
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.strict_json import MAX_INTEGER, parse_json

Counts = npt.NDArray[np.uint64]
"""uint64 [layers with experts, experts], as `NativeExperts.counts` gives them."""


def save_counts(path: Path, counts: Counts, text: TextInfo) -> None:
    """Write the counts so that `path` holds either all of them or what it held before.

    Raises:
        StorageError: The disk is full, read-only or failing.
    """
    content = json.dumps(_header(text) | {"counts": np.minimum(counts, MAX_INTEGER).tolist()})
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_path(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"Counts of experts cannot be written to '{path}' ({error.strerror}). Free space or choose another place."
        ) from error


def load_counts(path: Path, text: TextInfo) -> Counts:
    """Read what `save_counts` wrote.

    Raises:
        StorageError: The file cannot be read.
        ConfigError: It is damaged, or was made for a bundle of another shape.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"The counts of experts in '{path}' cannot be read ({error.strerror}).") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise _unusable(path, f"it is not valid JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("counts"), list):
        raise _unusable(path, "it holds no counts")
    for name, wanted in _header(text).items():
        if values.get(name) != wanted:
            raise _unusable(path, f"its {name} is {_shown(values.get(name))}, this bundle's is {_shown(wanted)}")
    rows = values["counts"]
    shape = (len(text.moe_layers), text.num_experts)
    if [len(row) if isinstance(row, list) else -1 for row in rows] != [shape[1]] * shape[0]:
        raise _unusable(path, f"its counts are not {shape[0]} rows of {shape[1]}")
    if not all(type(count) is int and count >= 0 for row in rows for count in row):
        raise _unusable(path, "a count is no natural number")
    return np.array(rows, np.uint64).reshape(shape)


def _header(text: TextInfo) -> dict[str, Any]:
    return {
        "format": "moedge-expert-counts",
        "version": 1,
        "moe_layers": list(text.moe_layers),
        "num_experts": text.num_experts,
    }


def _unusable(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"The counts of experts in '{path}' cannot be used: {problem}. Delete the file, or give this bundle's.",
        key="core.counts_unusable",
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"
