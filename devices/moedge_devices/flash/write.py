"""Writes an image to a disk: a plan that refuses the wrong disk, then exactly its steps.

Blocks that the image does not map are not written (bmaptool of Debian's bmap-tools). What was written is read back from
the disk and compared with the checksums of the block map.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.flash.layout import MIB, SEED_PARTITION
from moedge_devices.flash.seed import pack
from moedge_devices.flash.signature import check as check_signature
from moedge_devices.flash.tools import need, run

_BLKFLSBUF = 0x1261
"""Drops what the kernel has cached of a block device (linux/fs.h), so that it is read from the disk."""


@dataclass(frozen=True)
class Disk:
    """What lsblk says of a block device.

    Attributes:
        path: Of it.
        kind: disk, loop, part, crypt, lvm, raid1 and so on.
        size_bytes: Of it.
        read_only: Whether the kernel refuses to write.
        model: As it names itself.
        used: Mount points and the like of it and everything on it.
    """

    path: Path
    kind: str
    size_bytes: int
    read_only: bool
    model: str
    used: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step of a plan: what it says, and what it does."""

    text: str
    do: Callable[[], None]


@dataclass(frozen=True)
class Plan:
    """What will be done to which disk."""

    disk: Disk
    image: Path
    steps: tuple[Step, ...]

    def lines(self) -> list[str]:
        """The plan for people."""
        disk = self.disk
        what = f"{disk.model or disk.kind}, {disk.size_bytes:,} bytes"
        title = f"{self.image} -> {disk.path}: {what}; all that is on it is lost"
        return [title, *(f"{number}. {step.text}" for number, step in enumerate(self.steps, 1))]


def plan_write(image: Path, device: Path, seed: Mapping[str, bytes], keyring: Path | None = None) -> Plan:
    """What writing `image` to `device` means.

    Args:
        image: The image, its block map beside it.
        device: The disk.
        seed: Files of the device; none to leave the image's.
        keyring: PEM of who may have signed the image; None to take any.

    Raises:
        ConfigError: It is not a whole disk, is in use, or too small; the image has no block map or no good signature.
    """
    need("bmaptool", "lsblk", "sfdisk")
    block_map = image.with_name(image.name + ".bmap")
    if not block_map.is_file():
        raise ConfigError(
            f"'{image}' has no block map '{block_map.name}' beside it; without it nothing is verified. Copy that "
            f"as well, or make it: bmaptool create {image} --output {block_map}",
            key="flash.no_bmap",
        )
    if keyring is not None:
        check_signature(block_map, keyring)
    size, ranges = read_block_map(block_map)
    disk = look_at(device)
    check_disk(disk, size)
    mapped = sum(length for _, length, _ in ranges)
    steps = [
        Step(
            f"bmaptool copy --bmap {block_map} {image} {device}   ({mapped:,} of {size:,} bytes)",
            lambda: _copy(image, block_map, device),
        ),
        Step(f"read {mapped:,} bytes back from {device} and compare SHA-256", lambda: verify(device, ranges)),
    ]
    if seed:
        offset, room = place_of(SEED_PARTITION, image)
        packed = pack(seed, room)
        steps.append(
            Step(
                f"write the seed ({', '.join(sorted(seed))}; {len(packed):,} bytes) at {offset:,} of {device}, and "
                f"read it back",
                lambda: _write_seed(device, offset, packed),
            )
        )
    return Plan(disk, image, tuple(steps))


def execute(plan: Plan, say: Callable[[str], None]) -> None:
    """Do what a plan says, in its order.

    Raises:
        ConfigError: The disk has come into use since.
        StorageError: A step failed; the disk is not to be used.
    """
    _check_unused(plan.disk.path)
    for line, step in zip(plan.lines()[1:], plan.steps, strict=True):
        say(line)
        step.do()


def look_at(device: Path) -> Disk:
    """What a block device is and who uses it.

    Raises:
        ConfigError: It is none.
    """
    try:
        is_block = stat.S_ISBLK(device.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"'{device}' cannot be looked at ({error.strerror}). Give a disk: see lsblk.", key="flash.disk"
        ) from error
    if not is_block:
        raise ConfigError(f"'{device}' is no block device. Give a disk such as /dev/sdb: see lsblk.", key="flash.disk")
    columns = "PATH,TYPE,SIZE,RO,MODEL,MOUNTPOINTS,FSTYPE"
    text = run(["lsblk", "--json", "--bytes", "--output", columns, device], f"'{device}' cannot be looked at")
    return disk_from(json.loads(text)["blockdevices"][0], device)


def disk_from(entry: dict[str, Any], device: Path) -> Disk:
    """A disk as lsblk's JSON has it."""
    used: list[str] = []

    def walk(node: dict[str, Any], depth: int) -> None:
        used.extend(f"{node['path']} is mounted on {point}" for point in node.get("mountpoints") or [] if point)
        if depth and node["type"] not in ("part", "disk"):
            used.append(f"{node['path']} ({node['type']}) is active on it")
        for child in node.get("children", []):
            walk(child, depth + 1)

    walk(entry, 0)
    return Disk(
        device, entry["type"], int(entry["size"]), bool(entry["ro"]), (entry.get("model") or "").strip(), tuple(used)
    )


def check_disk(disk: Disk, size: int) -> None:
    """Refuse a disk that is not to be overwritten.

    Args:
        disk: Which.
        size: Bytes of the image.

    Raises:
        ConfigError: It is a part of a disk, read-only, too small or in use.
    """
    if disk.kind not in ("disk", "loop"):
        raise ConfigError(
            f"'{disk.path}' is a {disk.kind}, not a whole disk. An image has its own partitions: give the disk.",
            key="flash.not_whole",
        )
    if disk.used:
        raise ConfigError(
            f"'{disk.path}' is in use: {'; '.join(disk.used)}. Give another disk, or umount and swapoff.",
            key="flash.in_use",
        )
    if disk.read_only:
        raise ConfigError(f"'{disk.path}' is read-only. Look for a switch on the card.", key="flash.read_only")
    if disk.size_bytes < size:
        raise ConfigError(
            f"'{disk.path}' has {disk.size_bytes:,} bytes; the image needs {size:,}. Take a larger disk.",
            key="flash.too_small",
        )
    _check_unused(disk.path)


def read_block_map(path: Path) -> tuple[int, list[tuple[int, int, str]]]:
    """Size of the image in bytes; start, length and SHA-256 of each mapped range. Format: bmap 2.0 of bmap-tools.

    Raises:
        ConfigError: It is no such file.
    """
    try:
        root = ElementTree.parse(path).getroot()
        size, block = int(root.findtext("ImageSize", "")), int(root.findtext("BlockSize", ""))
        if (root.findtext("ChecksumType") or "").strip() != "sha256":
            raise ValueError("its checksums are not SHA-256")
        ranges = []
        for element in root.iterfind("BlockMap/Range"):
            first, _, last = (element.text or "").strip().partition("-")
            start = int(first) * block
            end = min((int(last or first) + 1) * block, size)
            ranges.append((start, end - start, element.attrib["chksum"]))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise ConfigError(
            f"The block map '{path}' cannot be read: {error}. Make it anew: bmaptool create.", key="flash.bmap"
        ) from error
    return size, ranges


def verify(device: Path, ranges: list[tuple[int, int, str]]) -> None:
    """Compare a disk with a block map.

    Raises:
        StorageError: They differ.
    """
    with device.open("rb", buffering=0) as file:
        if stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
            fcntl.ioctl(file, _BLKFLSBUF)
        for start, length, expected in ranges:
            file.seek(start)
            digest, left = hashlib.sha256(), length
            while left:
                piece = file.read(min(left, MIB))
                if not piece:
                    break
                digest.update(piece)
                left -= len(piece)
            if digest.hexdigest() != expected:
                raise StorageError(
                    f"'{device}' does not hold what was written: the {length:,} bytes from {start:,} have SHA-256 "
                    f"{digest.hexdigest()[:16]}…, the image {expected[:16]}…. The disk is worn out or fake.",
                    key="flash.verify",
                )


def place_of(name: str, image: Path) -> tuple[int, int]:
    """Offset and size in bytes of a partition in an image.

    Raises:
        ConfigError: It has none of that name.
    """
    table = json.loads(run(["sfdisk", "--json", image], f"The partitions of '{image}' cannot be read"))[
        "partitiontable"
    ]
    sector = int(table.get("sectorsize", 512))
    for part in table["partitions"]:
        if part.get("name") == name:
            return int(part["start"]) * sector, int(part["size"]) * sector
    raise ConfigError(
        f"'{image}' has no partition '{name}': `moedge flash build` did not make it.", key="flash.partition"
    )


def _copy(image: Path, block_map: Path, device: Path) -> None:
    try:
        run(["bmaptool", "--quiet", "copy", "--bmap", block_map, image, device], "Writing failed")
    except StorageError as error:
        reason = str(error).rpartition("\n\n")[2]  # before it there is a traceback of bmaptool
        raise StorageError(
            f"'{image}' could not be written to '{device}': {reason} The disk is not to be used; write it anew.",
            key="flash.write",
        ) from error


def _write_seed(device: Path, offset: int, seed: bytes) -> None:
    with device.open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(seed)
        os.fsync(file.fileno())
    verify(device, [(offset, len(seed), hashlib.sha256(seed).hexdigest())])


def _check_unused(device: Path) -> None:
    """Ask the kernel, which knows users that lsblk cannot see from inside a container.

    Raises:
        ConfigError: Somebody has it.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ConfigError(
                f"'{device}' is in use: the kernel does not give it away. Give another disk, or end what uses it.",
                key="flash.in_use",
            ) from error
        raise ConfigError(
            f"'{device}' cannot be opened for writing ({error.strerror}). Run it with sudo.", key="flash.disk"
        ) from error
