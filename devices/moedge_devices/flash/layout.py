"""The partitions of an image, as genimage reads them. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moedge_devices.flash.recipe import Recipe

MIB = 1 << 20
SEED_PARTITION = "moedge-seed"
ROOT_PARTITIONS = {"A": "root-a", "B": "root-b"}
KERNEL_PARTITIONS = {"A": "boot-a", "B": "boot-b"}
"""Of a Raspberry Pi, whose firmware reads no squashfs; the second and third of the disk, as autoboot.txt names them."""

_NAMESPACE = uuid.UUID("5b8a6f0e-6a52-4d1c-9d3c-3f2c7f0d5e11")
_ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_ROOT_ARM64 = "b921b045-1df0-41c3-af44-4c6f280d3fae"
_FAT = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
_LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_SEED = "5eed5eed-0c1a-4b3e-9a6b-6d6f65646765"
"""Types of partitions: UEFI 2.10, section 5.3.3; the Discoverable Partitions Specification; one of our own for seeds,
so that systemd-repart, which grows the first partition of type Linux, never takes it for the data partition."""


@dataclass(frozen=True)
class Partition:
    """One partition of the image.

    Attributes:
        name: Its label in the partition table, by which everything on the board finds it.
        type_uuid: Its kind.
        size_bytes: Of it, in whole MiB.
        image: The file with its content; None for zeros.
    """

    name: str
    type_uuid: str
    size_bytes: int
    image: str | None


def partitions(recipe: Recipe, data_bytes: int) -> list[Partition]:
    """The partitions in their order; slot B is empty until the first update.

    Args:
        recipe: For sizes.
        data_bytes: Of the data partition.
    """
    if recipe.boot == "raspberry-pi":
        kernel_bytes = recipe.kernel_mib * MIB
        boot = [
            Partition("moedge-boot", _FAT, recipe.boot_mib * MIB, "boot.vfat"),
            Partition(KERNEL_PARTITIONS["A"], _FAT, kernel_bytes, "kernel.vfat"),
            Partition(KERNEL_PARTITIONS["B"], _FAT, kernel_bytes, None),
        ]
    else:
        boot = [Partition("moedge-boot", _ESP, recipe.boot_mib * MIB, "boot.vfat")]
    return [
        *boot,
        Partition(ROOT_PARTITIONS["A"], _ROOT_ARM64, recipe.slot_mib * MIB, "root.squashfs"),
        Partition(ROOT_PARTITIONS["B"], _ROOT_ARM64, recipe.slot_mib * MIB, None),
        Partition(SEED_PARTITION, _SEED, recipe.seed_mib * MIB, "seed.tar"),
        Partition("moedge-data", _LINUX, data_bytes, "data.ext4"),
    ]


def fixed_uuid(recipe: Recipe, what: str) -> str:
    """The same for every image of a recipe, so that the same input gives the same bytes."""
    return str(uuid.uuid5(_NAMESPACE, f"{recipe.name}/{what}"))


def fat_config(recipe: Recipe, fat_files: Mapping[str, Sequence[str]]) -> str:
    """The configuration of genimage for `NAME.vfat`, each with the files that its input directory has below `NAME/`."""
    sizes = {"boot": recipe.boot_mib, "kernel": recipe.kernel_mib}
    parts = []
    for name, paths in fat_files.items():
        files = "\n".join(f'    file "{path}" {{ image = "{name}/{path}" }}' for path in paths)
        parts.append(
            f'image {name}.vfat {{\n  vfat {{\n    label = "MOEDGE"\n'
            f'    extraargs = "-F 32 -i 4d4f4544 --invariant"\n{files}\n  }}\n  size = {sizes[name] * MIB}\n}}\n'
        )
    return "".join(parts)


def genimage_config(recipe: Recipe, data_bytes: int, fat_files: Mapping[str, Sequence[str]]) -> str:
    """The configuration of genimage for `disk.img`.

    Args:
        recipe: For sizes.
        data_bytes: Of the data partition.
        fat_files: As for `fat_config`.
    """
    lines = [
        fat_config(recipe, fat_files) + "image disk.img {\n  hdimage {",
        f'    partition-table-type = "gpt"\n    align = {MIB}\n    disk-uuid = "{fixed_uuid(recipe, "disk")}"\n  }}',
    ]
    for part in partitions(recipe, data_bytes):
        image = f'    image = "{part.image}"\n' if part.image else ""
        lines.append(
            f"  partition {part.name} {{\n{image}    size = {part.size_bytes}\n"
            f'    partition-type-uuid = "{part.type_uuid}"\n'
            f'    partition-uuid = "{fixed_uuid(recipe, part.name)}"\n  }}'
        )
    return "\n".join([*lines, "}\n"])
