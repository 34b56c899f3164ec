"""How much memory there is: what the system and the control group have in all and available, and how much to take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

RESERVE_BYTES = 512 << 20
RESERVE_SHARE = 10
"""Of what is available a `RESERVE_SHARE`th is left to others, and `RESERVE_BYTES` at least. MemAvailable counts page
cache that the system would miss, and other programs grow: a program that makes the system swap or reclaim is 3 to 8
times slower (ds4, WARP, BigMoeOnEdge)."""


def default_memory(available_bytes: int) -> int:
    """Bytes that the whole process may take of `available_bytes` (0 if there are none to take)."""
    return max(0, available_bytes - max(RESERVE_BYTES, available_bytes // RESERVE_SHARE))


def total_memory(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process can ever have: the machine's, or the limit of a control group.

    Args:
        root: Where proc and sys are; for tests.

    Returns:
        The lowest of these, or None if the system tells neither.
    """
    limits = [_meminfo(root, "MemTotal"), *(limit for limit, _ in _groups(root))]
    return min((limit for limit in limits if limit is not None), default=None)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be allocated without swapping: MemAvailable, or what a control group of this process leaves.

    Of a group's usage, page cache that has not been used lately (inactive_file) counts as free.

    Args:
        root: Where proc and sys are; for tests.

    Returns:
        The lowest of these, or None if the system tells neither.
    """
    free = [_meminfo(root, "MemAvailable"), *(limit - used for limit, used in _groups(root))]
    available = [each for each in free if each is not None]
    return max(0, min(available)) if available else None


def _meminfo(root: Path, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) << 10 if match else None


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group of this process; sources: cgroups(7), the kernel's cgroup-v1/memory."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for mount in (mounts, mounts / "unified"):
                for group in _with_parents(mount, path):
                    for limit in ("memory.max", "memory.high"):
                        yield from _limit(group, limit, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for group in _with_parents(mounts / "memory", path):
                yield from _limit(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The group's directory and those above it. In a container only `mount` may exist: it is then the group's own."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _limit(group: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> Iterator[tuple[int, int]]:
    limit, usage = _read(group / limit_name).strip(), _read(group / usage_name).strip()
    if limit.isdigit() and usage.isdigit():  # a group without a limit says "max"
        match = re.search(rf"^{reclaimable_name} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
        yield int(limit), int(usage) - (int(match[1]) if match else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
