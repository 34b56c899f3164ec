"""What the daemon says on the board itself about the model that it runs: for an updater, which needs no broker for it.

`model.json` in the directory that systemd gives the unit (RuntimeDirectory=, in memory). docs/updates.md has its keys.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import threading
from pathlib import Path
from typing import IO, Any

from moedge_runtime.bundle import Bundle
from moedge_runtime.daemon.bundle_check import manifest_sha256
from moedge_runtime.errors import MoedgeError

RUNTIME_DIRECTORY = "RUNTIME_DIRECTORY"
"""Set by systemd for a unit with RuntimeDirectory=."""

STATE_NAME = "model.json"
LOCK_NAME = "model.lock"
"""Held with fcntl(F_SETLK) by the daemon that wrote model.json: F_GETLK tells its process number while it lives."""

log = logging.getLogger(__name__)


class ModelState:
    """Which model is loaded, what became of the last reload, and how often the model has answered since it was loaded.

    May be used from any thread. What cannot be written is logged once and harms nothing else.

    Args:
        directory: Where; None for nowhere.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._held: IO[bytes] | None = None
        self._values: dict[str, Any] = {
            "version": 1,
            "pid": os.getpid(),
            "instance": secrets.token_hex(8),
            "configured": None,
            "bundle": None,
            "manifest_sha256": None,
            "answers": 0,
            "failures": 0,
            "reloads": 0,
            "reload_error": None,
        }

    @classmethod
    def of_unit(cls) -> ModelState:
        """In the directory that systemd gives this unit; nowhere without one."""
        directory = os.environ.get(RUNTIME_DIRECTORY, "").partition(":")[0]
        return cls(Path(directory) if directory else None)

    def begin(self) -> None:
        """Say that this process runs and has loaded nothing yet."""
        if self._directory is None:
            return
        try:
            self._held = (self._directory / LOCK_NAME).open("ab")
            fcntl.lockf(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._give_up(error)
            return
        self._note()

    def loaded(self, configured: Path, bundle: Bundle) -> None:
        """A model was loaded: `bundle`, which `model.bundle` (`configured`) named. Counting begins anew."""
        path = str(bundle.path.resolve())
        if self._directory is not None and self._values["bundle"] == path:
            return
        self._note(
            configured=str(configured),
            bundle=path,
            manifest_sha256=manifest_sha256(bundle) if self._directory is not None else None,
            answers=0,
            failures=0,
        )

    def reload_ended(self, outcome: Any | MoedgeError) -> None:
        """A reload that SIGHUP has asked for was carried out or refused."""
        error = {"key": outcome.key, "message": str(outcome)} if isinstance(outcome, MoedgeError) else None
        self._note(reloads=self._values["reloads"] + 1, reload_error=error)

    def answer(self, answered: bool) -> None:
        """The model was asked about a frame, and has answered or failed."""
        counter = "answers" if answered else "failures"
        self._note(**{counter: self._values[counter] + 1})

    def close(self) -> None:
        """Let go of the lock: this daemon ends."""
        with self._guard:
            self._directory = None
            if self._held is not None:
                self._held.close()
                self._held = None

    def _note(self, **changes: Any) -> None:
        with self._guard:
            self._values |= changes
            if self._directory is None:
                return
            draft = self._directory / f".{STATE_NAME}.new"
            try:
                draft.write_text(json.dumps(self._values, ensure_ascii=False) + "\n", encoding="utf-8")
                draft.replace(self._directory / STATE_NAME)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("'%s' cannot be written (%s): updates of the model cannot be confirmed.", self._directory, error)
        self._directory = None
