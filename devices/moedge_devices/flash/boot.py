"""What firmware starts a board from: files of its FAT partitions, by the recipe's `boot`."""

from __future__ import annotations

from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.flash.layout import ROOT_PARTITIONS
from moedge_devices.flash.recipe import Recipe, recipe_directory
from moedge_devices.flash.tools import run

GRUB = Path("usr/lib/grub/arm64-efi/monolithic/grubaa64.efi")
"""GRUB as Debian links it, with what grub.cfg uses; it reads /EFI/debian/grub.cfg of the partition it came from."""

AUTOBOOT = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
"""Slot A always, slot B for a trial; the script `tryboot` rewrites it. Source: Raspberry Pi's documentation."""

_D0 = {"bcm2712-d-rpi-5-b.dtb": "bcm2712d0-rpi-5-b.dtb"}
"""Device trees whose names in Linux are not those that the firmware looks for."""

BOOT_TOOLS = {"grub": ("grub-editenv",), "raspberry-pi": ()}


def take_boot_files(root: Path, recipe: Recipe) -> dict[str, bytes]:
    """What of a tree with `boot/vmlinuz` and `boot/initrd.img` belongs to other partitions, by its name there.

    GRUB reads kernel and initramfs from the root file system. The firmware of a Raspberry Pi does not: they leave the
    tree.

    Raises:
        ConfigError: The kernel has no device tree of a Raspberry Pi 5.
    """
    if recipe.boot == "grub":
        return {"EFI/BOOT/BOOTAA64.EFI": (root / GRUB).read_bytes()}
    found = [
        *(root / "usr/lib/modules").glob("*/dtb/broadcom/bcm2712*.dtb"),
        *(root / "usr/lib").glob("linux-image-*/broadcom/bcm2712*.dtb"),
    ]
    trees = {_D0.get(path.name, path.name): path.read_bytes() for path in sorted(found)}
    if "bcm2712-rpi-5-b.dtb" not in trees:
        raise ConfigError(
            f"The kernel of '{recipe.name}' has no bcm2712-rpi-5-b.dtb, the device tree of a Raspberry Pi 5. "
            f"Take another one.",
            key="flash.kernel",
        )
    files = {}
    for name in ("vmlinuz", "initrd.img"):
        files[name] = (root / "boot" / name).read_bytes()
        (root / "boot" / name).unlink()
    return files | trees


def write_boot_files(inputs: Path, taken: dict[str, bytes], recipe: Recipe, command_line: str) -> dict[str, list[str]]:
    """Write the files of the FAT partitions below `inputs`; their paths by the partition's directory there.

    Args:
        inputs: Made for genimage.
        taken: By `take_boot_files`.
        recipe: Its `boot`.
        command_line: More for the kernel.
    """
    if recipe.boot == "grub":
        template = (recipe_directory() / "grub.cfg").read_text()
        files = taken | {"EFI/debian/grub.cfg": template.replace("@CMDLINE@", command_line).encode()}
        return {"boot": sorted([*_write(inputs / "boot", files), *_grubenv(inputs / "boot")])}
    kernel = taken | {"config.txt": (recipe_directory() / recipe.name / "config.txt").read_bytes()}
    for slot, label in ROOT_PARTITIONS.items():
        text = f"root=PARTLABEL={label} rootfstype=squashfs ro panic=10 net.ifnames=0 rauc.slot={slot} {command_line}"
        kernel[f"cmdline-{slot.lower()}.txt"] = text.strip().encode() + b"\n"
    # Slot B is empty: not one to go back to.
    boot = {"autoboot.txt": AUTOBOOT.encode(), "B.bad": b""}
    return {"boot": _write(inputs / "boot", boot), "kernel": _write(inputs / "kernel", kernel)}


def _grubenv(directory: Path) -> list[str]:
    paths = []
    for name in ("grubenv", "grubenv.last"):
        block = directory / "EFI" / "debian" / name
        run(["grub-editenv", block, "create"], "The boot loader's variables could not be made")
        variables = ("ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0")
        run(["grub-editenv", block, "set", *variables], "The boot loader's variables could not be set")
        paths.append(f"EFI/debian/{name}")
    return paths


def _write(directory: Path, files: dict[str, bytes]) -> list[str]:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return sorted(files)
