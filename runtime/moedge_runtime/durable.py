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


class Drafts:
    """New contents of files, beside them until they are taken over; a file holds its old or its new one, whole."""

    def __init__(self) -> None:
        self._drafts: dict[Path, Path] = {}

    def add(
        self,
        path: Path,
        content: bytes,
        *,
        mode: int = 0o644,
        owner: tuple[int, int] | None = None,
        several_writers: bool = False,
    ) -> None:
        """Write the new content of a file, and sync it.

        Args:
            path: The file; it need not be there yet, its directory must.
            content: All of it.
            mode: Permissions, whatever the umask says.
            owner: User and group, if this process may give files away; None for its own.
            several_writers: Other processes may write the file at the same time, so that each needs a draft of its own.

        Raises:
            OSError: The disk is full, read-only or failing, or there is no such directory. No draft is left.
        """
        draft = path.with_name(f".{path.name}.{os.getpid()}.new" if several_writers else f".{path.name}.new")
        try:
            draft.unlink(missing_ok=True)  # of a run that was cut short
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._drafts[path] = draft
            with os.fdopen(descriptor, "wb") as file:
                if owner is not None:
                    with suppress(OSError):  # only root gives files away
                        os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            self.discard()
            raise

    def take_over(self) -> None:
        """Let each draft take its file's place, in the order in which they were added, and make that last.

        Raises:
            OSError: The disk is read-only or failing. Drafts that were not taken over are gone.
        """
        try:
            for path, draft in self._drafts.items():
                draft.replace(path)
            for directory in {path.parent: None for path in self._drafts}:
                sync_path(directory)
        except OSError:
            self.discard()
            raise
        self._drafts = {}

    def discard(self) -> None:
        """Leave the files as they are."""
        for draft in self._drafts.values():
            with suppress(OSError):
                draft.unlink()
        self._drafts = {}


def write_durably(path: Path, content: bytes, *, several_writers: bool = False) -> None:
    """Write beside, sync, rename, sync: `path` holds the old or the new content, whole; readable by all.

    Args:
        path: The file.
        content: All of it.
        several_writers: As for `Drafts.add`.

    Raises:
        OSError: The disk is full, read-only or failing, or there is no such directory.
    """
    drafts = Drafts()
    drafts.add(path, content, several_writers=several_writers)
    drafts.take_over()
