"""What the kernel says about this process: bytes read from disks, memory now and at its peak."""

from __future__ import annotations

import re
from pathlib import Path


def read_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process has made disks read (proc(5), read_bytes); None if the kernel does not count them."""
    return _field(root / "proc/self/io", r"^read_bytes: (\d+)$")


def anonymous_bytes(root: Path = Path("/")) -> int:
    """Memory of this process that no file backs; 0 if the kernel does not say."""
    return 1024 * (_field(root / "proc/self/status", r"^RssAnon:\s+(\d+) kB$") or 0)


def peak_bytes(root: Path = Path("/")) -> int:
    """Most memory that this process ever had, mapped files included (VmHWM); 0 if the kernel does not say."""
    return 1024 * (_field(root / "proc/self/status", r"^VmHWM:\s+(\d+) kB$") or 0)


def group_peak_bytes(root: Path = Path("/")) -> int | None:
    """Most memory that the control group of this process ever had, page cache included; None if it is in none.

    Sources: cgroups(7); memory.peak of version 2 (Linux 5.19), memory.max_usage_in_bytes of version 1.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        group = path.strip("/")
        if not group:
            continue
        if "memory" in controllers.split(","):
            peak = _field(mounts / "memory" / group / "memory.max_usage_in_bytes", r"^(\d+)$")
        else:
            peak = _field(mounts / group / "memory.peak", r"^(\d+)$")
        if peak is not None:
            return peak
    return None


def _field(path: Path, pattern: str) -> int | None:
    match = re.search(pattern, _read(path), re.MULTILINE)
    return int(match[1]) if match else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
