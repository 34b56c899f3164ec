"""The bundles on a board: files by their content, versions that share them by hard links, and a link to the one in use.

    files/ab/abcd…             every file once, by its SHA-256, never changed
    bundles/NAME/VERSION/      a whole bundle; its files are hard links to those in files/
    releases/NAME/VERSION.json what the index said of it
    current/NAME               a symbolic link to ../bundles/NAME/VERSION: model.bundle of moedge.yaml
    systems/NAME/VERSION.raucb an update of the system until it is installed, a hard link to one in files/
    partial/                   what is not whole yet
    trust.json, update.json    what was seen of the source; an update under way
    look.json, update.lock     what the last run did, and that one runs, for the daemon

A name appears in files/, bundles/ and current/ by one rename, after everything behind it was synced: whatever is there
is whole, after a kill and after a power cut.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.bundle import Bundle, Manifest
from moedge_runtime.bundle.reader import CHECKSUM_NAME, MANIFEST_NAME, checksum_line
from moedge_runtime.durable import sync_path, write_durably
from moedge_runtime.errors import ConfigError, StorageError
from pydantic import ValidationError

from moedge_devices.store.documents import Release, SystemRelease
from moedge_devices.store.durable import link_durably, make_directory, remove_durably
from moedge_devices.store.errors import storage_errors

DEFAULT_STORE = Path("/var/lib/moedge/store")


@dataclass(frozen=True)
class Installed:
    """A version that is whole.

    Attributes:
        release: What the index said of it.
        path: Its directory.
        current: Whether current/NAME points to it.
    """

    release: Release
    path: Path
    current: bool


class Store:
    """The store in a directory, which is made if need be. Reading needs no lock, changing does (`locked`)."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.files, self.bundles, self.releases = (self.root / name for name in ("files", "bundles", "releases"))
        self.current, self.partial = self.root / "current", self.root / "partial"
        self.systems = self.root / "systems"
        self.trust, self.journal = self.root / "trust.json", self.root / "update.json"

    @contextmanager
    def locked(self, name: str = "lock") -> Iterator[None]:
        """Be the only one that changes the store; failures of the disk inside are StorageErrors.

        Raises:
            StorageError: Another process changes it, or the disk is full, read-only or failing.
        """
        with storage_errors(self.root, "The bundle store"):
            for directory in (self.files, self.bundles, self.releases, self.current, self.partial):
                make_directory(directory)
            descriptor = os.open(self.root / name, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise StorageError(
                        f"Another command changes the store '{self.root}'. Wait for it.", key="storage.locked"
                    ) from error
                with suppress(OSError):  # not where locks of both kinds are one, as over NFS
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # others can ask for it without taking it
                yield
            finally:
                os.close(descriptor)

    def file(self, sha256: str) -> Path:
        """Where the file with this content is, if it is there."""
        return self.files / sha256[:2] / sha256

    def bundle(self, name: str, version: str) -> Path:
        """Where a version is, if it is there."""
        return self.bundles / name / version

    def link(self, name: str) -> Path:
        """What model.bundle of moedge.yaml names."""
        return self.current / name

    def version_in_use(self, name: str) -> str | None:
        """The version to which current/NAME points; None without one."""
        try:
            return self.link(name).readlink().name
        except OSError:
            return None

    def installed(self, name: str | None = None) -> list[Installed]:
        """What is whole, by name, the newest first.

        Raises:
            StorageError: The record of one is damaged.
        """
        found = []
        for path in sorted(self.bundles.glob(f"{name or '*'}/*")):
            current = self.version_in_use(path.parent.name) == path.name
            found.append(Installed(self._record(path.parent.name, path.name), path, current))
        return sorted(found, key=lambda each: (each.release.name, -each.release.number))

    def get(self, name: str, version: str) -> Installed:
        """One version that is whole.

        Raises:
            ConfigError: It is not there.
        """
        for each in self.installed(name):
            if each.release.version == version:
                return each
        raise self.not_installed(name, version)

    def not_installed(self, name: str, version: str | None) -> ConfigError:
        """The error for a version that is not there; None is any."""
        label = name if version is None else f"{name}@{version}"
        there = ", ".join(each.release.version for each in self.installed(name)) or "none"
        return ConfigError(
            f"The store '{self.root}' has no {label}; versions of {name} there: {there}. Install it first: "
            f"`moedge bundle install {label}`.",
            key="bundle.not_installed",
        )

    def missing(self, manifest: Manifest, release: Release) -> dict[str, int]:
        """Files that a bundle needs and that are not here, with their sizes, by content; each once."""
        needed = {entry.sha256: entry.nbytes for entry in manifest.files}
        needed[release.manifest_sha256] = release.manifest_bytes
        return {digest: nbytes for digest, nbytes in needed.items() if self.lacks(digest, nbytes)}

    def lacks(self, sha256: str, nbytes: int) -> bool:
        """Whether a file is not here, or of another length."""
        return not _has(self.file(sha256), nbytes)

    def put_content(self, content: bytes, sha256: str) -> None:
        """Take over a small file whose content was checked."""
        partial = self.partial / sha256
        write_durably(partial, content)
        self.put(partial, sha256)

    def put(self, partial: Path, sha256: str) -> None:
        """Take over a file that is whole, checked and synced."""
        destination = self.file(sha256)
        make_directory(destination.parent)
        partial.chmod(0o444)
        partial.replace(destination)
        sync_path(destination.parent)

    def is_whole(self, release: Release, manifest: Manifest) -> bool:
        """Whether a version is there and every file of it is the one in files/, not one that was damaged."""
        root = self.bundle(release.name, release.version)
        return root.is_dir() and all(
            _same_file(root / relative, self.file(digest)) for relative, digest in _names(release, manifest).items()
        )

    def assemble(self, release: Release, manifest: Manifest) -> Path:
        """Make a version of files that are all here; of one that is there already, replace the files that are others.

        Raises:
            StorageError: The file system has no hard links.
        """
        destination = self.bundle(release.name, release.version)
        names = _names(release, manifest)
        if destination.is_dir():
            for relative, digest in names.items():
                self._relink(self.file(digest), destination / relative)
            return destination
        draft = self.partial / f"{release.name}@{release.version}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for relative, digest in names.items():
            (draft / relative).parent.mkdir(parents=True, exist_ok=True)
            self._link(self.file(digest), draft / relative)
        content = (draft / MANIFEST_NAME).read_bytes()
        write_durably(draft / CHECKSUM_NAME, checksum_line(content).encode())
        for directory in {(draft / relative).parent for relative in names} | {draft}:
            for each in (directory, *directory.parents):
                if each == self.partial:
                    break
                each.chmod(0o755)
                sync_path(each)
        record = self.releases / release.name / f"{release.version}.json"
        make_directory(record.parent)
        write_durably(record, release.model_dump_json().encode())
        make_directory(destination.parent)
        draft.replace(destination)
        sync_path(destination.parent)
        return destination

    def keep_system(self, release: SystemRelease) -> Path:
        """Keep the file of an update of the system, which is here, under its name, and no other one."""
        path = self.systems / release.name / f"{release.version}.raucb"
        for other in self.systems.glob("*/*"):
            if other != path:
                other.unlink()
        self._relink(self.file(release.sha256), path)
        return path

    def drop_systems(self) -> int:
        """Remove updates of the system.

        Returns:
            Bytes that were freed.
        """
        for path in self.systems.glob("*/*"):
            path.unlink()
        return self.collect()

    def use(self, name: str, version: str) -> None:
        """Point current/NAME to a version that is whole.

        Raises:
            ConfigError: It is not there.
        """
        self.get(name, version)
        link_durably(self.link(name), f"../bundles/{name}/{version}")

    def unlink(self, name: str) -> None:
        """Take current/NAME away."""
        remove_durably(self.link(name))

    def remove(self, name: str, version: str) -> int:
        """Take a version away, and files that no other one has.

        Returns:
            Bytes that were freed.

        Raises:
            ConfigError: It is not there, or in use.
        """
        installed = self.get(name, version)
        if installed.current:
            raise ConfigError(
                f"{name}@{version} is in use: '{self.link(name)}' points to it. Choose another one first: "
                f"`moedge bundle use {name}@VERSION`.",
                key="bundle.in_use",
            )
        self._set_aside(installed.path)
        remove_durably(self.releases / name / f"{version}.json")
        return self.collect()

    def keep(self, name: str, versions: int, also: set[str]) -> int:
        """Remove all but the one in use, `also`, and the `versions` newest of the others.

        Returns:
            Bytes that were freed.
        """
        others = [each for each in self.installed(name) if not each.current and each.release.version not in also]
        freed = 0
        for each in others[versions:]:
            freed += self.remove(name, each.release.version)
        return freed

    def collect(self, *, downloads: bool = False) -> int:
        """Remove what no version has: files, rests of runs that were killed and, if asked for, downloads to go on with.

        Returns:
            Bytes that were freed.
        """
        freed = 0
        for path in sorted(self.partial.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif downloads:
                freed += path.stat().st_size
                path.unlink()
        for path in sorted(self.files.glob("*/*")):
            if path.stat().st_nlink == 1:
                freed += path.stat().st_size
                path.unlink()
        for record in sorted(self.releases.glob("*/*.json")):
            if not self.bundle(record.parent.name, record.stem).is_dir():
                record.unlink()
        return freed

    def free_bytes(self) -> int:
        """What may still be written."""
        room = os.statvfs(self.root)
        return room.f_bavail * room.f_frsize

    def open(self, name: str, version: str) -> Bundle:
        """A version as a bundle.

        Raises:
            ConfigError: It is not there.
            BundleError: It is damaged.
        """
        return Bundle.open(self.get(name, version).path)

    def _set_aside(self, path: Path) -> None:
        """Make a version disappear at once; its files go with the next `collect`."""
        aside = self.partial / f"removed-{path.parent.name}@{path.name}"
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        sync_path(path.parent)

    def _record(self, name: str, version: str) -> Release:
        record = self.releases / name / f"{version}.json"
        try:
            return Release.model_validate_json(record.read_bytes())
        except (OSError, ValidationError) as error:
            raise StorageError(
                f"'{record}', which says what {name}@{version} is, cannot be read ({type(error).__name__}). If the "
                f"disk is well, remove '{self.bundle(name, version)}' and install it again.",
                key="storage.damaged",
            ) from error

    def _relink(self, existing: Path, path: Path) -> None:
        if _same_file(path, existing):
            return
        make_directory(path.parent)
        draft = self.partial / f"{existing.name}.link"
        draft.unlink(missing_ok=True)
        self._link(existing, draft)
        draft.replace(path)
        sync_path(path.parent)

    def _link(self, existing: Path, new: Path) -> None:
        try:
            os.link(existing, new)
        except PermissionError as error:
            raise StorageError(
                f"The store '{self.root}' is on a file system without hard links ({error.strerror}). Use ext4, btrfs, "
                f"XFS or F2FS.",
                key="storage.no_links",
            ) from error


def _names(release: Release, manifest: Manifest) -> dict[str, str]:
    """Content by path of every file that is a link to one in files/."""
    return {entry.path: entry.sha256 for entry in manifest.files} | {MANIFEST_NAME: release.manifest_sha256}


def _same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _has(path: Path, nbytes: int) -> bool:
    try:
        return path.stat().st_size == nbytes
    except OSError:
        return False
