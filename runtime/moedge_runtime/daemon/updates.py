"""Updates of the model, as the daemon sees them: what the updater said last, whether it runs, and having it started.

The daemon may update nothing. It connects to a socket of systemd, which starts the updater's unit for the connection
and drops it: nothing is sent or read, so that all it can say is "now" (docs/updates.md).
"""

from __future__ import annotations

import logging
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from moedge_runtime.config import Config
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.file_lock import holder
from moedge_runtime.mqtt.payloads import ErrorInfo, Timestamp, UpdateStarted, UpdateState

SOCKETS = Path("/run")
"""Where the units of the Debian package and of system images listen."""
UPDATE_CONFIG = Path("/etc/moedge/update.yaml")
CURRENT_NAME = "current"
"""In a store: the directory of the links that model.bundle names."""
LOOK_NAME = "look.json"
"""In a store: a LastLook."""
UPDATE_LOCK_NAME = "update.lock"
"""In a store: locked while an update of the model or the system is made or looked for."""

START_S = 10.0
"""So long after a connection the updater counts as being started if nothing else shows it."""

Status = Literal["current", "updated", "available", "waiting", "updating", "failed"]

_MODEL, _CHECK, _SYSTEM = "moedge-update.socket", "moedge-update-check.socket", "moedge-system-update.socket"

log = logging.getLogger(__name__)


class LastLook(BaseModel):
    """What the updater of the model notes of each run."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: Timestamp
    status: Status
    version: str | None = None
    """The newest one for this device; of an earlier look if this one did not get so far."""
    text: str
    error: ErrorInfo | None = None
    """Of `failed`."""


def store_of(bundle: Path) -> Path | None:
    """The store of which `model.bundle` is a link; None if it is none."""
    return bundle.parent.parent if bundle.parent.name == CURRENT_NAME else None


class Updates:
    """Updates of one machine. Used by the main thread; never blocks."""

    def __init__(self) -> None:
        self._store: Path | None = None
        self._allowed = False
        self._started_s: float | None = None
        self._look_before: LastLook | None = None
        self._checking = False

    def configure(self, config: Config) -> None:
        """Take over a configuration."""
        self._store = store_of(config.model.bundle)
        self._allowed = config.mqtt.remote_config

    @property
    def busy(self) -> bool:
        """Whether the state is about to change: the updater runs, or is being started."""
        return self._runs() or self._starting(self._look())

    def state(self) -> UpdateState:
        """What is to be said of updates, but for the version in use."""
        look, runs = self._look(), self._runs()
        begins = self._starting(look) and not self._checking
        can_start = self._allowed and self._store is not None and self._listens(_MODEL)
        if look is None:
            return UpdateState(in_progress=begins, can_start=can_start)
        updating = look.status == "updating"
        return UpdateState(
            latest_version=look.version,
            in_progress=begins or (updating and runs),
            can_start=can_start,
            looked_at=look.at,
            status="stopped" if updating and not runs else look.status,
            text=look.text,
            error=look.error,
        )

    def start(self, *, check: bool) -> UpdateStarted:
        """Have an update made, or looked for only, with all the rules that the updater has.

        Raises:
            RequestError: It is not allowed, one runs already, or nothing here would make it.
        """
        if not self._allowed:
            raise RequestError(
                "Updates of this device are not started over MQTT: mqtt.remote_config is false. Run `sudo systemctl "
                "start moedge-update` on the board.",
                key="request.update_not_allowed",
            )
        look = self._look()
        if self._runs() or self._starting(look):
            raise RequestError(
                "An update is being looked for or made already. Ask again when it has ended; the topic update/state "
                "says what became of it.",
                key="update.running",
            )
        names: dict[Literal["model", "system"], str] = {"model": _CHECK if check else _MODEL}
        if not check:
            names["system"] = _SYSTEM
        if self._store is None:
            names.pop("model")
        if _without_source():
            raise RequestError(
                f"There is no source of updates. Write `source: https://…` into '{UPDATE_CONFIG}'.",
                key="update.no_source",
            )
        started = [part for part, name in names.items() if _connect(SOCKETS / name)]
        if not started:
            raise self._nothing_listens()
        log.info(
            "An update of %s is %s, as a request asks for.", " and ".join(started), "looked for" if check else "started"
        )
        if "model" in started:
            self._started_s, self._look_before, self._checking = time.monotonic(), look, check
        return UpdateStarted(started=started, check=check)

    def _nothing_listens(self) -> MoedgeError:
        if self._store is None:
            return RequestError(
                f"model.bundle is no link of a bundle store, and only those are updated. Write "
                f"/var/lib/moedge/store/{CURRENT_NAME}/NAME into model.bundle of moedge.yaml.",
                key="update.not_in_store",
            )
        return RequestError(
            f"Nothing on this machine starts updates: no unit listens on '{SOCKETS / _MODEL}'. With the Debian "
            f"package write '{UPDATE_CONFIG}' and run `sudo systemctl start moedge-update.timer`; without it, as in a "
            f"container, run `moedge bundle update` there.",
            key="update.not_here",
        )

    def _runs(self) -> bool:
        return self._store is not None and holder(self._store / UPDATE_LOCK_NAME) is not None

    def _starting(self, look: LastLook | None) -> bool:
        started_s = self._started_s
        return started_s is not None and time.monotonic() < started_s + START_S and look == self._look_before

    def _look(self) -> LastLook | None:
        with suppress(OSError, ValidationError):
            if self._store is not None:
                return LastLook.model_validate_json((self._store / LOOK_NAME).read_bytes())
        return None

    def _listens(self, name: str) -> bool:
        with suppress(OSError):
            return stat.S_ISSOCK((SOCKETS / name).stat().st_mode)
        return False


def _connect(path: Path) -> bool:
    """Whether somebody listens there, who knows now that there was a connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)  # a queue that is full is an error
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _without_source() -> bool:
    """Whether update.yaml is there and names no source; what is wrong with it otherwise the updater says."""
    try:
        value = yaml.safe_load(UPDATE_CONFIG.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return value is None or (isinstance(value, dict) and value.get("source") is None)
