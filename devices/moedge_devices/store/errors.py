"""What can go wrong with releases and updates, one class per thing the caller can do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moedge_runtime.errors import MoedgeError, StorageError


class SourceError(MoedgeError):
    """The source of releases cannot be reached, or breaks off. Check address, network and certificate; try again."""

    key = "update.source"


class TrustError(MoedgeError):
    """What the source gave is signed by nobody we trust, was changed, or is older than what was seen. Do not use it."""

    key = "update.untrusted"


class RefusedError(MoedgeError):
    """A release is genuine, but not for this device or not now. Choose another one."""

    key = "update.refused"


class UpdateFailedError(MoedgeError):
    """The new model did not answer; the old one is in its place again. Look at the daemon's log."""

    key = "update.failed"


_KEYS = {errno.ENOSPC: "storage.full", errno.EDQUOT: "storage.full", errno.EROFS: "storage.read_only"}


@contextmanager
def storage_errors(place: Path, what: str) -> Iterator[None]:
    """Failures of the disk inside this block as StorageError.

    Args:
        place: The directory that is written to.
        what: What cannot be done, for example "The bundle store".
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{what} '{place}' cannot be written: {error.strerror or error}. What is there is whole. Free space, or "
            f"choose a place that may be written, and run the command again.",
            key=_KEYS.get(error.errno or 0, "storage"),
        ) from error
