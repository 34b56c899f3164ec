"""Disks that are refused, and a disk that is written: loop devices of the kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from devices.flash.samples import make_image, need_loop
from moedge_devices.flash.command import flash
from moedge_devices.flash.layout import MIB, SEED_PARTITION
from moedge_devices.flash.seed import unpack
from moedge_devices.flash.signature import sign, signature_of
from moedge_devices.flash.write import (
    Disk,
    check_disk,
    disk_from,
    look_at,
    place_of,
    plan_write,
    read_block_map,
    verify,
)
from moedge_runtime.errors import ConfigError, StorageError

DISK_BYTES = 96 * MIB


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk full of what was on it before."""
    loop = need_loop(DISK_BYTES, tmp_path / "disk")
    (tmp_path / "disk").write_bytes(b"\xa5" * DISK_BYTES)
    yield Path(loop)
    subprocess.run(["losetup", "--detach", loop], check=True)


def refusal(device: Path, image: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_write(image, device, {})
    return caught.value.key


def test_a_disk_is_written_read_back_and_seeded(image: Path, disk: Path, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "device.json").write_text('{"device": "gate-01"}')
    done = CliRunner().invoke(flash, ["write", str(image), str(disk), "--seed", str(seed), "--yes"])
    assert done.exception is None, done.output
    _, ranges = read_block_map(Path(f"{image}.bmap"))
    offset, room = place_of(SEED_PARTITION, image)
    verify(disk, [each for each in ranges if not each[0] <= offset < each[0] + each[1]])
    with disk.open("rb") as file:
        file.seek(offset)
        assert unpack(file.read(room)) == {"device.json": b'{"device": "gate-01"}'}


def test_a_dry_run_prints_the_steps_that_are_taken_and_writes_nothing(image: Path, disk: Path) -> None:
    before = disk.read_bytes()
    dry = CliRunner().invoke(flash, ["write", str(image), str(disk), "--dry-run"])
    assert dry.exception is None and disk.read_bytes() == before
    wet = CliRunner().invoke(flash, ["write", str(image), str(disk), "--yes"])
    steps = dry.stdout.splitlines()[1:]
    assert len(steps) == 2 and all(wet.output.count(step) == 2 for step in steps)  # planned, and done


def test_what_is_read_back_is_compared(image: Path, disk: Path) -> None:
    _, ranges = read_block_map(Path(f"{image}.bmap"))
    with pytest.raises(StorageError, match="worn out or fake"):
        verify(disk, ranges)


def test_a_mounted_disk_is_refused(image: Path, disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", disk], check=True)
    point = tmp_path / "point"
    point.mkdir()
    subprocess.run(["mount", disk, point], check=True)
    try:
        assert refusal(disk, image) == "flash.in_use"
    finally:
        subprocess.run(["umount", point], check=True)
    assert plan_write(image, disk, {}).disk.path == disk


def test_a_disk_whose_partition_is_mounted_is_refused(image: Path, disk: Path, tmp_path: Path) -> None:
    """The kernel gives such a disk to nobody who asks for it alone, whatever lsblk can see from here."""
    other = need_loop(DISK_BYTES, tmp_path / "other")
    try:
        subprocess.run(["mkswap", other], check=True, capture_output=True)
        subprocess.run(["swapon", other], check=True)
        try:
            assert refusal(Path(other), image) == "flash.in_use"
        finally:
            subprocess.run(["swapoff", other], check=True)
    finally:
        subprocess.run(["losetup", "--detach", other], check=True)


def test_the_disk_that_this_system_runs_from_is_refused() -> None:
    swap = {"path": "/dev/mapper/x", "type": "crypt", "mountpoints": ["[SWAP]"]}
    part = {"path": "/dev/sda2", "type": "part", "mountpoints": ["/", None], "children": [swap]}
    entry = {"path": "/dev/sda", "type": "disk", "size": 10**12, "ro": False, "model": "SSD ", "mountpoints": [None]}
    entry["children"] = [part]
    disk = disk_from(entry, Path("/dev/sda"))
    assert disk.model == "SSD" and len(disk.used) == 3
    with pytest.raises(ConfigError, match="/dev/sda2 is mounted on /; ") as caught:
        check_disk(disk, 1)
    assert caught.value.key == "flash.in_use"


@pytest.mark.parametrize(
    ("disk", "key"),
    [
        (Disk(Path("/dev/sdb1"), "part", 10**9, False, "", ()), "flash.not_whole"),
        (Disk(Path("/dev/mapper/v"), "lvm", 10**9, False, "", ()), "flash.not_whole"),
        (Disk(Path("/dev/sdb"), "disk", 10**9, True, "", ()), "flash.read_only"),
        (Disk(Path("/dev/sdb"), "disk", 10**6 - 1, False, "", ()), "flash.too_small"),
    ],
)
def test_other_disks_are_refused(disk: Disk, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_disk(disk, 10**6)
    assert caught.value.key == key


def test_a_file_and_a_missing_disk_are_refused(image: Path, tmp_path: Path) -> None:
    for path in (image, tmp_path / "none"):
        with pytest.raises(ConfigError) as caught:
            look_at(path)
        assert caught.value.key == "flash.disk"


def test_an_image_without_a_block_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(100))
    with pytest.raises(ConfigError) as caught:
        plan_write(tmp_path / "disk.img", Path("/dev/null"), {})
    assert caught.value.key == "flash.no_bmap"


def test_an_image_that_is_not_what_its_block_map_says_is_an_error_without_a_traceback(
    image: Path, disk: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.img"
    start = read_block_map(Path(f"{image}.bmap"))[1][-1][0]
    content = bytearray(image.read_bytes())
    content[start + 5] ^= 1
    copy.write_bytes(content)
    Path(f"{copy}.bmap").write_bytes(Path(f"{image}.bmap").read_bytes())
    error = CliRunner().invoke(flash, ["write", str(copy), str(disk), "--yes"]).exception
    assert (
        isinstance(error, StorageError) and "checksum mismatch" in str(error) and "The disk is not to be" in str(error)
    )
    assert "Traceback" not in str(error)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories of two signers: system.pem and system.key."""
    places = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    for place in places:
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7300 -subj /CN=systems "
            "-keyout system.key -out system.pem"
        )
        subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return places


def test_with_a_keyring_only_signed_images_are_written(image: Path, tmp_path: Path, signers: tuple[Path, Path]) -> None:
    ours, theirs = signers
    block_map, keyring = tmp_path / "disk.img.bmap", ours / "system.pem"
    text = Path(f"{image}.bmap").read_text()

    def refusal_of_the_signature() -> str | None:
        try:
            plan_write(tmp_path / "disk.img", tmp_path / "nodisk", {}, keyring)
        except ConfigError as error:
            return None if error.key == "flash.disk" else error.key  # the next thing that is looked at
        raise AssertionError

    (tmp_path / "disk.img").touch()
    block_map.write_text(text)
    assert refusal_of_the_signature() == "flash.image_unsigned"
    sign(block_map, keyring, ours / "system.key", keyring)
    assert refusal_of_the_signature() is None
    block_map.write_text(text.replace("chksum=", "chksum= ", 1))
    assert refusal_of_the_signature() == "flash.image_signature"
    block_map.write_text(text)
    sign(block_map, theirs / "system.pem", theirs / "system.key", theirs / "system.pem")
    assert refusal_of_the_signature() == "flash.image_signature"
    with pytest.raises(ConfigError, match="not good for"):
        sign(block_map, theirs / "system.pem", theirs / "system.key", keyring)
    assert not signature_of(block_map).exists()
    with pytest.raises(StorageError, match="could not be signed"):
        sign(block_map, keyring, theirs / "system.key", keyring)
