"""The root file system: Debian packages unpacked by mmdebstrap, the moedge package, our files and the version.

Nothing of it is run here: what maintainer scripts of the packages would do is done from outside (`_configure`), so that
an image for another processor takes a minute instead of an hour in qemu, and the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.errors import ConfigError

from moedge_devices.flash.boot import take_boot_files
from moedge_devices.flash.initramfs import write_initramfs
from moedge_devices.flash.recipe import Recipe, recipe_directory
from moedge_devices.flash.tools import run

MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
DAEMON_ID = 800
"""User and group of the daemon in every image: the data partition outlives the root file systems."""
PYTHON = (3, 11)
"""Of Debian 12: whose byte code is written."""

_SYSUSERS = f"""\
g moedge {DAEMON_ID}
u moedge {DAEMON_ID} "moedge daemon" /var/lib/moedge
u messagebus - "D-Bus"
"""
_SERVICES = {
    "multi-user.target.wants": ("moedge.service", "moedge-confirm.service", "systemd-networkd.service"),
    # Of a target it would keep a board without Wi-Fi waiting for its device in every boot.
    "sys-subsystem-net-devices-wlan0.device.wants": ("wpa_supplicant@wlan0.service",),
    "sysinit.target.wants": ("moedge-seed.service", "systemd-resolved.service", "systemd-timesyncd.service"),
    "sockets.target.wants": (
        "systemd-networkd.socket",
        "moedge-update.socket",
        "moedge-update-check.socket",
        "moedge-system-update.socket",
    ),
    "timers.target.wants": ("moedge-update.timer", "moedge-system-update.timer"),
}
_LINKS = {
    "etc/resolv.conf": "/run/systemd/resolve/stub-resolv.conf",
    "etc/wpa_supplicant/wpa_supplicant-wlan0.conf": "/etc/moedge/wifi.conf",
    "etc/systemd/system/dbus-org.freedesktop.resolve1.service": "/lib/systemd/system/systemd-resolved.service",
    "etc/systemd/system/dbus-org.freedesktop.network1.service": "/lib/systemd/system/systemd-networkd.service",
}
_UNUSED = ("usr/lib/grub", "var/cache", "var/log", "var/lib/apt", "var/lib/dpkg")
"""Not on the board: the boot loader, which has a partition of its own, and what is for changing a root file system."""


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
        kernel: A package with another kernel than the recipe's; None for the recipe's.
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
    kernel: Path | None = None

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
        if self.kernel and self.recipe.backports is None:
            raise ConfigError(
                f"'{self.recipe.name}' has the kernel of its Debian, which no other replaces. Leave out --kernel.",
                key="flash.kernel",
            )
        if b"-----BEGIN CERTIFICATE-----" not in self.keyring.read_bytes():
            raise ConfigError(
                f"The keyring '{self.keyring}' holds no certificate in PEM. See 'Keys' in docs/flash.md.",
                key="flash.keyring",
            )

    def build(self) -> str:
        """A name for exactly this input, the same wherever it is built."""
        mirrors = (self.mirror, self.security)
        digest = hashlib.sha256(repr((self.recipe, self.version, self.command_line, mirrors, self.epoch)).encode())
        for path in filter(None, (self.package, self.keyring, recipe_directory() / "init", self.kernel)):
            digest.update(path.read_bytes())
        for directory in filter(
            None, (recipe_directory() / "root", recipe_directory() / self.recipe.name, self.overlay)
        ):
            for path in sorted(directory.rglob("*")):
                digest.update(str(path.relative_to(directory)).encode())
                digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()[:16]


def make_tree(sources: Sources, root: Path, cache: Path, say: Callable[[str], None]) -> dict[str, bytes]:
    """Make the whole tree at `root`, which is empty.

    Returns:
        See `take_boot_files`.
    """
    unpack(debian_archive(sources, cache, say), root)
    for package in filter(None, (sources.package, sources.kernel)):
        files = root / "package.tar"
        run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" >"$1"', package, files], f"'{package}' cannot be read")
        unpack(files, root)
        files.unlink()
    _configure(root, sources.epoch)
    write_initramfs(root, sources.recipe, sources.epoch)
    boot = take_boot_files(root, sources.recipe)
    lay_over(root, sources)
    return boot


def debian_archive(sources: Sources, cache: Path, say: Callable[[str], None]) -> Path:
    """The archive of the recipe's packages, unpacked; from `cache` if it was made before."""
    recipe, packages = sources.recipe, cache / "packages"
    backports = recipe.backports if sources.kernel is None else None
    newer = [f"{name}/{backports.suite}" for name in backports.packages] if backports else []
    archives = '"$1/var/cache/apt/archives"'
    command: list[str | Path] = ["mmdebstrap", "--quiet", "--mode=root", "--arch=arm64", "--variant=extract"]
    command += ["--skip=check/qemu", "--skip=download/empty", '--aptopt=Acquire::Languages "none"']
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "info")]
    command += [
        # As in every Debian 12, where packages of their own would do it.
        '--setup-hook=for name in bin lib sbin; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done',
        # Packages are kept for the next build; apt fetches what is missing.
        f"--setup-hook=mkdir -p {archives}; cp {packages}/*.deb {archives}/ 2>/dev/null || true",
        f"--extract-hook=cp -n {archives}/*.deb {packages}/; rm -f {archives}/*.deb",
        f"--include={','.join([*recipe.packages, *newer])}",
    ]
    sections: list[str | Path] = [f"deb {sources.security} {recipe.suite}-security main"] if sources.security else []
    if backports:
        sections.append(f"deb {sources.mirror} {backports.suite} main")
    digest = hashlib.sha256(repr((command[1:], sections, sources.mirror, sources.epoch)).encode()).hexdigest()[:16]
    archive = cache / f"{recipe.name}-{digest}.tar"
    if archive.exists():
        say(f"Using {archive}.")
        return archive
    say("Unpacking Debian's packages.")
    packages.mkdir(parents=True, exist_ok=True)
    draft = archive.with_suffix(".partial.tar")
    command += [recipe.suite, draft, sources.mirror, *sections]
    run(command, "Debian could not be unpacked", {"SOURCE_DATE_EPOCH": str(sources.epoch)})
    draft.rename(archive)
    return archive


def unpack(archive: Path, root: Path) -> None:
    """Unpack a tree."""
    command: list[str | Path] = ["tar", "--extract", "--numeric-owner", "--keep-directory-symlink"]
    command += ["--file", archive, "--directory", root]
    run(command, f"'{archive}' cannot be unpacked")


def lay_over(root: Path, sources: Sources) -> None:
    """Make of a Debian tree at `root` the root file system of a board: our files, services, version."""
    for name in _UNUSED:
        shutil.rmtree(root / name, ignore_errors=True)
    _lay_ours(recipe_directory() / "root", root)
    _lay_ours(recipe_directory() / sources.recipe.name / "root", root)
    template = root / "etc/rauc/system.conf.in"
    template.with_suffix("").write_text(template.read_text().replace("@COMPATIBLE@", sources.recipe.compatible))
    template.unlink()
    shutil.copyfile(sources.keyring, root / "etc/rauc/keyring.pem")
    for target, services in _SERVICES.items():
        for service in services:
            own = (root / "etc/systemd/system" / service).exists()
            name, _, instance = service.partition("@")
            file = f"{name}@.service" if instance else service
            goal = f"{'/etc' if own else '/lib'}/systemd/system/{file}"
            _link(root / "etc/systemd/system" / target / service, goal)
    for path, goal in _LINKS.items():
        _link(root / path, goal)
    # Empty, it is neither a first boot nor kept: every boot has an identity of its own, and nothing of ours uses it.
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("moedge\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
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
    command: list[str | Path] = ["mksquashfs", root, image, "-noappend", "-no-progress", "-quiet"]
    command += ["-comp", "lzo", "-Xalgorithm", "lzo1x_1", "-b", "256K"]
    command += ["-all-time", str(epoch), "-mkfs-time", str(epoch)]
    # mksquashfs refuses times from both its options and the environment.
    run(["env", "--unset=SOURCE_DATE_EPOCH", *command], "The root file system could not be written")


def python_for_byte_code() -> str:
    """A Python of the board's version on this machine: its byte code is the same for every processor.

    Raises:
        ConfigError: There is none.
    """
    name = f"python{PYTHON[0]}.{PYTHON[1]}"
    found = sys.executable if sys.version_info[:2] == PYTHON else shutil.which(name)
    if found is None:
        raise ConfigError(
            f"Building an image needs {name}, the board's, for its byte code. Install it, or build on Debian 12.",
            key="flash.tools",
        )
    return found


def _configure(root: Path, epoch: int) -> None:
    """What the maintainer scripts of the packages would do, as far as a board needs it.

    Sources: the postinst of base-passwd, ca-certificates, libc-bin, dbus, systemd, wpasupplicant and moedge in
    Debian 12. Not done: PAM's common files, since nobody can log in.
    """
    for name in ("passwd", "group"):
        shutil.copyfile(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    shutil.copyfile(root / "usr/share/libc-bin/nsswitch.conf", root / "etc/nsswitch.conf")
    users = root / "etc/sysusers.d/moedge.conf"  # the package's own file has this name, too: its numbers are any
    users.parent.mkdir(exist_ok=True)
    users.write_text(_SYSUSERS + "m moedge video\nm moedge render\n")
    # It notes on which day a password was set.
    run(["systemd-sysusers", f"--root={root}"], "Users could not be made", {"SOURCE_DATE_EPOCH": str(epoch)})
    (root / "etc/shadow").chmod(0o600)
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    configuration = root / "etc/moedge"
    for path in (configuration, *configuration.iterdir()):
        os.chown(path, 0, DAEMON_ID)
        path.chmod(0o750 if path.is_dir() else 0o640)
    compile_all: list[str | Path] = [python_for_byte_code(), "-m", "compileall", "-q", "-s", root, "-p", "/"]
    libraries = [root / "usr/lib/moedge", root / f"usr/lib/python{PYTHON[0]}.{PYTHON[1]}"]
    run([*compile_all, "--invalidation-mode", "unchecked-hash", *libraries], "Byte code could not be written")


def _lay_ours(ours: Path, root: Path) -> None:
    """Copy files of devices/image, with modes of their own: a checkout or an installed wheel may have lost them."""
    for source in sorted(ours.rglob("*")):
        target = root / source.relative_to(ours)
        if source.is_dir():
            target.mkdir(mode=0o755, exist_ok=True)
        else:
            content = source.read_bytes()
            target.write_bytes(content)
            target.chmod(0o755 if content.startswith(b"#!") else 0o644)


def _link(path: Path, goal: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(goal)
