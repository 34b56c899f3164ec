"""Builds images and update bundles. Needs root: a root file system holds files of other users."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.flash.boot import BOOT_TOOLS, write_boot_files
from moedge_devices.flash.confirm import confirmed_text
from moedge_devices.flash.layout import MIB, fat_config, fixed_uuid, genimage_config, partitions
from moedge_devices.flash.recipe import Recipe
from moedge_devices.flash.rootfs import DAEMON_ID, Sources, make_tree, python_for_byte_code, squash
from moedge_devices.flash.seed import pack
from moedge_devices.flash.signature import sign, signature_of
from moedge_devices.flash.tools import need, run
from moedge_devices.flash.write import place_of

Say = Callable[[str], None]
_ROOT_TOOLS = ("mmdebstrap", "mksquashfs", "dpkg-deb", "systemd-sysusers", "depmod", "modprobe", "cpio")
_FAT_TOOLS = ("genimage", "mcopy", "mkfs.vfat")
_ROOT_INODE, _FIRST_INODE = 2, 11
"""Of ext4: mke2fs gives the first one to lost+found, and the next to files one after the other."""
_FREE = 2
"""The data partition of an image is so many times what is put into it; an ext4 needs room for its own."""


def build_image(
    sources: Sources,
    out: Path,
    *,
    seed: Mapping[str, bytes],
    data: Path | None,
    signer: tuple[Path, Path] | None,
    cache: Path,
    say: Say,
) -> None:
    """Write an image to `out`, its block map to `out`.bmap, and the signature of that, if any, to `out`.bmap.p7s.

    Args:
        sources: Of the root file system.
        out: The image.
        seed: Files of the device; none for an image that is seeded when it is written.
        data: Laid into /var/lib/moedge; None for nothing.
        signer: Certificate and key to sign with, in PEM; None not to sign.
        cache: For what is expensive and the same next time.
        say: Told each step.

    Raises:
        ConfigError: An input is wrong, or a program is missing.
        StorageError: A program failed.
    """
    need(
        *_ROOT_TOOLS,
        *_FAT_TOOLS,
        "mke2fs",
        "debugfs",
        "bmaptool",
        "sfdisk",
        "fallocate",
        "openssl",
        *BOOT_TOOLS[sources.recipe.boot],
    )
    recipe = sources.recipe
    packed = pack(seed, recipe.seed_mib * MIB)
    with _root_file_system(sources, cache, say) as (work, boot):
        (work / "input" / "seed.tar").write_bytes(packed.ljust(512, b"\0"))
        fat_files = write_boot_files(work / "input", boot, recipe, sources.command_line)
        size = _data_partition(sources, work, data)
        config = work / "genimage.cfg"
        config.write_text(genimage_config(recipe, size, fat_files))
        say("Writing the partitions.")
        _genimage(work, sources.epoch)
        _publish(work / "output" / "disk.img", out, secret=bool(seed))
        # Only slot B is not written to disks. Zeros elsewhere count: no old seed or journal may shine through.
        for part in partitions(recipe, size):
            if part.image is None:
                offset, length = place_of(part.name, out)
                run(
                    ["fallocate", "--punch-hole", "--offset", str(offset), "--length", str(length), out],
                    "Slot B cannot be left out",
                )
    block_map = out.with_name(out.name + ".bmap")
    signature_of(block_map).unlink(missing_ok=True)
    run(["bmaptool", "--quiet", "create", out, "--output", block_map], "The block map could not be made")
    if signer is not None:
        sign(block_map, *signer, sources.keyring)


def build_update(sources: Sources, out: Path, *, certificate: Path, key: Path, cache: Path, say: Say) -> None:
    """Write a signed update bundle for RAUC to `out`.

    Args:
        sources: Of the root file system.
        out: The bundle, *.raucb.
        certificate: PEM; one of those in the keyrings of boards, or signed by one.
        key: PEM of its key.
        cache: As for `build_image`.
        say: Told each step.

    Raises:
        ConfigError: An input is wrong, or a program is missing.
        StorageError: A program failed.
    """
    need(*_ROOT_TOOLS, "rauc", *(_FAT_TOOLS if sources.recipe.boot == "raspberry-pi" else ()))
    with _root_file_system(sources, cache, say) as (work, boot):
        content = work / "bundle"
        content.mkdir()
        (work / "input" / "root.squashfs").rename(content / "root.img")
        if sources.recipe.boot == "raspberry-pi":
            fat_files = write_boot_files(work / "input", boot, sources.recipe, sources.command_line)
            (work / "genimage.cfg").write_text(fat_config(sources.recipe, {"kernel": fat_files["kernel"]}))
            _genimage(work, sources.epoch)
            (work / "output" / "kernel.vfat").rename(content / "kernel.img")
        (content / "version").write_text(f"{sources.version}\n")
        (content / "manifest.raucm").write_text(manifest(sources))
        same_times(content, sources.epoch)
        bundle_from(content, certificate, key, work / "update.raucb", sources.keyring)
        _publish(work / "update.raucb", out)


def manifest(sources: Sources) -> str:
    """RAUC's manifest of an update."""
    kernel = "\n[image.boot]\nfilename=kernel.img\n" if sources.recipe.boot == "raspberry-pi" else ""
    return (
        f"[update]\ncompatible={sources.recipe.compatible}\nversion={sources.version}\nbuild={sources.build()}\n\n"
        f"[bundle]\nformat=verity\n\n[image.rootfs]\nfilename=root.img\n{kernel}"
    )


def bundle_from(content: Path, certificate: Path, key: Path, out: Path, keyring: Path) -> None:
    """Sign a directory as an update bundle.

    Raises:
        StorageError: RAUC refuses, for example a certificate that the keyring does not know.
    """
    run(
        ["rauc", "bundle", f"--cert={certificate}", f"--key={key}", f"--keyring={keyring}", content, out],
        "The update bundle could not be signed",
    )


@contextmanager
def _root_file_system(sources: Sources, cache: Path, say: Say) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A working directory with `input/root.squashfs`, and what a board is started from."""
    sources.check()
    if os.geteuid() != 0:
        raise ConfigError("Building an image needs root: run the command with sudo.", key="flash.root")
    python_for_byte_code()
    os.umask(0o022)  # what is written here is for every user of the board, whoever builds it
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flash-", dir=cache) as name:
        work = Path(name)
        root, image = work / "root", work / "input" / "root.squashfs"
        root.mkdir()
        (work / "input").mkdir()
        boot = make_tree(sources, root, cache, say)
        say("Writing the root file system.")
        squash(root, image, sources.epoch)
        _check_size(image, sources.recipe)
        yield work, boot


def _genimage(work: Path, epoch: int) -> None:
    """Write what `genimage.cfg` says from `input` to `output`."""
    same_times(work / "input", epoch)
    (work / "empty").mkdir()
    run(
        [
            *("genimage", "--config", work / "genimage.cfg", "--rootpath", work / "empty", "--tmppath", work / "tmp"),
            *("--inputpath", work / "input", "--outputpath", work / "output"),
        ],
        "The image could not be written",
        {"SOURCE_DATE_EPOCH": str(epoch)},
    )


def _check_size(image: Path, recipe: Recipe) -> None:
    size, room = image.stat().st_size, recipe.slot_mib * MIB
    if size > room:
        raise ConfigError(
            f"The root file system has {size:,} bytes; a slot of '{recipe.name}' has {room:,}. Take packages, or files "
            f"of the overlay, out. Boards that were flashed keep the size of their slots.",
            key="flash.slot_full",
        )


def _data_partition(sources: Sources, work: Path, data: Path | None) -> int:
    """Write `input/data.ext4`; its size in bytes."""
    tree, recipe = work / "data", sources.recipe
    configuration = tree / "system" / "etc"
    configuration.mkdir(parents=True)
    for path in sorted((work / "root" / "etc" / "moedge").iterdir()):
        shutil.copy2(path, configuration)
        os.chown(configuration / path.name, 0, DAEMON_ID)
    os.chown(configuration, 0, DAEMON_ID)
    configuration.chmod(0o750)
    # What is flashed counts; only updates have to prove themselves.
    (tree / "system" / "confirmed.json").write_bytes(confirmed_text({"A": sources.build()}))
    if data:  # cp keeps the hard links of a store
        run(["cp", "--archive", "--no-preserve=ownership", f"{data}/.", tree], f"'{data}' cannot be copied")
    same_times(tree, sources.epoch)
    files = {path.lstat().st_ino: path.lstat().st_size for path in tree.rglob("*")}  # hard links count once
    used = sum(files.values())
    size = max(recipe.data_mib, -(-used * _FREE // MIB)) * MIB
    image = work / "input" / "data.ext4"
    identity = fixed_uuid(recipe, "data-file-system")
    run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-L", "moedge-data", "-m", "0", "-U", identity),
            *("-E", f"hash_seed={identity},nodiscard", "-d", tree, image, f"{size // 1024}k"),
        ],
        "The data partition could not be written",
        {"E2FSPROGS_FAKE_TIME": str(sources.epoch)},
    )
    _same_times_inside(image, len(files), sources.epoch)
    return size


def _same_times_inside(image: Path, files: int, epoch: int) -> None:
    """Give the inodes of a new ext4 the one time of the build: mke2fs takes over when a file was changed, and read."""
    inodes = [_ROOT_INODE, *range(_FIRST_INODE, _FIRST_INODE + 1 + files)]
    commands = image.with_name("times")
    commands.write_text(
        "".join(f"set_inode_field <{inode}> {field} @{epoch}\n" for inode in inodes for field in ("ctime", "atime"))
    )
    run(
        ["debugfs", "-w", "-f", commands, image],
        "The data partition could not be written",
        {"E2FSPROGS_FAKE_TIME": str(epoch)},
    )
    commands.unlink()


def same_times(directory: Path, epoch: int) -> None:
    """Give every file the one time of the build."""
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _publish(made: Path, out: Path, *, secret: bool = False) -> None:
    """Let `out` appear whole; for nobody else to read if it is secret, since a seed holds keys and passwords."""
    draft = out.with_name(f".{out.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600 if secret else 0o666)
    run(["cp", "--sparse=never", made, draft], f"'{out}' cannot be written")
    draft.replace(out)
