"""Everything that is built before a machine is started."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from moedge_devices.flash.build import bundle_from
from moedge_devices.flash.layout import MIB
from moedge_devices.flash.recipe import recipe_for

from board_image import samples

ROOT = Path(__file__).parent.parent.parent
EPOCH = "1790000000"
VERSIONS = {"image": "1.0", "kept": "1.1", "broken": "1.2"}


@dataclass(frozen=True)
class Works:
    """What was built.

    Attributes:
        image: Of version 1.0, with a seed.
        updates: A disk with update bundles: kept, broken, and those to be refused: older, stranger, tampered, unsigned.
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
        image, disk, cache = out / "board.img", out / "updates.img", out / "cache"
        ours, stranger = samples.Signer.make(out, "ours"), samples.Signer.make(out, "stranger")
        port_file = out / "port"
        if not port_file.exists():
            port_file.write_text(str(_free_port()))
        port = int(port_file.read_text())
        plain = samples.overlay(out / "overlay")
        if not image.exists():
            data = samples.data(out / "data", bundle, ROOT / "examples" / "panel" / "video" / "panel.mp4")
            options = ("--overlay", plain, "--data", data, "--seed", samples.seed(out / "seed", port))
            samples.build(image, package, ours, VERSIONS["image"], cache, *options)
        bundles = out / "bundles"
        bundles.mkdir(exist_ok=True)
        signing = ("--update", "--cert", ours.certificate, "--key", ours.key)
        for name, overlay in (("kept", plain), ("broken", samples.overlay(out / "overlay-broken", broken=True))):
            made = bundles / f"{name}.raucb"
            if not made.exists():
                samples.build(made, package, ours, VERSIONS[name], cache, "--overlay", overlay, *signing)
        _refused(out, bundles, ours, stranger)
        size = sum(path.stat().st_size for path in bundles.iterdir()) // MIB + 64
        disk.unlink(missing_ok=True)
        samples.run("mke2fs", "-q", "-t", "ext4", "-d", bundles, disk, f"{size}M")
        return cls(image, disk, port)


def _refused(out: Path, bundles: Path, ours: samples.Signer, stranger: samples.Signer) -> None:
    """Bundles that no board takes."""
    compatible = recipe_for("generic-arm64").compatible
    for name, signer, version in (("older", ours, "0.9"), ("stranger", stranger, "2.0")):
        content, made = out / f"content-{name}", bundles / f"{name}.raucb"
        shutil.rmtree(content, ignore_errors=True)
        made.unlink(missing_ok=True)
        content.mkdir()
        (content / "root.img").write_bytes(os.urandom(4 * MIB))
        (content / "version").write_text(f"{version}\n")
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=verity\n"
            "[image.rootfs]\nfilename=root.img\n"
        )
        bundle_from(content, signer.certificate, signer.key, made, signer.certificate)
    whole = bytearray((bundles / "kept.raucb").read_bytes())
    (bundles / "unsigned.raucb").write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    whole[len(whole) // 3] ^= 1
    (bundles / "tampered.raucb").write_bytes(whole)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
