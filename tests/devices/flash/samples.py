"""An image with the partitions of a real one and made-up content, in seconds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from moedge_devices.flash.build import same_times
from moedge_devices.flash.layout import MIB, genimage_config
from moedge_devices.flash.recipe import Recipe, recipe_for

DATA_BYTES = 8 * MIB
EPOCH = 1_790_000_000


def small_recipe() -> Recipe:
    """The generic recipe with small partitions; 34 MiB is the least that FAT32 takes."""
    return recipe_for("generic-arm64").model_copy(update={"boot_mib": 40, "slot_mib": 4, "seed_mib": 1})


def make_image(directory: Path) -> Path:
    """An image and its block map."""
    inputs = directory / "input"
    (inputs / "boot").mkdir(parents=True)
    (directory / "empty").mkdir()
    (inputs / "boot" / "grub.cfg").write_text("boot\n")
    (inputs / "root.squashfs").write_bytes(b"root" * 100_000)
    (inputs / "seed.tar").write_bytes(bytes(512))
    (inputs / "data.ext4").write_bytes(b"data" * 1_000_000)
    (directory / "genimage.cfg").write_text(genimage_config(small_recipe(), DATA_BYTES, {"boot": ["grub.cfg"]}))
    command = [
        *("genimage", "--config", directory / "genimage.cfg", "--rootpath", directory / "empty"),
        *("--tmppath", directory / "tmp", "--inputpath", inputs, "--outputpath", directory),
    ]
    same_times(inputs, EPOCH)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    image = directory / "disk.img"
    subprocess.run(["bmaptool", "--quiet", "create", image, "--output", f"{image}.bmap"], check=True)
    return image


def need_loop(size: int, path: Path) -> str:
    """A loop device of `size` bytes; skips the test where there is none. The caller detaches it."""
    with path.open("wb") as file:
        file.truncate(size)
    done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs root and a loop device: {done.stderr.strip()}")
    return done.stdout.strip()
