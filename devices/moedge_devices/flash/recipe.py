"""Recipes of images: which packages, which partitions. Data files in devices/image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from moedge_runtime.errors import ConfigError
from pydantic import BaseModel, ConfigDict, Field

from moedge_devices.data_files import data_path
from moedge_devices.typed_yaml import load_typed

Mib = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+._-]*$")]


class Backports(BaseModel):
    """Packages of a newer Debian than the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    suite: Literal["bookworm-backports", "trixie-backports"]
    packages: tuple[Word, ...]
    """A kernel: left out where one is given."""


class Recipe(BaseModel):
    """One recipe, version 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    version: Literal[1]
    name: Word
    title: str
    profiles: tuple[Word, ...]
    """Profiles of boards that the image is for."""
    architecture: Literal["arm64"]
    suite: Literal["bookworm"]
    """Release of Debian; the moedge package is built for its Python."""
    boot: Literal["grub", "raspberry-pi"] = "grub"
    """What chooses the slot: GRUB, started by UEFI, or the firmware of a Raspberry Pi."""
    compatible: Word
    """What RAUC compares update bundles with."""
    packages: tuple[Word, ...]
    modules: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], ...]
    """Kernel modules of the initramfs."""
    optional_modules: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], ...] = ()
    """Those that the initramfs gets if the kernel has them."""
    backports: Backports | None = None
    boot_mib: Mib
    kernel_mib: Annotated[int, Field(ge=0)] = 0
    """Of each of both partitions with a kernel, for a Raspberry Pi; 0 where the root file system has it."""
    slot_mib: Mib
    """Of each of both root slots: no later update can be larger."""
    seed_mib: Mib
    data_mib: Mib
    """Of the data partition in the image, at least; it grows to the end of the disk at the first boot."""


def recipe_for(profile: str) -> Recipe:
    """The recipe for boards of a profile, or with this name.

    Raises:
        ConfigError: There is none.
    """
    recipes = [load_typed(path, Recipe, "Recipe") for path in sorted(recipe_directory().glob("*.yaml"))]
    for recipe in recipes:
        if profile in (recipe.name, *recipe.profiles):
            return recipe
    known = ", ".join(sorted({name for recipe in recipes for name in recipe.profiles}))
    raise ConfigError(
        f"There is no image for boards of profile '{profile}'. There is one for: {known}. On other boards install the "
        f"Debian package (docs/install.md).",
        key="flash.no_recipe",
    )


def recipe_directory() -> Path:
    """Where recipes are, and what of an image is the same for all of them."""
    return data_path("image")
