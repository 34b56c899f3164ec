"""How much memory this process can still have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping: MemAvailable, or what a control group leaves if that is less.

    Of a group's use, page cache that was not touched lately (inactive_file) counts as free. Sources: proc(5),
    cgroups(7).

    Args:
        root: Where proc and sys are; for tests.

    Returns:
        None where the system tells neither.
    """
    found = list(_group_limits(root))
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    if match:
        found.append(int(match[1]) << 10)
    return max(0, min(found)) if found else None


def _group_limits(root: Path) -> Iterator[int]:
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        mount = mounts if controllers == "" else mounts / "memory"
        group = mount / path.lstrip("/")
        # In a container only `mount` may exist: it is then the group's own.
        for directory in (group, *group.parents):
            limit, used = (_read(directory / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit():  # a group without a limit says "max"
                cache = re.search(rf"^{names[2]} (\d+)$", _read(directory / "memory.stat"), re.MULTILINE)
                yield int(limit) - int(used) + (int(cache[1]) if cache else 0)
            if directory == mount:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
