"""The thread that brings answers from memory to the spool: at once without a broker, else when it is slow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from moedge_runtime.errors import StorageError
from moedge_runtime.mqtt.outbox import Entry, Outbox
from moedge_runtime.mqtt.spool import Spool

GRACE_S = 1.0
"""An answer that the broker acknowledges sooner never touches the disk."""

RETRY_S = 10.0
"""After an error of the disk."""

EXPIRY_S = 60.0
"""Between two looks for what is too old."""

log = logging.getLogger(__name__)


class Keeper:
    """Writes what lasts into the spool, as much at once as there is.

    Args:
        spool: Where to.
        outbox: Where from.
        changed: Guards the outbox; notified when it or the connection changes.
        connected: Whether there is a broker.
        on_kept: Called when something was written.

    Attributes:
        error: What the disk said last; None if it works.
    """

    def __init__(
        self,
        spool: Spool,
        outbox: Outbox,
        changed: threading.Condition,
        connected: Callable[[], bool],
        on_kept: Callable[[], None],
    ) -> None:
        self._spool, self._outbox, self._changed = spool, outbox, changed
        self._connected, self._on_kept = connected, on_kept
        self._stopping = False
        self._retry_at_s = 0.0
        self._expire_at_s = 0.0
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and write what is left."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        written = True
        while written:
            with self._changed:
                batch = self._outbox.keep(float("inf"), self._spool.segment_bytes)
            written = bool(batch) and self._write(batch)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not (batch := self._due()) and time.monotonic() < self._expire_at_s:
                    self._changed.wait(self._patience_s())
                if self._stopping:
                    for entry in batch:
                        self._outbox.not_kept(entry)
                    return
            if batch:
                self._write(batch)
            if time.monotonic() >= self._expire_at_s:
                self._expire_at_s = time.monotonic() + EXPIRY_S
                self._spool.expire()

    def _due(self) -> list[Entry]:
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            return []
        return self._outbox.keep(now_s - (GRACE_S if self._connected() else 0.0), self._spool.segment_bytes)

    def _patience_s(self) -> float:
        """Seconds until there may be something to do, unless something changes."""
        wake_s = self._expire_at_s
        since_s = self._outbox.due_since_s()
        if since_s is not None:
            wake_s = min(wake_s, max(self._retry_at_s, since_s + GRACE_S))
        return max(0.01, wake_s - time.monotonic())

    def _write(self, batch: list[Entry]) -> bool:
        try:
            sequences = self._spool.append([(entry.message.topic, entry.message.delayed().payload) for entry in batch])
        except StorageError as error:
            with self._changed:
                for entry in batch:
                    self._outbox.not_kept(entry)
            if str(error) != self.error:
                log.error("%s Answers wait in memory.", error)
            self.error = str(error)
            self._retry_at_s = time.monotonic() + RETRY_S
            return False
        with self._changed:
            for entry, sequence in zip(batch, sequences, strict=True):
                if self._outbox.kept(entry, sequence):
                    self._spool.taken(sequence)
                    if entry.acknowledged:
                        self._spool.delivered(sequence)
        if self.error is not None:
            log.info("The spool '%s' can be written again.", self._spool.directory)
        self.error = None
        self._on_kept()
        return True
