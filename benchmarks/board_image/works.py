"""Everything that is built before a machine is started."""

from __future__ import annotations

import os
import shutil
import socket
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
VERSION = "1.0"
CONTENT_BYTES = 4 * MIB
"""Of bundles that are refused before anything of them is written."""


@dataclass(frozen=True)
class Works:
    """What was built.

    Attributes:
        image: With a seed.
        updates: A disk with update bundles: `same`, with the image's own root file system, which has to prove itself in
            the other slot as any other; and those to be refused: older, stranger, tampered, unsigned.
        port: Of the broker that the seed names.
    """

    image: Path
    updates: Path
    port: int

    @classmethod
    def make(cls, out: Path, package: Path, bundle: Path) -> Works:
        """Build what is not there yet."""
        os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH)
        out.mkdir(parents=True, exist_ok=True)
        image, disk, port_file = out / "board.img", out / "updates.img", out / "port"
        ours, stranger = samples.Signer.make(out, "ours"), samples.Signer.make(out, "stranger")
        if not port_file.exists():
            port_file.write_text(str(_free_port()))
        port = int(port_file.read_text())
        if not image.exists():
            data = samples.data(out / "data", bundle, ROOT / "examples" / "panel" / "video" / "panel.mp4")
            options = ("--data", data, "--seed", samples.seed(out / "seed", port), "--cache", out / "cache")
            overlay = samples.overlay(out / "overlay")
            samples.build(image, package, ours, "--version", VERSION, "--overlay", overlay, *options)
        bundles = out / "bundles"
        shutil.rmtree(bundles, ignore_errors=True)
        bundles.mkdir()
        _bundle(bundles / "same.raucb", ours, VERSION, root_of(image))
        _bundle(bundles / "older.raucb", ours, "0.9", os.urandom(CONTENT_BYTES))
        _bundle(bundles / "stranger.raucb", stranger, "2.0", os.urandom(CONTENT_BYTES))
        _bundle(bundles / "tampered.raucb", ours, "2.0", os.urandom(CONTENT_BYTES))
        whole = bytearray((bundles / "tampered.raucb").read_bytes())
        (bundles / "unsigned.raucb").write_bytes(whole[:CONTENT_BYTES])
        whole[len(whole) // 2] ^= 1
        (bundles / "tampered.raucb").write_bytes(whole)
        size = sum(path.stat().st_size for path in bundles.iterdir()) // MIB + 64
        disk.unlink(missing_ok=True)
        samples.run("mke2fs", "-q", "-t", "ext4", "-d", bundles, disk, f"{size}M")
        return cls(image, disk, port)


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
    return file.read(used)


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
