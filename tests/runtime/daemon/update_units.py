"""What an updater and the units that start it look like to the daemon."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

from moedge_runtime.daemon.updates import LOOK_NAME, UPDATE_LOCK_NAME


class Systemd:
    """Listens in systemd's place; a connection is all that it notices."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listening: dict[str, socket.socket] = {}

    def listen(self, *names: str) -> None:
        for name in names:
            path = self._directory / f"{name}.socket"
            path.unlink(missing_ok=True)
            self._listening[name] = socket.socket(socket.AF_UNIX)
            self._listening[name].bind(str(path))
            self._listening[name].listen()
            self._listening[name].setblocking(False)

    def started(self) -> list[str]:
        """Whose socket was connected to since the last call; that nothing was sent is checked."""
        started = []
        for name, listening in self._listening.items():
            while True:
                try:
                    connection, _ = listening.accept()
                except BlockingIOError:
                    break
                with connection:
                    assert connection.recv(1) == b"", "nothing is said"
                started.append(name)
        return started

    def close(self) -> None:
        for listening in self._listening.values():
            listening.close()


def make_store(store: Path, bundle: Path) -> Path:
    """A store in which sample@1, a copy of `bundle`, is in use; the link to it."""
    (store / "current").mkdir(parents=True)
    shutil.copytree(bundle, store / "bundles/sample/1")
    (store / "current/sample").symlink_to("../bundles/sample/1")
    (store / UPDATE_LOCK_NAME).touch()
    return store / "current/sample"


def look(store: Path, status: str = "waiting", **changes: Any) -> dict[str, Any]:
    """What the updater says from now on."""
    said = {"at": "2026-11-23T08:15:30.250Z", "status": status, "version": "2", "text": "It waits.", "error": None}
    (store / LOOK_NAME).write_text(json.dumps(said | changes))
    return said | changes
