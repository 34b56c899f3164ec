"""The root file system: Debian packages by mmdebstrap, the moedge package, then our files and the version over them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.flash.recipe import Recipe, recipe_directory
from moedge_devices.flash.tools import run

MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
GRUB = Path("usr/lib/grub/arm64-efi/monolithic/grubaa64.efi")
"""GRUB as Debian links it, with what grub.cfg uses; it reads /EFI/debian/grub.cfg of the partition it came from."""
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
DAEMON, DAEMON_ID = "moedge", 800
"""User and group of the daemon in every image: the data partition outlives the root file systems."""

_DAEMON_LINE = f"{DAEMON}:x:{DAEMON_ID}:{DAEMON_ID}:moedge daemon:/var/lib/moedge:/usr/sbin/nologin"
_INITRAMFS = r"MODULES=list\nCOMPRESS=gzip\nRESUME=none\n"
_SERVICES = {
    "multi-user.target.wants": (
        "moedge.service",
        "moedge-confirm.service",
        "systemd-networkd.service",
        "wpa_supplicant@wlan0.service",
    ),
    "sysinit.target.wants": ("moedge-seed.service", "systemd-resolved.service", "systemd-timesyncd.service"),
}
_TEMPLATES = {"wpa_supplicant@wlan0.service": "wpa_supplicant@.service"}
_LINKS = {
    "etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf",
    "etc/wpa_supplicant/wpa_supplicant-wlan0.conf": "/etc/moedge/wifi.conf",
}
_UNUSED = ("usr/lib/grub", "var/cache", "var/log", "var/lib/apt")
"""Not on the board: the boot loader, which has a partition of its own, and what building leaves."""


@dataclass(frozen=True)
class Sources:
    """What a root file system is made from.

    Attributes:
        recipe: Packages.
        package: The moedge package.
        keyring: PEM certificates of who may sign update bundles.
        version: Of the system: updates to older ones are refused.
        overlay: Files laid over the rest; None for none.
        command_line: More for the kernel.
        mirror: Of Debian; a snapshot gives the same bytes later as well.
        security: Debian's security updates; None for none.
        epoch: SOURCE_DATE_EPOCH.
    """

    recipe: Recipe
    package: Path
    keyring: Path
    version: str
    overlay: Path | None
    command_line: str
    mirror: str
    security: str | None
    epoch: int

    def check(self) -> None:
        """Find mistakes before the long part.

        Raises:
            ConfigError: A file is not what it should be.
        """
        if not self.package.name.endswith(f"_{self.recipe.architecture}.deb"):
            raise ConfigError(
                f"'{self.package}' is not the moedge package for {self.recipe.architecture}. Make it with `make deb`.",
                key="flash.package",
            )
        if b"-----BEGIN CERTIFICATE-----" not in self.keyring.read_bytes():
            raise ConfigError(
                f"The keyring '{self.keyring}' holds no certificate in PEM. See 'Keys' in docs/flash.md.",
                key="flash.keyring",
            )

    def build(self) -> str:
        """A name for exactly this input, the same wherever it is built."""
        digest = hashlib.sha256(repr((self.recipe, self.version, self.command_line, self.epoch)).encode())
        for path in (self.package, self.keyring):
            digest.update(path.read_bytes())
        for directory in (recipe_directory() / "root", self.overlay):
            for path in sorted(directory.rglob("*")) if directory else []:
                digest.update(str(path.relative_to(directory)).encode() if directory else b"")
                digest.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
        return digest.hexdigest()[:16]


def installed_tree(sources: Sources, cache: Path, say: Callable[[str], None]) -> Path:
    """The archive of Debian with moedge installed, from `cache` if it was made before.

    Arm64 programs of both are run by qemu-aarch64-static.

    Raises:
        ConfigError: The kernel does not start it for them.
        StorageError: Something could not be installed.
    """
    if not BINFMT.exists():
        raise ConfigError(
            f"This kernel does not run arm64 programs in qemu: '{BINFMT}' is not there. Restart systemd-binfmt, "
            f"which reads what qemu-user-static brings.",
            key="flash.binfmt",
        )
    base = _debian_tree(sources, cache, say)
    digest = hashlib.sha256(base.name.encode() + sources.package.read_bytes()).hexdigest()[:16]
    archive = cache / f"{sources.recipe.name}-moedge-{digest}.tar"
    if archive.exists():
        return archive
    say(f"Installing {sources.package.name}.")
    with tempfile.TemporaryDirectory(prefix="flash-", dir=cache) as name:
        root = Path(name) / "root"
        root.mkdir()
        unpack(base, root)
        for file, line in (("group", f"{DAEMON}:x:{DAEMON_ID}:"), ("passwd", _DAEMON_LINE)):
            with (root / "etc" / file).open("a") as accounts:
                accounts.write(f"{line}\n")
        shutil.copyfile(sources.package, root / "moedge.deb")
        install = ["chroot", root, "dpkg", "--force-unsafe-io", "--install", "/moedge.deb"]
        run(install, "moedge could not be installed", {"SOURCE_DATE_EPOCH": str(sources.epoch)})
        (root / "moedge.deb").unlink()
        draft = archive.with_suffix(".partial")
        run(
            ["tar", "--create", "--numeric-owner", "--sort=name", "--file", draft, "--directory", root, "."],
            "No archive",
        )
        draft.rename(archive)
    return archive


def unpack(archive: Path, root: Path) -> None:
    """Unpack one of our archives."""
    command = ["tar", "--extract", "--numeric-owner", "--file", archive, "--directory", root]
    run(command, f"'{archive}' cannot be unpacked")


def _debian_tree(sources: Sources, cache: Path, say: Callable[[str], None]) -> Path:
    """The archive of the recipe's packages, installed."""
    recipe = sources.recipe
    packages, hook = cache / "packages", cache / "initramfs-hook"
    command: list[str | Path] = ["mmdebstrap", "--quiet", "--mode=root", "--arch=arm64", "--variant=essential"]
    command += ["--skip=check/qemu", "--skip=essential/unlink", "--skip=download/empty"]
    command += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "info")]
    command += [f"--include={','.join(recipe.packages)}"]
    # Packages are kept for the next build; apt fetches what is missing.
    archives = '"$1/var/cache/apt/archives"'
    command += [
        f"--setup-hook=mkdir -p {archives}; cp {packages}/*.deb {archives}/ 2>/dev/null || true",
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"',
        f'--essential-hook=install -m 755 {hook} "$1/etc/initramfs-tools/hooks/moedge"',
        f"--essential-hook=printf '{_INITRAMFS}' >\"$1/etc/initramfs-tools/conf.d/moedge\"",
        f"--customize-hook=cp -n {archives}/*.deb {packages}/; rm -f {archives}/*.deb",
    ]
    sections: list[str | Path] = [f"deb {sources.security} {recipe.suite}-security main"] if sources.security else []
    digest = hashlib.sha256(repr((command, sections, recipe, sources.mirror, sources.epoch)).encode()).hexdigest()[:16]
    archive = cache / f"{recipe.name}-debian-{digest}.tar"
    if archive.exists():
        say(f"Using {archive}.")
        return archive
    say("Installing Debian's packages. Their arm64 programs run in qemu, which takes minutes.")
    packages.mkdir(parents=True, exist_ok=True)
    hook.write_text(initramfs_hook(recipe))
    draft = archive.with_suffix(".partial.tar")
    command += [recipe.suite, draft, sources.mirror, *sections]
    run(command, "Debian could not be installed", {"SOURCE_DATE_EPOCH": str(sources.epoch)})
    draft.rename(archive)
    return archive


def initramfs_hook(recipe: Recipe) -> str:
    """What initramfs-tools runs to take modules in."""
    return (
        '#!/bin/sh\n[ "$1" = prereqs ] && exit 0\n. /usr/share/initramfs-tools/hook-functions\n'
        f"manual_add_modules {' '.join(recipe.modules)}\n"
    )


def lay_over(root: Path, sources: Sources) -> None:
    """Make of a Debian tree at `root` the root file system of a board: our files, services, version."""
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    shutil.copytree(recipe_directory() / "root", root, dirs_exist_ok=True)
    template = root / "etc/rauc/system.conf.in"
    template.with_suffix("").write_text(template.read_text().replace("@COMPATIBLE@", sources.recipe.compatible))
    template.unlink()
    shutil.copyfile(sources.keyring, root / "etc/rauc/keyring.pem")
    for target, services in _SERVICES.items():
        directory = root / "etc/systemd/system" / target
        directory.mkdir(parents=True, exist_ok=True)
        for service in services:
            own = (root / "etc/systemd/system" / service).exists()
            where = "/etc" if own else "/lib"
            _link(directory / service, f"{where}/systemd/system/{_TEMPLATES.get(service, service)}")
    for path, goal in _LINKS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _link(root / path, goal)
    # Empty, it is neither a first boot nor kept: every boot has an identity of its own, and nothing of ours uses it.
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("moedge\n")
    release = root / "usr/lib/os-release"
    release.write_text(
        release.read_text()
        + f'IMAGE_ID="{sources.recipe.compatible}"\nIMAGE_VERSION="{sources.version}"\nBUILD_ID="{sources.build()}"\n'
    )
    for name in ("boot/efi", "var/lib/moedge", "etc/moedge"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if sources.overlay:
        shutil.copytree(sources.overlay, root, symlinks=True, dirs_exist_ok=True)


def squash(root: Path, image: Path, epoch: int) -> None:
    """The tree as one read-only file system. LZO, since GRUB reads the kernel from it and knows no newer one."""
    image.unlink(missing_ok=True)
    command = ["mksquashfs", root, image, "-comp", "lzo", "-b", "256K", "-noappend", "-no-progress", "-quiet"]
    command += ["-all-time", str(epoch), "-mkfs-time", str(epoch)]
    # mksquashfs refuses times from both its options and the environment.
    run(["env", "--unset=SOURCE_DATE_EPOCH", *command], "The root file system could not be written")


def _link(path: Path, goal: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(goal)
