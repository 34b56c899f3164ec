"""What has been written lasts through a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_path(path: Path) -> None:
    """Have the content of a file, or the names in a directory, written to the disk.

    Raises:
        OSError: The disk is full or failing, or there is no such path.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write beside, sync, rename, sync: `path` holds the old or the new content, whole; readable by all.

    Raises:
        OSError: The disk is full, read-only or failing, or there is no such directory.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_path(path.parent)
