"""The daemon as an updater sees it: model.json, which it writes (docs/updates.md), and SIGHUP."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from contextlib import suppress
from pathlib import Path

from moedge_runtime.daemon.model_state import LOCK_NAME, STATE_NAME
from pydantic import BaseModel, ConfigDict, ValidationError

_FLOCK = "hhqqi"
"""struct flock of 64-bit Linux, natively aligned: l_type, l_whence, l_start, l_len, l_pid (fcntl(2))."""


class Fault(BaseModel):
    """Why a reload was refused."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str
    message: str


class Said(BaseModel):
    """What the daemon says of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pid: int
    instance: str
    configured: str | None
    bundle: str | None
    manifest_sha256: str | None
    answers: int
    failures: int
    reloads: int
    reload_error: Fault | None


class RunningDaemon:
    """The daemon whose runtime directory is `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def said(self) -> Said | None:
        """What it says; None if none runs, or it has not said anything yet."""
        pid = self.pid()
        with suppress(OSError, ValidationError):
            said = Said.model_validate_json((self.directory / STATE_NAME).read_bytes())
            return said if said.pid == pid else None
        return None

    def pid(self) -> int | None:
        """Its process number; None if none runs. The kernel says so, no file that may be of another one."""
        try:
            descriptor = os.open(self.directory / LOCK_NAME, os.O_RDONLY)
        except OSError:
            return None
        try:
            asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        return pid if kind == fcntl.F_WRLCK and pid > 0 else None

    def reload(self) -> bool:
        """Make it look at its configuration, and the bundle behind it, again; whether one runs."""
        pid = self.pid()
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGHUP)
        except ProcessLookupError:
            return False
        return True
