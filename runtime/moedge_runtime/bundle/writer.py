"""Writes a bundle so that it is either whole under its name or not there at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from moedge_runtime.bundle.manifest import FileEntry, Manifest
from moedge_runtime.bundle.reader import CHECKSUM_NAME, MANIFEST_NAME, checksum_line
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.durable import sync_path
from moedge_runtime.errors import StorageError


class BundleWriter:
    """Context manager: files are written into a workspace beside `destination`, then renamed to it.

    Leaving the block with an exception, or without `finish`, removes the workspace unless `kept` is set. Errors of the
    disk become `StorageError`. One writer at a time has the workspace of a destination, by a lock that ends with its
    process.

    Args:
        destination: The bundle's directory; its parents are made.
        overwrite: Replace the bundle that is there. Anything that is no bundle is never replaced.
        resume: Leave what an earlier writer kept, or was killed over, in the workspace; else it is removed.

    Attributes:
        workspace: `.<name>.partial` beside the destination.
        path: The bundle in the making, a directory in the workspace; put the files of the bundle here.
        kept: Why the workspace is worth keeping after an error, in a sentence for the user; None if it is not.
    """

    def __init__(self, destination: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.destination = destination.absolute()
        if not self.destination.name:
            raise StorageError(
                f"'{destination}' is no place for a bundle. Give a directory to make.", key="storage.not_a_bundle"
            )
        self.workspace = workspace_of(destination)
        self.path = self.workspace / "bundle"
        self.kept: str | None = None
        self._overwrite = overwrite
        self._resume = resume
        self._finished = False
        self._lock = -1

    def __enter__(self) -> BundleWriter:
        check_destination(self.destination, overwrite=self._overwrite)
        with disk_errors(self.destination):
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked_workspace()
            try:
                # Another writer may have finished meanwhile.
                check_destination(self.destination, overwrite=self._overwrite)
                if not self._resume:
                    self.clear()
                self.path.mkdir(exist_ok=True)
            except BaseException:
                with suppress(OSError):
                    self.workspace.rmdir()  # if there is nothing in it
                os.close(self._lock)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._finished or self.kept is None:
            shutil.rmtree(self.workspace, ignore_errors=True)
        os.close(self._lock)
        if isinstance(error, OSError):
            with disk_errors(self.destination, self.kept or "Nothing was left behind."):
                raise error

    def clear(self) -> None:
        """Remove everything from the workspace."""
        for path in self.workspace.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.path.mkdir()

    def file_entries(self, known: Mapping[str, FileEntry] | None = None) -> list[FileEntry]:
        """Size and SHA-256 of every file written so far, sorted by path; those of `known` are not read again."""
        known = known or {}
        files = sorted(path for path in self.path.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
        entries = []
        for path in files:
            name = path.relative_to(self.path).as_posix()
            entries.append(known.get(name) or FileEntry(path=name, nbytes=path.stat().st_size, sha256=sha256_of(path)))
        return entries

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, flush everything to the disk and give the directory its name."""
        with disk_errors(self.destination, self.kept or "Nothing was left behind."):
            content = f"{manifest.model_dump_json(indent=1)}\n".encode()
            (self.path / MANIFEST_NAME).write_bytes(content)
            (self.path / CHECKSUM_NAME).write_text(checksum_line(content))
            for path in self.path.rglob("*"):
                sync_path(path)
            sync_path(self.path)
            if self.destination.exists():
                replaced = self.workspace / "replaced"
                self.destination.rename(replaced)
                try:
                    self.path.rename(self.destination)
                except OSError:
                    replaced.rename(self.destination)
                    raise
            else:
                self.path.rename(self.destination)
            self._finished = True
            sync_path(self.destination.parent)

    def _locked_workspace(self) -> int:
        """Descriptor of the workspace, made if it is not there, that holds its lock until it is closed."""
        while True:
            self.workspace.mkdir(exist_ok=True)
            try:
                descriptor = os.open(self.workspace, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A writer that ended between our two steps has removed the directory whose lock we got.
                if self.workspace.exists() and os.path.samestat(os.fstat(descriptor), self.workspace.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise StorageError(
                    f"Another process is writing '{self.destination}' at this moment. Wait until it ends, or choose "
                    f"another directory.",
                    key="storage.locked",
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def check_destination(destination: Path, *, overwrite: bool) -> None:
    """Check that a bundle may be written to `destination`.

    Raises:
        StorageError: Something is there that may not be replaced.
    """
    if destination.exists() and not overwrite:
        raise StorageError(
            f"'{destination}' exists already. Remove it, choose another directory, or pass --overwrite.",
            key="storage.exists",
        )
    if destination.exists() and not (destination / MANIFEST_NAME).is_file():
        raise StorageError(
            f"'{destination}' is no bundle: it has no {MANIFEST_NAME}, so --overwrite leaves it alone. "
            f"Remove it yourself or choose another directory.",
            key="storage.not_a_bundle",
        )


def workspace_of(destination: Path) -> Path:
    """Where a bundle is made before it gets its name; what an interrupted export keeps lies there."""
    absolute = destination.absolute()
    return absolute.with_name(f".{absolute.name}.partial")


@contextmanager
def disk_errors(destination: Path, left: str = "Nothing was left behind.") -> Iterator[None]:
    """Turn an OSError of the block into a `StorageError` that says what to do, and with `left` what is still there."""
    try:
        yield
    except OSError as error:
        free = _free_bytes(destination)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"The disk of '{destination}' is full ({free / 1e6:,.0f} MB free). {left} "
                f"Free space or choose another disk."
            )
            raise StorageError(message, key="storage.full") from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            message = (
                f"'{destination}' cannot be written: {error.strerror}. {left} Choose a directory that you may write to."
            )
            raise StorageError(message, key="storage.read_only") from error
        raise StorageError(f"Writing '{destination}' failed: {error}. {left}", key="storage.failed") from error


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
