"""What `moedge fleet apply` has done, one JSON object a line, so that it can go on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from moedge_runtime.errors import StorageError


@dataclass(frozen=True)
class Acknowledged:
    """A device has taken a configuration.

    Attributes:
        device: Its name.
        sha256: Of the texts that it was sent.
        url: The broker that it is configured for since then; None for its own.
        base_topic: The first levels of its topics since then.
        at: When, RFC 3339.
    """

    device: str
    sha256: str
    url: str | None
    base_topic: str
    at: str


class Journal:
    """The last acknowledgement of every device. A line that a crash has cut is ignored, and its device asked again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: dict[str, Acknowledged] = {}
        self._file = -1

    @contextmanager
    def open(self) -> Iterator[Journal]:
        """Read what there is, and keep others from applying with the same journal.

        Raises:
            StorageError: It cannot be read or written, or another apply uses it.
        """
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._failure(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.read()
            yield self
        except BlockingIOError as error:
            raise StorageError(
                f"Another `moedge fleet apply` uses the journal '{self.path}'. Wait for it.", key="storage.locked"
            ) from error
        finally:
            os.close(self._file)
            self._file = -1

    def read(self) -> None:
        """Take over what earlier runs have noted; a journal that is not there holds nothing.

        Raises:
            StorageError: It cannot be read.
        """
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failure(error) from error
        for line in text.splitlines():
            try:
                entry = Acknowledged(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self.last[entry.device] = entry
        if self._file >= 0 and text and not text.endswith("\n"):
            self._write(b"\n")

    def note(self, entry: Acknowledged) -> None:
        """A device has acknowledged.

        Raises:
            StorageError: That cannot be written down.
        """
        self.last[entry.device] = entry
        self._write(json.dumps(asdict(entry)).encode() + b"\n")

    def sync(self) -> None:
        """Put what was noted on the disk."""
        os.fsync(self._file)

    def _write(self, line: bytes) -> None:
        try:
            os.write(self._file, line)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(
            f"The journal '{self.path}' cannot be used: {error.strerror}. Give another place with --journal."
        )
