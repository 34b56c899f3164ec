"""Runs the programs that images are made and written with; says which Debian package brings a missing one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from moedge_runtime.errors import ConfigError, StorageError

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "genimage": "genimage",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "grub-editenv": "grub-common",
    "rauc": "rauc",
    "bmaptool": "bmap-tools",
    "dpkg-deb": "dpkg",
    "systemd-sysusers": "systemd",
    "depmod": "kmod",
    "modprobe": "kmod",
    "cpio": "cpio",
    "ssh": "openssh-client",
    "openssl": "openssl",
    "lsblk": "util-linux",
    "fallocate": "util-linux",
    "sfdisk": "fdisk",
}
"""Debian's package of each program."""


def need(*programs: str) -> None:
    """Make sure that programs are there, before anything is begun.

    Raises:
        ConfigError: One or more are not.
    """
    missing = sorted({PACKAGES[program] for program in programs if shutil.which(program) is None})
    if missing:
        raise ConfigError(
            f"Programs of these Debian packages are missing: {', '.join(missing)}. Install them: apt-get install "
            f"{' '.join(missing)}",
            key="flash.tools",
        )


def run(command: Sequence[str | Path], what: str, environment: Mapping[str, str] | None = None) -> str:
    """What a program prints on standard output.

    Args:
        command: Program and arguments.
        what: What failed, if it does: the beginning of a sentence.
        environment: Beside that of this process.

    Raises:
        StorageError: It failed; with the end of what it said.
    """
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-20:])
        raise StorageError(
            f"{what}: `{Path(str(command[0])).name}` ended with code {done.returncode}:\n{said}", key="flash.tool"
        )
    return done.stdout
