"""What the updater of the model notes of each run, so that the daemon can say it on MQTT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moedge_runtime.daemon.clock import utc_now
from moedge_runtime.daemon.updates import LOOK_NAME, LastLook, Status
from moedge_runtime.errors import MoedgeError
from moedge_runtime.mqtt.payloads import ErrorInfo
from pydantic import ValidationError


class Look:
    """One run, in look.json of a store. That nothing can be written there hinders no update.

    Args:
        root: The store.

    Attributes:
        version: The newest one for this device; that of an earlier run until this one knows.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / LOOK_NAME
        self.version: str | None = None
        with suppress(OSError, ValidationError):
            self.version = LastLook.model_validate_json(self._path.read_bytes()).version

    def note(self, status: Status, text: str, error: ErrorInfo | None = None) -> None:
        """Say how far it is or what it did; not synced, since the next run says it anew."""
        look = LastLook(at=utc_now(), status=status, version=self.version, text=text, error=error)
        draft = self._path.with_name(f".{LOOK_NAME}.new")
        with suppress(OSError):
            draft.write_bytes(look.model_dump_json().encode())
            draft.chmod(0o644)
            draft.replace(self._path)


@contextmanager
def noted(root: Path) -> Iterator[Look]:
    """What one run notes in a store; an error that ends it is noted as well."""
    look = Look(root)
    try:
        yield look
    except MoedgeError as error:
        look.note("failed", str(error), ErrorInfo(key=error.key, message=str(error)))
        raise
