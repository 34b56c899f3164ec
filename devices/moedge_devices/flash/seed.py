"""The seed of a device: what makes one board out of an image that is the same for all. Written once, taken once.

A seed is a tar archive of plain files at the start of the partition `moedge-seed`, which has no file system. The first
boot writes each file to /etc/moedge, notes the seed's SHA-256, and overwrites the partition with zeros, in this order:
a power cut in between leaves a seed that is taken again, or one that is only wiped.
"""

from __future__ import annotations

import grp
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from moedge_runtime.daemon.system import STATE
from moedge_runtime.durable import sync_path, write_durably
from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash.layout import MIB, SEED_PARTITION

PARTITION = Path("/dev/disk/by-partlabel") / SEED_PARTITION
TARGET = Path("/etc/moedge")
GROUP = "moedge"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BLOCK = 512
"""A tar archive consists of blocks of this size; the first one of a seed is its first header."""


def read_directory(directory: Path) -> dict[str, bytes]:
    """The files of a directory, for a seed.

    Raises:
        ConfigError: It holds something else than files, or a name that a seed cannot have.
    """
    files = {}
    for path in sorted(directory.iterdir()):
        if not path.is_file() or not _NAME.fullmatch(path.name):
            raise ConfigError(
                f"The seed '{directory}' has '{path.name}'. A seed holds plain files with names of letters, digits, "
                f"'.', '_' and '-'. Move it away.",
                key="flash.seed",
            )
        files[path.name] = path.read_bytes()
    return files


def pack(files: Mapping[str, bytes], room_bytes: int) -> bytes:
    """A seed; the same files give the same bytes.

    Args:
        files: Content by name.
        room_bytes: Size of the partition.

    Raises:
        ConfigError: It is larger.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o640
            archive.addfile(member, io.BytesIO(content))
    seed = buffer.getvalue() if files else b""
    if len(seed) > room_bytes:
        raise ConfigError(
            f"The seed has {len(seed):,} bytes; the partition for it has {room_bytes:,}. Leave files out: models "
            f"belong into --data.",
            key="flash.seed",
        )
    return seed


def unpack(seed: bytes) -> dict[str, bytes]:
    """The files of a seed.

    Raises:
        ConfigError: It is damaged, or holds something else than plain files.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(seed), mode="r:") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or not _NAME.fullmatch(member.name):
                    raise ConfigError(
                        f"The seed holds '{member.name}', which is no plain file of /etc/moedge. Make it with "
                        f"`moedge flash`.",
                        key="flash.seed",
                    )
                files[member.name] = content.read()
    except tarfile.TarError as error:
        raise ConfigError(f"The seed is damaged: {error}. Write the image anew.", key="flash.seed") from error
    return files


def take(partition: Path = PARTITION, target: Path = TARGET, state: Path = STATE) -> list[str]:
    """Take the seed if there is one.

    Args:
        partition: Where it is.
        target: Where its files go.
        state: Where the SHA-256 of the seed that was taken is noted, in seed.json.

    Returns:
        Names of the files that were written; empty if there was no seed, or it was taken before a power cut.

    Raises:
        ConfigError: The seed is damaged, or the device has taken another one before.
        StorageError: It cannot be read, written or wiped.
    """
    try:
        with partition.open("rb") as file:
            seed = file.read()
        if not any(seed[:_BLOCK]):
            return []
        digest, note = hashlib.sha256(seed).hexdigest(), state / "seed.json"
        before = json.loads(note.read_text())["sha256"] if note.exists() else None
        if before not in (None, digest):
            raise ConfigError(
                f"This device took seed {before[:12]} before, so that seed {digest[:12]} is not taken. Write "
                f"the image anew to give it another identity.",
                key="flash.seed_taken",
            )
        files = {} if before == digest else unpack(seed)
        for name, content in files.items():
            write_durably(target / name, content)
            _own(target / name)
        if files:
            sync_path(target)
            write_durably(note, json.dumps({"sha256": digest, "files": sorted(files)}).encode())
        wipe(partition)
    except OSError as error:
        raise StorageError(
            f"The seed on '{partition}' cannot be taken: {error.strerror} ({error.filename}).", key="flash.seed"
        ) from error
    return sorted(files)


def take_archive(seed: bytes, target: Path = TARGET) -> list[str]:
    """Take a seed that somebody with root has brought to a system that was not made by `moedge flash build`.

    It may come again, changed, but not to a board that is another device.

    Returns:
        Names of the files that were written.

    Raises:
        ConfigError: The seed is damaged, or of another device than this one.
        StorageError: It cannot be written.
    """
    files = unpack(seed)
    here, coming = _device_in(_content(target / "device.json")), _device_in(files.get("device.json"))
    if here and coming and here != coming:
        raise ConfigError(
            f"This board is '{here}', the seed is of '{coming}'. To give the board another identity remove "
            f"'{target / 'device.json'}' first.",
            key="flash.seed_taken",
        )
    try:
        for name, content in files.items():
            write_durably(target / name, content)
            _own(target / name)
        sync_path(target)
    except OSError as error:
        raise StorageError(f"The seed cannot be written to '{target}': {error.strerror}.", key="flash.seed") from error
    return sorted(files)


def wipe(partition: Path) -> None:
    """Overwrite a partition with zeros, its beginning last, and wait until they are on the disk."""
    with partition.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        for start in range((size - 1) // MIB * MIB, -1, -MIB):
            file.seek(start)
            file.write(bytes(min(MIB, size - start)))
            os.fsync(file.fileno())


def set_host_name(target: Path = TARGET, kernel: Path = Path("/proc/sys/kernel/hostname")) -> str | None:
    """Call the machine as device.json does; None without one."""
    with suppress(OSError):
        name = _device_in(_content(target / "device.json"))
        if name is not None:
            kernel.write_text(name)
            return name
    return None


def _device_in(content: bytes | None) -> str | None:
    """The device that device.json names."""
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(content or b"")["device"])
    return None


def _content(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _own(path: Path) -> None:
    """Let the daemon read a file that others must not: passwords and keys may stand in there."""
    with suppress(KeyError, PermissionError):
        os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
    path.chmod(0o640)
