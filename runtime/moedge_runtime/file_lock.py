"""Which process holds a lock on a file, asked without taking it."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = "hhqqi"
"""struct flock of 64-bit Linux, natively aligned: l_type, l_whence, l_start, l_len, l_pid (fcntl(2))."""


def holder(path: Path) -> int | None:
    """The process that holds a lock of fcntl(F_SETLK) on a file, as the kernel says; None if none does.

    0 stands for one that this process cannot see, such as one outside of its container.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return max(pid, 0) if kind == fcntl.F_WRLCK else None
