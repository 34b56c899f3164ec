"""Where the memory of a process is: /proc/PID/status and smaps."""

from __future__ import annotations

import re
from pathlib import Path

MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(?P<name>.*)$")


def peak_bytes() -> int:
    """The most that this process has had in memory at once: anonymous pages, and those of files that it maps."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def by_kind(smaps: str, slots_bytes: int) -> dict[str, int]:
    """Resident bytes of files (interpreter and libraries), of the core's slots and of all other anonymous memory.

    Args:
        smaps: Content of /proc/PID/smaps.
        slots_bytes: An anonymous mapping of at least so many bytes holds the slots.
    """
    resident = {"files": 0, "slots": 0, "other": 0}
    kind, size = "other", 0
    for line in smaps.splitlines():
        if found := MAPPING.match(line):
            kind = "files" if found["name"].startswith("/") else "other"
        elif line.startswith("Size:"):
            size = int(line.split()[1]) << 10
            if kind == "other" and size >= slots_bytes:
                kind = "slots"
        elif line.startswith("Rss:"):
            resident[kind] += int(line.split()[1]) << 10
    return resident
