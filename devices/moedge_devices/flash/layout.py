"""The partitions of an image, as genimage reads them. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from moedge_devices.flash.recipe import Recipe

MIB = 1 << 20
SEED_PARTITION = "moedge-seed"
ROOT_PARTITIONS = {"A": "root-a", "B": "root-b"}

_NAMESPACE = uuid.UUID("5b8a6f0e-6a52-4d1c-9d3c-3f2c7f0d5e11")
_ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_ROOT_ARM64 = "b921b045-1df0-41c3-af44-4c6f280d3fae"
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
    return [
        Partition("moedge-boot", _ESP, recipe.boot_mib * MIB, "boot.vfat"),
        Partition(ROOT_PARTITIONS["A"], _ROOT_ARM64, recipe.slot_mib * MIB, "root.squashfs"),
        Partition(ROOT_PARTITIONS["B"], _ROOT_ARM64, recipe.slot_mib * MIB, None),
        Partition(SEED_PARTITION, _SEED, recipe.seed_mib * MIB, "seed.tar"),
        Partition("moedge-data", _LINUX, data_bytes, "data.ext4"),
    ]


def fixed_uuid(recipe: Recipe, what: str) -> str:
    """The same for every image of a recipe, so that the same input gives the same bytes."""
    return str(uuid.uuid5(_NAMESPACE, f"{recipe.name}/{what}"))


def genimage_config(recipe: Recipe, data_bytes: int, boot_files: list[str]) -> str:
    """The configuration of genimage for `disk.img`.

    Args:
        recipe: For sizes.
        data_bytes: Of the data partition.
        boot_files: Paths on the boot partition; genimage's input directory has them below `boot/`.
    """
    files = "\n".join(f'    file "{path}" {{ image = "boot/{path}" }}' for path in boot_files)
    lines = [
        'image boot.vfat {\n  vfat {\n    label = "MOEDGE"\n    extraargs = "-F 32 -i 4d4f4544 --invariant"',
        f"{files}\n  }}\n  size = {recipe.boot_mib * MIB}\n}}",
        "image disk.img {\n  hdimage {",
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
