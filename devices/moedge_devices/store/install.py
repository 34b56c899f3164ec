"""Brings a release into the store: only files that are missing travel, and it is there as a whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from moedge_runtime.bundle import Manifest
from moedge_runtime.bundle.reader import parse_manifest
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.errors import StorageError

from moedge_devices.store.documents import Offer, Release
from moedge_devices.store.download import Progress, content_path, fetch
from moedge_devices.store.errors import RefusedError, TrustError
from moedge_devices.store.source import Source
from moedge_devices.store.store import Store

RESERVE_BYTES = 64 << 20
"""Left free for everything else on the disk."""


@dataclass(frozen=True)
class Done:
    """What an installation did.

    Attributes:
        release: What is there now.
        already: It was there before.
        files: Number of its files.
        fetched_bytes: What travelled, as the release says it; what an earlier run had fetched is counted too.
        shared_bytes: What was here already.
    """

    release: Release
    already: bool
    files: int
    fetched_bytes: int
    shared_bytes: int


def install(
    store: Store,
    source: Source,
    release: Release,
    progress_of: Callable[[int], Progress] = lambda total: lambda advance: None,
    *,
    check_files: bool = False,
) -> Done:
    """Bring `release` into the store, which is locked.

    Args:
        store: Where to.
        source: Where from.
        release: What, from an index that was believed.
        progress_of: Given the bytes to come, what is told of those that came.
        check_files: Also read the files that are here, and fetch damaged ones again.

    Raises:
        RefusedError: Another content is installed under its name and version.
        SourceError: The source breaks off; what was fetched is kept for the next run.
        TrustError: A file is not what the release says.
        StorageError: There is not enough room, or the disk fails.
    """
    there = store.bundle(release.name, release.version).is_dir()
    if there and store.get(release.name, release.version).release.manifest_sha256 != release.manifest_sha256:
        raise RefusedError(
            f"{release.label} is installed with another content. A version is published once: give the new one a "
            f"version of its own.",
            key="update.version_reused",
        )
    manifest_came = store.lacks(release.manifest_sha256, release.manifest_bytes)
    manifest = fetch_manifest(store, source, release)
    if check_files:
        drop_damaged(store, manifest)
    missing = store.missing(manifest, release)
    already = not missing and store.is_whole(release, manifest)
    total = sum({entry.sha256: entry.nbytes for entry in manifest.files}.values()) + release.manifest_bytes
    if not already:
        check_space(store, release, missing)
        progress = progress_of(sum(missing.values()))
        for digest, nbytes in missing.items():
            fetch(store, source, digest, nbytes, progress)
        store.assemble(release, manifest)
        store.collect()
    fetched = sum(missing.values()) + (release.manifest_bytes if manifest_came else 0)
    return Done(release, already, len(manifest.files) + 1, fetched, total - fetched)


def fetch_manifest(store: Store, source: Source, release: Release) -> Manifest:
    """The manifest of a release; it is in the store then.

    Raises:
        TrustError: It is not what the release says, or no manifest.
        BundleError: It is of a version that this moedge does not read.
    """
    path = store.file(release.manifest_sha256)
    if store.lacks(release.manifest_sha256, release.manifest_bytes):
        content = source.read(content_path(release.manifest_sha256), release.manifest_bytes)
        _check_digest(content, release, str(source))
        store.put_content(content, release.manifest_sha256)
    content = path.read_bytes()
    _check_digest(content, release, f"the store '{store.root}'")
    return parse_manifest(release.label, content)


def drop_damaged(store: Store, manifest: Manifest) -> list[str]:
    """Forget files of a bundle whose content is not theirs; the next installation fetches them again."""
    damaged = []
    for entry in manifest.files:
        path = store.file(entry.sha256)
        if path.exists() and sha256_of(path) != entry.sha256:
            path.unlink()
            damaged.append(entry.path)
    return damaged


def check_space(store: Store, release: Offer, missing: dict[str, int]) -> None:
    """Refuse what does not fit.

    Raises:
        StorageError: With the numbers.
    """
    begun = sum(
        min((store.partial / digest).stat().st_size, nbytes)
        for digest, nbytes in missing.items()
        if (store.partial / digest).exists()
    )
    needed, free = sum(missing.values()) - begun, store.free_bytes()
    if needed and needed + RESERVE_BYTES > free:
        others = [each.release.label for each in store.installed() if not each.current]
        hint = f"Remove one of {', '.join(others)} (`moedge bundle remove`)" if others else "Free space on the disk"
        raise StorageError(
            f"{release.label} needs {needed:,} bytes more on '{store.root}' and {RESERVE_BYTES:,} are left free; there "
            f"are {free:,}: {needed + RESERVE_BYTES - free:,} too few. {hint}, or choose a larger disk.",
            key="storage.full",
        )


def _check_digest(content: bytes, release: Release, where: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != release.manifest_sha256:
        raise TrustError(
            f"The manifest of {release.label} from {where} is not what the index says: its SHA-256 is {digest[:12]}…, "
            f"it must be {release.manifest_sha256[:12]}…. Do not use it; publish again.",
            key="update.wrong_hash",
        )
