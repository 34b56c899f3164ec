"""One file by its content: fetched, gone on with, checked, and only then part of the store."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from moedge_runtime.mqtt.backoff import Backoff

from moedge_devices.store.errors import SourceError, TrustError
from moedge_devices.store.source import CHUNK_BYTES, NotThereError, Source
from moedge_devices.store.store import Store

SYNC_BYTES = 64 << 20
"""A power cut costs about so much of a download."""

ATTEMPTS = 6
"""In a row without a new byte; the waits between them add up to about 30 s."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class _Wanted:
    """A content and its length."""

    sha256: str
    nbytes: int


def content_path(sha256: str) -> str:
    """Where a source keeps the file with this content."""
    return f"files/{sha256[:2]}/{sha256}"


def fetch(
    store: Store,
    source: Source,
    sha256: str,
    nbytes: int,
    progress: Progress = lambda advance: None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Bring a file into the store, which is locked. What an earlier run has fetched of it is taken over.

    Args:
        store: Where to.
        source: Where from.
        sha256: Its content.
        nbytes: Its length.
        progress: Told the bytes that were gained; negative if some were of no use.
        sleep: Waits between attempts.

    Raises:
        NotThereError: The source does not have it.
        SourceError: The source breaks off again and again. What was fetched is kept.
        TrustError: Fetched as a whole from the beginning, it is another content. It is removed.
    """
    partial = store.partial / sha256
    resumed = partial.exists() and partial.stat().st_size > 0
    try:
        _fetch(partial, source, _Wanted(sha256, nbytes), progress, sleep)
    except TrustError:
        if not resumed:
            raise
        # Its beginning may be what a power cut left of an earlier run.
        _fetch(partial, source, _Wanted(sha256, nbytes), progress, sleep)
    store.put(partial, sha256)


def _fetch(partial: Path, source: Source, wanted: _Wanted, progress: Progress, sleep: Callable[[float], None]) -> None:
    """Make `partial` the whole file, synced."""
    backoff, failures = Backoff(cap_s=10.0), 0
    with partial.open("ab") as file:
        if file.tell() > wanted.nbytes:
            file.truncate(0)
        digest = _digest_of(partial)
        progress(_size(file))
        while (before := _size(file)) < wanted.nbytes:
            try:
                digest = _append(file, source, wanted, digest, progress)
                fault = f"{source} sent {_size(file):,} of {wanted.nbytes:,} bytes of a file and no more"
                error = SourceError(f"{fault}. Publish again; what was fetched is kept.", key="update.truncated")
            except NotThereError:
                raise
            except SourceError as broken:
                error = broken
            if _size(file) > before:
                backoff.reset()
                failures = 0
                continue
            failures += 1
            if failures >= ATTEMPTS or error.key in ("update.certificate", "update.redirected"):
                raise error
            if _size(file) < wanted.nbytes:
                sleep(backoff.next_s())
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != wanted.sha256:
        progress(-wanted.nbytes)
        partial.unlink()
        raise TrustError(
            f"A file from {source} is not what the release says: its SHA-256 is {digest.hexdigest()[:12]}…, it must be "
            f"{wanted.sha256[:12]}…. It was removed. Publish again, or look who can write to the source.",
            key="update.wrong_hash",
        )


def _append(
    file: IO[bytes], source: Source, wanted: _Wanted, digest: hashlib._Hash, progress: Progress
) -> hashlib._Hash:
    """Append what the source sends, `wanted.nbytes` in all at most; the digest of all that is in the file."""
    unsynced = 0
    with source.stream(content_path(wanted.sha256), _size(file)) as (offset, pieces):
        if offset != _size(file):
            progress(-_size(file))
            file.truncate(0)
            digest = hashlib.sha256()
        for piece in pieces:
            if _size(file) + len(piece) > wanted.nbytes:
                progress(-_size(file))
                file.truncate(0)
                raise TrustError(
                    f"A file from {source} is longer than the release says ({wanted.nbytes:,} bytes). It was removed. "
                    f"Publish again, or look who can write to the source.",
                    key="update.wrong_hash",
                )
            file.write(piece)
            file.flush()
            digest.update(piece)
            progress(len(piece))
            unsynced += len(piece)
            if unsynced >= SYNC_BYTES:
                os.fsync(file.fileno())
                unsynced = 0
    return digest


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _digest_of(path: Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest
