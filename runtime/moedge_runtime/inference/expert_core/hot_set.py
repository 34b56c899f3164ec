"""Learned hot set: how often each expert was chosen, in all and by each camera, kept in a file for the next run.

`NativeExperts.set_counts` takes the counts, so that `preload` reads the experts ahead that were chosen most.

The file is JSON: `{"format": "moedge-expert-counts", "version": 1, "moe_layers": [0, 1, …], "num_experts": 128,
"counts": [[…], …], "cameras": {"gate": [[…], …], …}}`, with a row of `num_experts` counts for every decoder layer of
`moe_layers`. Files of earlier versions have no `cameras`; these versions read the file and leave them out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import TextInfo
from moedge_runtime.durable import write_durably
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.strict_json import MAX_INTEGER, parse_json

Counts = npt.NDArray[np.uint64]
"""uint64 [layers with experts, experts], as `NativeExperts.counts` gives them."""

MAX_CAMERAS = 64
"""Of which counts are kept: 40 kB of file and 48 kB of memory each at 6,144 experts."""


@dataclass(frozen=True)
class HotSet:
    """What was learned about experts.

    Attributes:
        counts: How often each was chosen in all.
        cameras: What each camera's answers chose (`CameraCounts`), `MAX_CAMERAS` at most.
    """

    counts: Counts
    cameras: dict[str, Counts] = field(default_factory=dict)


def save_hot_set(path: Path, hot_set: HotSet, text: TextInfo) -> None:
    """Write it so that `path` holds either all of it or what it held before.

    Raises:
        StorageError: The disk is full, read-only or failing.
    """
    cameras = {camera: _rows(counts) for camera, counts in hot_set.cameras.items()}
    content = json.dumps(_header(text) | {"counts": _rows(hot_set.counts), "cameras": cameras})
    try:
        write_durably(path, f"{content}\n".encode(), several_writers=True)
    except OSError as error:
        raise StorageError(
            f"Counts of experts cannot be written to '{path}' ({error.strerror}). Free space or choose another place."
        ) from error


def load_hot_set(path: Path, text: TextInfo) -> HotSet:
    """Read what `save_hot_set`, of this version or an earlier one, wrote.

    Raises:
        StorageError: The file cannot be read.
        ConfigError: It is damaged, or was made for a bundle of another shape.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"The counts of experts in '{path}' cannot be read ({error.strerror}). Give a file."
        ) from error
    return parse_hot_set(content, path, text)


def parse_hot_set(content: bytes, path: Path, text: TextInfo) -> HotSet:
    """What `save_hot_set` wrote to `path`.

    Raises:
        ConfigError: As `load_hot_set`.
    """
    try:
        values = parse_json(content.decode())
    except ValueError as error:  # UnicodeDecodeError is one
        raise _unusable(path, f"it is not valid JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("counts"), list):
        raise _unusable(path, "it holds no counts")
    for name, wanted in _header(text).items():
        if values.get(name) != wanted:
            raise _unusable(path, f"its {name} is {_shown(values.get(name))}, this bundle's is {_shown(wanted)}")
    cameras = values.get("cameras", {})
    if not isinstance(cameras, dict) or len(cameras) > MAX_CAMERAS:
        raise _unusable(path, f"its cameras are not counts of {MAX_CAMERAS} cameras at most")
    return HotSet(
        _counts(path, values["counts"], "counts", text),
        {camera: _counts(path, rows, f"counts of camera {_shown(camera)}", text) for camera, rows in cameras.items()},
    )


def _rows(counts: Counts) -> list[list[int]]:
    rows: list[list[int]] = np.minimum(counts, MAX_INTEGER).tolist()
    return rows


def _counts(path: Path, rows: Any, name: str, text: TextInfo) -> Counts:
    shape = (len(text.moe_layers), text.num_experts)
    lengths = [len(row) if isinstance(row, list) else -1 for row in rows] if isinstance(rows, list) else []
    if lengths != [shape[1]] * shape[0]:
        raise _unusable(path, f"its {name} are not {shape[0]} rows of {shape[1]}")
    if not all(type(count) is int and count >= 0 for row in rows for count in row):
        raise _unusable(path, f"among its {name} is one that is no natural number")
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
