"""The initramfs: busybox, kernel modules in the order of their loading, and devices/image/init."""

from __future__ import annotations

import gzip
import lzma
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
    # Linux 7 of Debian lies beside its modules.
    kernels = sorted([*(root / "boot").glob("vmlinuz-*"), *(root / "usr/lib/modules").glob("*/vmlinuz")])
    if len(kernels) != 1:
        raise ConfigError(
            f"The packages of '{recipe.name}' bring {len(kernels)} kernels; an image has one. Change the recipe.",
            key="flash.kernel",
        )
    release = kernels[0].parent.name if kernels[0].name == "vmlinuz" else kernels[0].name.removeprefix("vmlinuz-")
    (root / "boot").mkdir(exist_ok=True)
    kernels[0].rename(root / "boot" / "vmlinuz")
    run(["depmod", "--basedir", root, release], "The modules' dependencies could not be found")
    modules = loading_order(root, release, recipe.modules, recipe.optional_modules)
    with tempfile.TemporaryDirectory(prefix="initramfs-") as name:
        tree = Path(name)
        for directory in DIRECTORIES:
            (tree / directory).mkdir()
        shutil.copy(root / "bin" / "busybox", tree / "bin")
        (tree / "init").write_bytes((recipe_directory() / "init").read_bytes())
        (tree / "init").chmod(0o755)
        names = []
        for module in modules:
            target = tree / module.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = module.read_bytes()
            if target.suffix == ".xz":  # the whole initramfs is compressed, and busybox need not know how
                content, target = lzma.decompress(content), target.with_suffix("")
            target.write_bytes(content)
            names.append(f"/{target.relative_to(tree)}\n")
        (tree / "modules").write_text("".join(names))
        (root / "boot" / "initrd.img").write_bytes(gzip.compress(_archive(tree, epoch), mtime=epoch))


def loading_order(root: Path, release: str, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[Path]:
    """Files of modules with all that they need, each after what it needs. What is built into the kernel has none.

    Those that may be missing come first: what the others lie on.

    Raises:
        ConfigError: One is not part of the kernel.
    """
    order: dict[Path, None] = {}
    for name in (*optional, *names):
        command = ["modprobe", "--dirname", str(root), "--set-version", release, "--show-depends", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and name in optional:
            continue
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
