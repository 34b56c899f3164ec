"""How much memory the experts get if nobody says: a share of what the system and the control group have available.

budget = SHARE × (available − RESERVE_BYTES − rest of the model)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from moedge_runtime.bundle import Manifest

SHARE = 0.9
"""Of what is left. MemAvailable counts page cache that the system would miss, and other programs grow: a budget that
makes the system swap or reclaim costs a factor of 3 to 8 (ds4, WARP, BigMoeOnEdge)."""

RESERVE_BYTES = 512 << 20
"""For what this process allocates besides weights and KV cache: interpreter, ONNX Runtime's arenas, a prefill."""


def default_budget(available_bytes: int, rest_bytes: int = 0) -> int:
    """Bytes that the experts may take of `available_bytes` (0 if there are none left).

    Args:
        available_bytes: What `available_memory` says.
        rest_bytes: What the rest of the model will still allocate.
    """
    return max(0, int(SHARE * (available_bytes - RESERVE_BYTES - rest_bytes)))


def rest_of_model(manifest: Manifest, max_context: int) -> int:
    """Bytes that a paged bundle takes besides its experts: the weights in its graphs and the KV cache (float32).

    embedding.bin is not counted: it is mapped, and its pages can be dropped.
    """
    text, experts = manifest.model.text, manifest.experts
    elsewhere = {manifest.embedding.file, experts.file if experts is not None else ""}
    kv_bytes = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * max_context
    return kv_bytes + sum(entry.nbytes for entry in manifest.files if entry.path not in elsewhere)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping: MemAvailable, or what a control group of this process leaves.

    Of a group's usage, page cache that has not been used lately (inactive_file) counts as free.

    Args:
        root: Where proc and sys are; for tests.

    Returns:
        The lowest of these, or None if the system tells neither.
    """
    available = [free for free in (_of_system(root), *_of_groups(root)) if free is not None]
    return max(0, min(available)) if available else None


def _of_system(root: Path) -> int | None:
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) << 10 if match else None


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in leaves; sources: cgroups(7), the kernel's cgroup-v1/memory."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for mount in (mounts, mounts / "unified"):
                for group in _with_parents(mount, path):
                    for limit in ("memory.max", "memory.high"):
                        yield from _left(group, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for group in _with_parents(mounts / "memory", path):
                yield from _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The group's directory and those above it. In a container only `mount` may exist: it is then the group's own."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _left(group: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> Iterator[int]:
    limit, usage = _read(group / limit_name).strip(), _read(group / usage_name).strip()
    if limit.isdigit() and usage.isdigit():  # a group without a limit says "max"
        match = re.search(rf"^{reclaimable_name} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
        yield int(limit) - int(usage) + (int(match[1]) if match else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
