"""The initramfs: busybox, kernel modules in the order of their loading, and devices/image/init."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.flash.recipe import Recipe, recipe_directory
from moedge_devices.flash.tools import run

DIRECTORIES = ("dev", "proc", "sys", "root", "bin")


def write_initramfs(root: Path, recipe: Recipe, epoch: int) -> None:
    """Write boot/initrd.img of the tree at `root`, and boot/vmlinuz beside it.

    Args:
        root: With one kernel and busybox-static.
        recipe: Names the modules.
        epoch: The time that files in it get.

    Raises:
        ConfigError: There is no kernel, more than one, or a module is not part of it.
    """
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ConfigError(
            f"The packages of '{recipe.name}' bring {len(kernels)} kernels; an image has one. Change the recipe.",
            key="flash.kernel",
        )
    release = kernels[0].name.removeprefix("vmlinuz-")
    kernels[0].rename(root / "boot" / "vmlinuz")
    run(["depmod", "--basedir", root, release], "The modules' dependencies could not be found")
    modules = loading_order(root, release, recipe.modules)
    with tempfile.TemporaryDirectory(prefix="initramfs-") as name:
        tree = Path(name)
        for directory in DIRECTORIES:
            (tree / directory).mkdir()
        shutil.copy(root / "bin" / "busybox", tree / "bin")
        (tree / "init").write_bytes((recipe_directory() / "init").read_bytes())
        (tree / "init").chmod(0o755)
        for module in modules:
            target = tree / module.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, target)
        (tree / "modules").write_text("".join(f"/{module.relative_to(root)}\n" for module in modules))
        (root / "boot" / "initrd.img").write_bytes(gzip.compress(_archive(tree, epoch), mtime=epoch))


def loading_order(root: Path, release: str, names: tuple[str, ...]) -> list[Path]:
    """Files of modules with all that they need, each after what it needs. What is built into the kernel has none.

    Raises:
        ConfigError: One is not part of the kernel.
    """
    order: dict[Path, None] = {}
    for name in names:
        command = ["modprobe", "--dirname", str(root), "--set-version", release, "--show-depends", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"Kernel {release} has no module '{name}'. Change the recipe.", key="flash.module")
        for line in done.stdout.splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod":
                order[Path(path.split()[0])] = None
    return list(order)


def _archive(tree: Path, epoch: int) -> bytes:
    """`tree` as the kernel unpacks it; the same tree gives the same bytes."""
    paths = sorted(tree.rglob("*"))
    for path in (tree, *paths):
        os.utime(path, (epoch, epoch))
    names = "\n".join(str(path.relative_to(tree)) for path in paths)
    command = ["cpio", "--create", "--quiet", "--format=newc", "--reproducible", "--owner=0:0"]
    return subprocess.run(command, input=names.encode(), cwd=tree, capture_output=True, check=True).stdout
