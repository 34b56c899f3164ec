"""Everything that is built before a machine is started."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from moedge_devices.flash.build import bundle_from
from moedge_devices.flash.layout import MIB, ROOT_PARTITIONS
from moedge_devices.flash.recipe import recipe_for
from moedge_devices.flash.write import place_of

from board_image import samples

ROOT = Path(__file__).parent.parent.parent
EPOCH = "1790000000"
VERSIONS = {"A": "1.0", "B": "1.1"}
"""Of the image, and of the update that the other slot gets."""
CONTENT_BYTES = 4 * MIB
"""Of bundles that are refused."""


@dataclass(frozen=True)
class Works:
    """What was built.

    Attributes:
        image: With a seed.
        updates: A disk with update bundles: `newer`, to be installed; and those to be refused: older, stranger,
            tampered, unsigned.
        digests: SHA-256 of the root file system that belongs into each slot.
        root_bytes: Size of the update's.
        port: Of the broker that the seed names.
        published: The directory that a web server gives to boards, with the update.
        server: What that web server is known by.
    """

    image: Path
    updates: Path
    digests: dict[str, str]
    root_bytes: int
    port: int
    published: Path
    server: samples.Signer

    @classmethod
    def make(cls, out: Path, package: Path, bundle: Path) -> Works:
        """Build what is not there yet."""
        os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH)
        out.mkdir(parents=True, exist_ok=True)
        image, update, disk, port_file = out / "board.img", out / "newer.raucb", out / "updates.img", out / "port"
        ours, stranger = samples.Signer.make(out, "ours"), samples.Signer.make(out, "stranger")
        server = samples.Signer.make(out, "server", "-addext", f"subjectAltName=IP:{samples.HOST}")
        if not port_file.exists():
            port_file.write_text(str(_free_port()))
        port = int(port_file.read_text())
        common = ("--overlay", samples.overlay(out / "overlay"), "--cache", out / "cache")
        if not image.exists():
            data = samples.data(out / "data", bundle, ROOT / "examples" / "panel" / "video" / "panel.mp4")
            options = ("--data", data, "--seed", samples.seed(out / "seed", port, server), *common)
            samples.build(image, package, ours, "--version", VERSIONS["A"], *options)
        if not update.exists():
            signed = ("--update", "--cert", ours.certificate, "--key", ours.key)
            samples.build(update, package, ours, "--version", VERSIONS["B"], *signed, *common)
        if not disk.exists():
            _disk_of_updates(out, update, disk, ours, stranger)
        unpacked = subprocess.run(["unsquashfs", "-cat", update, "root.img"], capture_output=True, check=True).stdout
        digests = {"A": root_of(image), "B": unpacked}
        return cls(
            image,
            disk,
            {slot: hashlib.sha256(root).hexdigest() for slot, root in digests.items()},
            len(unpacked),
            port,
            samples.publish(update, ours),
            server,
        )


def root_of(image: Path) -> bytes:
    """The file system in slot A of an image, as far as it reaches."""
    offset, _ = place_of(ROOT_PARTITIONS["A"], image)
    with image.open("rb") as file:
        file.seek(offset)
        return squashfs_in(file)


def squashfs_in(file: BinaryIO) -> bytes:
    """A squashfs from where `file` is; its length is `bytes_used` of its superblock (kernel, squashfs_fs.h)."""
    start = file.tell()
    used = int.from_bytes(file.read(48)[40:48], "little")
    file.seek(start)
    return file.read(-(-used // 4096) * 4096)  # mksquashfs fills up to this size


def _disk_of_updates(out: Path, update: Path, disk: Path, ours: samples.Signer, stranger: samples.Signer) -> None:
    with tempfile.TemporaryDirectory(dir=out) as name:
        bundles = Path(name)
        shutil.copyfile(update, bundles / "newer.raucb")
        for bundle, signer, version in (
            ("older", ours, "0.9"),
            ("stranger", stranger, "2.0"),
            ("tampered", ours, "2.0"),
        ):
            _bundle(bundles / f"{bundle}.raucb", signer, version, os.urandom(CONTENT_BYTES))
        whole = bytearray((bundles / "tampered.raucb").read_bytes())
        (bundles / "unsigned.raucb").write_bytes(whole[:CONTENT_BYTES])
        whole[len(whole) // 2] ^= 1
        (bundles / "tampered.raucb").write_bytes(whole)
        size = sum(path.stat().st_size for path in bundles.iterdir()) // MIB + 64
        samples.run("mke2fs", "-q", "-t", "ext4", "-d", bundles, disk, f"{size}M")


def _bundle(made: Path, signer: samples.Signer, version: str, content: bytes) -> None:
    """Sign an update with `content` as its root file system."""
    compatible = recipe_for("generic-arm64").compatible
    with tempfile.TemporaryDirectory(dir=made.parent.parent) as name:
        directory = Path(name)
        (directory / "root.img").write_bytes(content)
        (directory / "version").write_text(f"{version}\n")
        (directory / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=verity\n"
            "[image.rootfs]\nfilename=root.img\n"
        )
        bundle_from(directory, signer.certificate, signer.key, made, signer.certificate)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
