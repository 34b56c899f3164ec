"""The daemon as an updater sees it: model.json, which it writes (docs/updates.md), and SIGHUP."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from moedge_runtime.daemon.model_state import LOCK_NAME, STATE_NAME
from moedge_runtime.file_lock import holder
from pydantic import BaseModel, ConfigDict, ValidationError


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
        return holder(self.directory / LOCK_NAME) or None

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
