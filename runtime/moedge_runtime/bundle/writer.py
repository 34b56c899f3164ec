"""Writes a bundle so that it is either whole under its name or not there at all."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from moedge_runtime.bundle.manifest import FileEntry, Manifest
from moedge_runtime.bundle.reader import CHECKSUM_NAME, MANIFEST_NAME, checksum_line
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.errors import StorageError


class BundleWriter:
    """Context manager: files are written under a temporary directory beside `destination`, then renamed to it.

    Leaving the block with an exception, or without `finish`, removes the temporary directory. Errors of the disk
    become `StorageError`. What a writer of this destination left when it was killed is removed first.

    Args:
        destination: The bundle's directory; its parents are made.
        overwrite: Replace the bundle that is there. Anything that is no bundle is never replaced.

    Attributes:
        path: The temporary directory; put the files of the bundle here.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False) -> None:
        self.destination = destination.absolute()
        if not self.destination.name:
            raise StorageError(
                f"'{destination}' is no place for a bundle. Give a directory to make.", key="storage.not_a_bundle"
            )
        self.path = self.destination.with_name(f"{self._partial_prefix}{os.getpid()}")
        self._overwrite = overwrite
        self._finished = False

    @property
    def _partial_prefix(self) -> str:
        return f".{self.destination.name}.partial-"

    def __enter__(self) -> BundleWriter:
        if self.destination.exists() and not self._overwrite:
            raise StorageError(
                f"'{self.destination}' exists already. Remove it, choose another directory, or pass --overwrite.",
                key="storage.exists",
            )
        if self.destination.exists() and not (self.destination / MANIFEST_NAME).is_file():
            raise StorageError(
                f"'{self.destination}' is no bundle: it has no {MANIFEST_NAME}, so --overwrite leaves it alone. "
                f"Remove it yourself or choose another directory.",
                key="storage.not_a_bundle",
            )
        with disk_errors(self.destination):
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self.path.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._finished:
            shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError):
            with disk_errors(self.destination):
                raise error

    def _remove_leftovers(self) -> None:
        """Remove the temporary directories of writers that were killed."""
        for path in self.destination.parent.glob(f"{glob.escape(self._partial_prefix)}*"):
            process = path.name.removeprefix(self._partial_prefix).partition(".")[0]
            if process.isdigit() and not Path("/proc", process).exists():
                shutil.rmtree(path, ignore_errors=True)

    def file_entries(self) -> list[FileEntry]:
        """Size and SHA-256 of every file written so far, sorted by path."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
        return [
            FileEntry(path=path.relative_to(self.path).as_posix(), nbytes=path.stat().st_size, sha256=sha256_of(path))
            for path in files
        ]

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, flush everything to the disk and give the directory its name."""
        with disk_errors(self.destination):
            content = f"{manifest.model_dump_json(indent=1)}\n".encode()
            (self.path / MANIFEST_NAME).write_bytes(content)
            (self.path / CHECKSUM_NAME).write_text(checksum_line(content))
            for path in self.path.rglob("*"):
                _fsync(path)
            _fsync(self.path)
            if self.destination.exists():
                replaced = self.path.with_name(f"{self.path.name}.replaced")
                self.destination.rename(replaced)
                try:
                    self.path.rename(self.destination)
                except OSError:
                    replaced.rename(self.destination)
                    raise
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                self.path.rename(self.destination)
            self._finished = True
            _fsync(self.destination.parent)


@contextmanager
def disk_errors(destination: Path) -> Iterator[None]:
    """Turn an OSError of the block into a `StorageError` that says what to do about it."""
    try:
        yield
    except OSError as error:
        free = _free_bytes(destination)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"The disk of '{destination}' is full ({free / 1e6:,.0f} MB free); nothing was left behind. "
                f"Free space or choose another disk."
            )
            raise StorageError(message, key="storage.full") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            message = f"'{destination}' cannot be written: {error.strerror}. Choose a directory that you may write to."
            raise StorageError(message, key="storage.read_only") from error
        raise StorageError(f"Writing '{destination}' failed: {error}.", key="storage.failed") from error


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
