"""What the spool does to its directory, one method for each step that a crash can come before or after."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

import google_crc32c

_SUFFIX = ".seg"
_CURSOR = "cursor"
_SLOT = struct.Struct("<QI4x")


class SpoolFiles:
    """The files of one spool: segments named by their first sequence number, and the cursor.

    Raises OSError wherever the disk does. Nothing is written and no directory made before the first `create`.

    Attributes:
        written_bytes: Handed to the kernel for the disk since start.
        syncs: Times that it was asked to bring them there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None
        self._cursor: int | None = None
        self._slot = 0
        self.written_bytes = 0
        self.syncs = 0

    def lock(self) -> bool:
        """Keep other processes out; False if one is in. Without a directory there is nothing to lock yet."""
        if self._lock is None and self._directory.is_dir():
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def segments(self) -> list[tuple[int, int]]:
        """First sequence number and size in bytes of every segment, oldest first."""
        found = []
        with suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                if path.suffix == _SUFFIX:
                    with suppress(ValueError):
                        found.append((int(path.stem, 16), path.stat().st_size))
        return sorted(found)

    def read(self, first: int, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a segment."""
        with self._path(first).open("rb", buffering=0) as file:
            file.seek(start)
            content = bytearray()
            while len(content) < end - start:
                piece = file.read(end - start - len(content))
                if not piece:
                    break
                content += piece
        return bytes(content)

    def create(self, first: int) -> int:
        """A new, empty segment; its file descriptor."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self.lock():
            raise BlockingIOError(None, "another process uses it", str(self._directory))
        return os.open(self._path(first), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def sync_directory(self) -> None:
        """Make a new segment's name last."""
        if self._lock is not None:
            self.syncs += 1
            os.fsync(self._lock)

    def append(self, descriptor: int, content: bytes) -> None:
        """Write at the end of a segment."""
        rest = memoryview(content)
        while rest:
            count = os.write(descriptor, rest)
            self.written_bytes += count
            rest = rest[count:]

    def sync(self, descriptor: int) -> None:
        """Make what was appended last."""
        self.syncs += 1
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Take back what was appended behind `size`."""
        os.ftruncate(descriptor, size)

    def close_segment(self, descriptor: int) -> None:
        """Nothing more comes into a segment."""
        os.close(descriptor)

    def delete(self, first: int) -> None:
        """Remove a segment."""
        self._path(first).unlink(missing_ok=True)

    def load_cursor(self) -> int:
        """The sequence number before which everything was delivered; 0 if nobody knows."""
        try:
            content = (self._directory / _CURSOR).read_bytes()
        except OSError:
            return 0
        values = []
        for slot in range(len(content) // _SLOT.size):
            value, crc = _SLOT.unpack_from(content, slot * _SLOT.size)
            if crc == google_crc32c.value(value.to_bytes(8, "little")):
                values.append(value)
        return max(values, default=0)

    def save_cursor(self, value: int) -> None:
        """Note the cursor, in two places by turns, so that one is whole at any time.

        The kernel brings it to the disk when it likes: after a power cut some messages are delivered twice.
        """
        if self._cursor is None:
            self._cursor = os.open(self._directory / _CURSOR, os.O_WRONLY | os.O_CREAT, 0o600)
        content = _SLOT.pack(value, google_crc32c.value(value.to_bytes(8, "little")))
        os.pwrite(self._cursor, content, self._slot * _SLOT.size)
        self.written_bytes += len(content)
        self._slot = 1 - self._slot

    def close(self) -> None:
        """Let other processes in."""
        for descriptor in (self._cursor, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._cursor = self._lock = None

    def _path(self, first: int) -> Path:
        return self._directory / f"{first:016x}{_SUFFIX}"
