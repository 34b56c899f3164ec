"""Checks every byte of a bundle against the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from moedge_runtime.bundle.manifest import FileEntry
from moedge_runtime.bundle.reader import Bundle, unreadable
from moedge_runtime.errors import BundleError

CHUNK_BYTES = 1 << 22


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file in hexadecimal; `progress` is called with the bytes of each chunk read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()


def damaged_files(bundle: Bundle, progress: Callable[[int], None] | None = None, *, experts: bool = True) -> list[str]:
    """Paths of all files of an opened bundle whose content is not what the manifest says, in manifest order.

    Args:
        bundle: The opened bundle.
        progress: Called with the bytes of each chunk read.
        experts: False leaves the experts of a paged bundle out: each record has a CRC-32C that is checked when it is
            read.

    Raises:
        BundleError: A file cannot be read.
    """
    info = bundle.manifest.experts
    left_out = info.file if info is not None and not experts else None
    return [
        entry.path
        for entry in bundle.manifest.files
        if entry.path != left_out and _sha256_of_entry(bundle, entry, progress) != entry.sha256
    ]


def _sha256_of_entry(bundle: Bundle, entry: FileEntry, progress: Callable[[int], None] | None) -> str:
    try:
        return sha256_of(bundle.file(entry.path), progress)
    except OSError as error:
        raise unreadable(bundle.path, entry.path, error) from error


def verify_bundle(bundle: Bundle, progress: Callable[[int], None] | None = None, *, experts: bool = True) -> None:
    """Read every file and compare its SHA-256 with the manifest; arguments as for `damaged_files`.

    Raises:
        BundleError: Names every damaged file, or one that cannot be read.
    """
    damaged = damaged_files(bundle, progress, experts=experts)
    if damaged:
        names = ", ".join(f"'{name}'" for name in damaged)
        raise BundleError(
            f"Bundle '{bundle.path}' is damaged: SHA-256 differs from the manifest for {names}. Copy the bundle again.",
            key="bundle.checksum_mismatch",
        )
