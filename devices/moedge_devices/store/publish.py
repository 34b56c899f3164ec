"""Makes and renews the directory that a web server or a USB stick gives to boards."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from moedge_runtime.bundle import Bundle
from moedge_runtime.bundle.reader import MANIFEST_NAME, parse_manifest
from moedge_runtime.bundle.verify import sha256_of
from moedge_runtime.config.problems import path_text, schema_problems
from moedge_runtime.durable import sync_path, write_durably
from moedge_runtime.errors import BundleError, ConfigError, StorageError
from pydantic import BaseModel, ValidationError

from moedge_devices.store import openssl
from moedge_devices.store.documents import INDEX_TYPE, KEYS_TYPE, Index, Keys, Offer, Release, SystemRelease, parse
from moedge_devices.store.download import Progress, content_path
from moedge_devices.store.durable import make_directory
from moedge_devices.store.envelope import seal, unseal
from moedge_devices.store.errors import TrustError, storage_errors
from moedge_devices.store.source import CHUNK_BYTES
from moedge_devices.store.trust import INDEX_NAME, expiry, next_keys


@dataclass(frozen=True)
class Terms:
    """For whom a release is.

    Attributes:
        channels: In which channels.
        profiles: For which kinds of boards; empty for all.
        devices: For which devices; empty for all.
        min_moedge: Oldest moedge that runs it.
    """

    channels: Sequence[str] = ()
    profiles: Sequence[str] = ()
    devices: Sequence[str] = ()
    min_moedge: str | None = None


@dataclass(frozen=True)
class SystemFile:
    """An update of the system, *.raucb of `moedge flash build --update`.

    Attributes:
        path: The file.
        compatible: For which boards RAUC takes it.
        version: Of the system.
    """

    path: Path
    compatible: str
    version: str


@dataclass(frozen=True)
class Published:
    """What changed.

    Attributes:
        index: As it stands in the directory now.
        release: What was published; None if only the index was renewed.
        written_bytes: Of files that were not there before.
        removed: Files that no release needs any more, by content.
    """

    index: Index
    release: Release | SystemRelease | None
    written_bytes: int
    removed: list[str]


def publish(
    directory: Path,
    key: Path,
    *,
    bundle: Bundle | None = None,
    system: SystemFile | None = None,
    name: str | None = None,
    version: str | None = None,
    terms: Terms = Terms(),
    withdraw: Sequence[str] = (),
    days: float = 90.0,
    progress: Progress = lambda advance: None,
    now: Callable[[], float] = time.time,
) -> Published:
    """Add a bundle or a system, change the channels of one that is there, withdraw some, or only renew the index.

    The index is replaced last, as a whole, so that a board never sees one whose files are not there.

    Args:
        directory: The published directory; made if it is not there. It must have the keys (`add_keys`) first.
        key: Private key of a signer.
        bundle: A bundle to add.
        system: A system to add.
        name: The bundle's name; None for its directory's.
        version: The bundle's version.
        terms: For whom it is; of a version that is there already they replace the earlier ones.
        withdraw: Releases to take out, as NAME@VERSION. Files that no release needs are removed.
        days: After which the index expires.
        progress: Told the bytes that were read.
        now: The time.

    Raises:
        ConfigError: A name, the key, what to withdraw, or the clock is wrong.
        BundleError: The bundle is damaged.
        StorageError: The directory cannot be written.
    """
    with _locked(directory):
        keys = newest_keys(directory)
        if keys is None:
            raise ConfigError(
                f"'{directory}' has no keys yet. Make them first: `moedge bundle keys` (docs/updates.md).",
                key="config.keys",
            )
        identifier = openssl.key_id(openssl.public_key(key))
        if identifier not in keys.signer_keys():
            raise ConfigError(
                f"The key '{key}' ({identifier[:12]}) is no signer of version {keys.version} of the keys in "
                f"'{directory}'. Boards would refuse the index. Use one of "
                f"{', '.join(each[:12] for each in keys.signer_keys())}.",
                key="config.key",
            )
        before = read_own_index(directory, keys)
        created = datetime.fromtimestamp(int(now()), timezone.utc)
        expires = expiry(created, days)
        if before is not None and expires <= before.created:
            raise ConfigError(
                f"The clock of this machine says {created:%Y-%m-%dT%H:%M:%SZ}, so that the index would have expired "
                f"before the one in '{directory}' was made ({before.created:%Y-%m-%dT%H:%M:%SZ}), and boards refuse "
                f"it. Set the clock; if that one was made with a wrong clock, give a longer --expires-days.",
                key="config.clock",
            )
        releases = list(before.releases) if before else []
        systems = list(before.systems) if before else []
        release: Release | SystemRelease | None = None
        written = 0
        for label in withdraw:
            if label not in [offer.label for offer in (*releases, *systems)]:
                raise ConfigError(f"'{directory}' has no release {label} to withdraw.", key="update.unknown_version")
        releases = [each for each in releases if each.label not in withdraw]
        systems = [each for each in systems if each.label not in withdraw]
        if bundle is not None:
            release = _release(bundle, name, version, terms, before.releases if before else [])
            releases = [each for each in releases if each.label != release.label] + [release]
            written = _copy(directory, bundle, release, progress)
        elif system is not None:
            release = _system_release(system, terms, before.systems if before else [])
            systems = [each for each in systems if each.label != release.label] + [release]
            written = _copy_file(directory, system.path, release.sha256, release.bytes, progress)
        serial = max((before.serial if before else 0) + 1, int(now()))
        index = Index(serial=serial, created=created, expires=expires, releases=releases, systems=systems)
        payload = index.model_dump_json(indent=1).encode()
        write_durably(directory / INDEX_NAME, seal(INDEX_TYPE, payload, [key]))
        removed = _remove_unneeded(directory, index) if withdraw else []
    return Published(index, release, written, removed)


def add_keys(directory: Path, content: bytes) -> Keys:
    """Put the next version of the keys, an envelope, into a published directory, whose index then needs a valid signer.

    The first one is believed as it is: boards have it from elsewhere.

    Raises:
        ConfigError: It does not follow from the version that is there.
    """
    with _locked(directory):
        before = newest_keys(directory)
        try:
            if before is not None:
                keys = next_keys(before, content, "The new version of the keys")
            else:
                keys = own_keys(content, "The keys")
        except TrustError as error:
            raise ConfigError(str(error), key="config.keys") from error
        make_directory(directory / "keys")
        write_durably(directory / "keys" / f"{keys.version}.json", content)
    return keys


def own_keys(content: bytes, what: str) -> Keys:
    """Keys from an envelope that a root of their own has signed.

    Raises:
        TrustError: None has.
    """
    try:
        payload = base64.b64decode(json.loads(content)["payload"])
    except (ValueError, LookupError, TypeError):
        payload = b""
    keys = parse(Keys, payload, what)
    unseal(content, KEYS_TYPE, keys.root_keys(), what)
    return keys


def make_keys(version: int, roots: Sequence[str], signers: Sequence[str], private_roots: Sequence[Path]) -> bytes:
    """A version of the keys, signed.

    Args:
        version: 1 for the first; else one more than before.
        roots: Public keys in PEM.
        signers: Likewise.
        private_roots: Files of the private root keys that sign: one of `roots`, and one of the version before.

    Raises:
        ConfigError: A key is wrong, or none of `roots` signs.
    """
    try:
        keys = Keys(version=version, roots=list(roots), signers=list(signers))
    except ValidationError as error:
        raise ConfigError(f"The keys are not valid: {_problems(error, Keys)}.", key="config.keys") from error
    signing = {openssl.key_id(openssl.public_key(path)) for path in private_roots}
    if not signing & keys.root_keys().keys():
        raise ConfigError(
            "None of the keys that sign is in roots. Sign with one of the roots that the new version has.",
            key="config.keys",
        )
    return seal(KEYS_TYPE, keys.model_dump_json(indent=1).encode(), private_roots)


def newest_keys(directory: Path) -> Keys | None:
    """The newest keys in a published directory of our own; None without any."""
    versions = sorted(int(path.stem) for path in (directory / "keys").glob("*.json") if path.stem.isdigit())
    if not versions:
        return None
    path = directory / "keys" / f"{versions[-1]}.json"
    return own_keys(path.read_bytes(), f"'{path}'")


def read_own_index(directory: Path, keys: Keys) -> Index | None:
    """The index that is there; None without one.

    Raises:
        TrustError: Nobody whom `keys` know has signed it, as after a revocation; `keys` of earlier versions do as well.
    """
    path = directory / INDEX_NAME
    if not path.exists():
        return None
    known = dict(keys.signer_keys())
    for earlier in sorted((directory / "keys").glob("*.json")):
        known |= own_keys(earlier.read_bytes(), f"'{earlier}'").signer_keys()
    payload, _ = unseal(path.read_bytes(), INDEX_TYPE, known, f"'{path}'")
    return parse(Index, payload, f"'{path}'")


def _release(bundle: Bundle, name: str | None, version: str | None, terms: Terms, before: Sequence[Release]) -> Release:
    content = bundle.file(MANIFEST_NAME).read_bytes()
    files = {entry.sha256: entry.nbytes for entry in bundle.manifest.files}
    name = name or bundle.path.resolve().name
    digest = hashlib.sha256(content).hexdigest()
    try:
        return Release(
            name=name,
            version=version or "",
            number=_number(name, version, digest, [(each, each.manifest_sha256) for each in before]),
            manifest_sha256=digest,
            manifest_bytes=len(content),
            bytes=sum(files.values()) + len(content),
            **_for_whom(terms),
        )
    except ValidationError as error:
        raise ConfigError(f"The release is not valid: {_problems(error, Release)}.", key="config.invalid") from error


def _system_release(system: SystemFile, terms: Terms, before: Sequence[SystemRelease]) -> SystemRelease:
    digest = sha256_of(system.path)
    try:
        return SystemRelease(
            name=system.compatible,
            version=system.version,
            number=_number(system.compatible, system.version, digest, [(each, each.sha256) for each in before]),
            sha256=digest,
            bytes=system.path.stat().st_size,
            **_for_whom(terms),
        )
    except ValidationError as error:
        raise ConfigError(
            f"The release is not valid: {_problems(error, SystemRelease)}.", key="config.invalid"
        ) from error


def _number(name: str, version: str | None, digest: str, before: Sequence[tuple[Offer, str]]) -> int:
    """Of a release whose content has `digest`: its own if it is there already, else the next one.

    Args:
        name: Of the release.
        version: Of the release.
        digest: Of its content.
        before: What is there of any name, and the digests of its content.

    Raises:
        ConfigError: It is there with another content.
    """
    versions = {offer.version: (offer.number, theirs) for offer, theirs in before if offer.name == name}
    if version not in versions:
        return max((number for number, _ in versions.values()), default=0) + 1
    number, theirs = versions[version]
    if theirs != digest:
        raise ConfigError(
            f"{name}@{version} is published with another content. A version is published once: choose another one.",
            key="update.version_reused",
        )
    return number


def _for_whom(terms: Terms) -> dict[str, Any]:
    return {
        "min_moedge": terms.min_moedge,
        "channels": sorted(set(terms.channels)),
        "profiles": sorted(set(terms.profiles)),
        "devices": sorted(set(terms.devices)),
    }


def _copy(directory: Path, bundle: Bundle, release: Release, progress: Progress) -> int:
    """Put files of a bundle into the directory, by content; every byte is checked on its way. Bytes that were new."""
    files = [(entry.path, entry.sha256, entry.nbytes) for entry in bundle.manifest.files]
    files.append((MANIFEST_NAME, release.manifest_sha256, release.manifest_bytes))
    return sum(
        _copy_file(directory, bundle.file(relative), digest, nbytes, progress) for relative, digest, nbytes in files
    )


def _copy_file(directory: Path, path: Path, digest: str, nbytes: int, progress: Progress) -> int:
    """Put one file into the directory, by its content, unless it is there; bytes that were new."""
    destination = directory / content_path(digest)
    if destination.exists() and destination.stat().st_size == nbytes:
        progress(nbytes)
        return 0
    make_directory(destination.parent)
    draft = destination.with_name(f".{digest}.new")
    found = hashlib.sha256()
    with path.open("rb") as source, draft.open("wb") as file:
        while piece := source.read(CHUNK_BYTES):
            found.update(piece)
            file.write(piece)
            progress(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if found.hexdigest() != digest:
        draft.unlink()
        raise BundleError(
            f"'{path}' is damaged: its SHA-256 is not the one that it must have. Copy it, or export the bundle, again. "
            f"Nothing was published.",
            key="bundle.checksum_mismatch",
        )
    draft.chmod(0o644)
    draft.replace(destination)
    sync_path(destination.parent)
    return nbytes


def _remove_unneeded(directory: Path, index: Index) -> list[str]:
    """Remove files that no release has."""
    needed = {release.manifest_sha256 for release in index.releases} | {system.sha256 for system in index.systems}
    for release in index.releases:
        content = (directory / content_path(release.manifest_sha256)).read_bytes()
        needed |= {entry.sha256 for entry in parse_manifest(release.label, content).files}
    removed = []
    for path in sorted((directory / "files").glob("*/*")):
        if path.name not in needed:
            path.unlink()
            removed.append(path.name)
    return removed


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with storage_errors(directory, "The published directory"):
        make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise StorageError(
                f"Another `moedge bundle publish` writes to '{directory}'. Wait for it.", key="storage.locked"
            ) from error
        finally:
            os.close(descriptor)


def _problems(error: ValidationError, kind: type[BaseModel]) -> str:
    return "; ".join(f"{path_text(at) or 'all'}: {text}" for at, text in schema_problems(error, kind))
