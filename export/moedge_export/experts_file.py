"""experts.bin in the making: layers may be there already, and its SHA-256 is taken while it is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import google_crc32c
import numpy as np
import numpy.typing as npt
from moedge_runtime.bundle.manifest import FileEntry

EXPERTS_NAME = "experts.bin"


class ExpertsFile:
    """Context manager around the open file; for one thread.

    Args:
        path: Made if it is not there. A file with another link is replaced, because that may belong to a bundle.
        record_bytes: Length of a record.
        layer_records: Number of experts in a layer.
    """

    def __init__(self, path: Path, record_bytes: int, layer_records: int) -> None:
        if path.exists() and path.stat().st_nlink > 1:
            path.unlink()
        self._path = path
        self._record_bytes = record_bytes
        self._layer_records = layer_records
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._digest = hashlib.sha256()
        self._digested_bytes = 0

    def __enter__(self) -> ExpertsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def is_intact(self, position: int, crc32c: Sequence[int]) -> bool:
        """Read the records of the layer at `position` among those with experts, and compare their CRC-32C."""
        start = position * self._layer_records * self._record_bytes
        digest = self._digest.copy()
        for expert, expected in enumerate(crc32c):
            record = os.pread(self._descriptor, self._record_bytes, start + expert * self._record_bytes)
            if len(record) < self._record_bytes or google_crc32c.value(record) != expected:
                return False
            digest.update(record)
        if start == self._digested_bytes:
            self._digest, self._digested_bytes = digest, start + len(crc32c) * self._record_bytes
        return True

    def write(self, position: int, expert: int, record: npt.NDArray[np.uint8]) -> None:
        """Write the record of expert `expert` of the layer at `position`."""
        start = (position * self._layer_records + expert) * self._record_bytes
        view = record.data
        while view:
            view = view[os.pwrite(self._descriptor, view, start + self._record_bytes - len(view)) :]
        if start == self._digested_bytes:
            self._digest.update(record.data)
            self._digested_bytes += self._record_bytes

    def flush(self) -> None:
        """Bring everything written to the disk."""
        os.fsync(self._descriptor)

    def entry(self) -> FileEntry:
        """The file's entry in the manifest; reads only what came behind a gap that was filled later."""
        with self._path.open("rb") as file:
            file.seek(self._digested_bytes)
            while chunk := file.read(self._record_bytes):
                self._digest.update(chunk)
                self._digested_bytes += len(chunk)
        return FileEntry(path=self._path.name, nbytes=self._digested_bytes, sha256=self._digest.hexdigest())
