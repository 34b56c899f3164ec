"""Tells other commands that a daemon runs: flock(2) on the directory of its configuration, shared by all daemons there.

Not on the file: another one takes its place whenever it is changed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class ConfigLock:
    """Held by a daemon as long as it lives, however it ends."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def hold(self, path: Path) -> None:
        """Hold the directory of this configuration; nothing if it cannot be opened, or if a spool in it is locked."""
        with suppress(OSError):
            self._descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(path: Path) -> bool:
    """Whether a daemon runs with a configuration in the directory of this one; no if there is no such directory.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
