"""Recipes, partitions, and the parts of a root file system that are made without Debian's mirror."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from devices.flash.samples import DATA_BYTES, EPOCH, make_image, small_recipe
from moedge_devices.flash.boot import GRUB, take_boot_files, write_boot_files
from moedge_devices.flash.build import _publish, manifest
from moedge_devices.flash.command import flash
from moedge_devices.flash.layout import MIB, partitions
from moedge_devices.flash.recipe import recipe_directory, recipe_for
from moedge_devices.flash.rootfs import MIRROR, Sources, debian_archive, lay_over, squash
from moedge_devices.profile.load import shipped_profiles
from moedge_runtime.errors import ConfigError


def sources(tmp_path: Path, version: str = "1.0") -> Sources:
    package, keyring = tmp_path / "moedge_1_arm64.deb", tmp_path / "keyring.pem"
    package.write_bytes(b"package")
    keyring.write_text("-----BEGIN CERTIFICATE-----\n")
    return Sources(small_recipe(), package, keyring, version, None, "", MIRROR, None, EPOCH)


def tree(root: Path) -> Path:
    """The least of Debian that our files are laid over."""
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text("ID=debian\n")
    (root / "etc/systemd/system").mkdir(parents=True)
    return root


def test_every_recipe_names_profiles_that_exist() -> None:
    names = [path.stem for path in recipe_directory().glob("*.yaml")]
    assert names
    for name in names:
        recipe = recipe_for(name)
        assert recipe.name == name and set(recipe.profiles) <= set(shipped_profiles())


def test_an_image_with_a_seed_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"image")
    for secret, mode in ((True, 0o600), (False, 0o644), (True, 0o600)):
        _publish(made, tmp_path / "out.img", secret=secret)
        assert (tmp_path / "out.img").stat().st_mode & 0o777 & ~0o022 == mode
        assert (tmp_path / "out.img").read_bytes() == b"image"


@pytest.mark.skipif("VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text(), reason="needs Debian 12")
def test_every_recipe_names_the_essential_packages() -> None:
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Essential}\n"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    essential = {line.removesuffix(" yes") for line in listed if line.endswith(" yes")}
    assert "dash" in essential
    for path in recipe_directory().glob("*.yaml"):
        assert essential <= set(recipe_for(path.stem).packages)


@pytest.mark.skipif(shutil.which("mmdebstrap") is None or os.geteuid() != 0, reason="needs mmdebstrap and root")
def test_debian_is_unpacked_and_its_packages_are_kept_for_the_next_build(tmp_path: Path) -> None:
    repository, cache = tmp_path / "repository", tmp_path / "cache"
    package = repository / "one"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "bin").mkdir()
    (package / "bin/one").write_text("one\n")
    control = "Package: one\nVersion: 1\nArchitecture: arm64\nMaintainer: a\nDescription: one\n"
    (package / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", "one", "one.deb"], cwd=repository, check=True, capture_output=True)
    index = subprocess.run(["dpkg-scanpackages", "."], cwd=repository, check=True, capture_output=True).stdout
    (repository / "Packages").write_bytes(index)
    tmp_path.chmod(0o755)
    given = replace(
        sources(tmp_path),
        recipe=small_recipe().model_copy(update={"packages": ("one",)}),
        mirror=f"deb [trusted=yes] copy://{repository} ./",
    )
    for _ in range(2):
        archive = debian_archive(given, cache, lambda _: None)
        listed = subprocess.run(["tar", "--list", "--file", archive], capture_output=True, text=True, check=True).stdout
        assert "./usr/bin/one\n" in listed
        assert [path.name for path in (cache / "packages").iterdir()] == ["one_1_arm64.deb"]
        archive.unlink()
        (repository / "one.deb").unlink(missing_ok=True)


def test_a_board_without_a_recipe_is_told_so() -> None:
    with pytest.raises(ConfigError, match="There is one for: generic-arm64") as caught:
        recipe_for("orin-nano-8gb")
    assert caught.value.key == "flash.no_recipe"


def test_the_image_has_the_planned_partitions_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    images = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        images.append(make_image(tmp_path / name))
    first, second = (hashlib.sha256(image.read_bytes()).hexdigest() for image in images)
    assert first == second
    table = json.loads(subprocess.run(["sfdisk", "--json", images[0]], capture_output=True, check=True).stdout)
    found = [(part["name"], part["type"].lower(), part["size"] * 512) for part in table["partitiontable"]["partitions"]]
    planned = partitions(small_recipe(), DATA_BYTES)
    assert found == [(part.name, part.type_uuid, part.size_bytes) for part in planned]
    assert all(part["start"] * 512 % MIB == 0 for part in table["partitiontable"]["partitions"])


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs squashfs-tools")
def test_the_same_input_gives_the_same_root_file_system(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        root = tree(tmp_path / name)
        lay_over(root, sources(tmp_path))
        squash(root, tmp_path / f"{name}.squashfs", EPOCH)
        digests.append(hashlib.sha256((tmp_path / f"{name}.squashfs").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_the_root_says_what_it_is_and_what_updates_it_takes(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    lay_over(root, sources(tmp_path))
    release = (root / "usr/lib/os-release").read_text()
    assert 'IMAGE_VERSION="1.0"' in release and f'BUILD_ID="{sources(tmp_path).build()}"' in release
    system = (root / "etc/rauc/system.conf").read_text()
    assert "compatible=moedge-generic-arm64\n" in system and "@" not in system
    assert "compatible=moedge-generic-arm64\nversion=1.0\n" in manifest(sources(tmp_path))
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert (wanted / "moedge-confirm.service").readlink() == Path("/etc/systemd/system/moedge-confirm.service")
    timers = {path.name: path.readlink() for path in wanted.with_name("timers.target.wants").iterdir()}
    assert timers == {
        "moedge-update.timer": Path("/lib/systemd/system/moedge-update.timer"),
        "moedge-system-update.timer": Path("/etc/systemd/system/moedge-system-update.timer"),
    }
    sockets = {path.name: path.readlink() for path in wanted.with_name("sockets.target.wants").iterdir()}
    assert sockets == {
        "systemd-networkd.socket": Path("/lib/systemd/system/systemd-networkd.socket"),
        "moedge-update.socket": Path("/lib/systemd/system/moedge-update.socket"),
        "moedge-update-check.socket": Path("/lib/systemd/system/moedge-update-check.socket"),
        "moedge-system-update.socket": Path("/etc/systemd/system/moedge-system-update.socket"),
    }
    assert not (wanted / "wpa_supplicant@wlan0.service").is_symlink()
    wifi = wanted.with_name("sys-subsystem-net-devices-wlan0.device.wants") / "wpa_supplicant@wlan0.service"
    assert wifi.readlink() == Path("/lib/systemd/system/wpa_supplicant@.service")


def test_another_input_is_another_build(tmp_path: Path) -> None:
    assert sources(tmp_path).build() == sources(tmp_path).build() != sources(tmp_path, "1.1").build()


def test_older_bundles_are_refused_by_the_handler(tmp_path: Path) -> None:
    handler = (recipe_directory() / "root/usr/lib/moedge-image/refuse-older").read_text()
    release = tmp_path / "os-release"
    release.write_text('IMAGE_VERSION="1.10"\n')
    script = tmp_path / "handler"
    script.write_text(handler.replace("/etc/os-release", str(release)))
    for version, code in (("1.9", 1), ("1.10~rc1", 1), ("1.10", 0), ("1.11", 0)):
        (tmp_path / "version").write_text(f"{version}\n")
        environment = {"RAUC_UPDATE_SOURCE": str(tmp_path), "PATH": "/usr/bin:/bin"}
        assert subprocess.run(["sh", script], env=environment, capture_output=True, check=False).returncode == code


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ([], "flash.for_whom"),
        (["--profile", "generic-arm64", "--update"], "flash.unsigned"),
        (["--profile", "rk3588-16gb"], "flash.no_recipe"),
    ],
)
def test_wrong_commands_are_refused(tmp_path: Path, arguments: list[str], key: str) -> None:
    given = sources(tmp_path)
    common = ["--package", given.package, "--keyring", given.keyring, "--out", tmp_path / "out.img"]
    done = CliRunner().invoke(flash, ["build", *map(str, [*common, *arguments])])
    assert isinstance(done.exception, ConfigError) and done.exception.key == key


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="needs grub-common")
def test_the_boot_partition_holds_grub_its_configuration_and_its_variables(tmp_path: Path) -> None:
    grub = tmp_path / "root" / GRUB
    grub.parent.mkdir(parents=True)
    grub.write_bytes(b"grub")
    recipe = small_recipe()
    paths = write_boot_files(tmp_path, take_boot_files(tmp_path / "root", recipe), recipe, "console=ttyS0")
    boot = tmp_path / "boot"
    names = ["EFI/BOOT/BOOTAA64.EFI", *(f"EFI/debian/{name}" for name in ("grub.cfg", "grubenv", "grubenv.last"))]
    assert paths == {"boot": names}
    assert (boot / names[0]).read_bytes() == b"grub"
    assert "rauc.slot=$slot console=ttyS0" in (boot / names[1]).read_text()
    listed = subprocess.run(["grub-editenv", boot / names[2], "list"], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == ["ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=0", "B_TRY=0"]
    assert (boot / names[2]).read_bytes() == (boot / names[3]).read_bytes()
