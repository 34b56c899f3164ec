"""A whole build, of a Debian with one small package: twice, by somebody else on another day, with the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from devices.flash.samples import small_recipe
from devices.flash.test_build import sources
from moedge_devices.flash.build import build_image, build_update
from moedge_devices.flash.rootfs import PYTHON, Sources
from moedge_devices.flash.write import place_of

TOOLS = ("mmdebstrap", "genimage", "mksquashfs", "grub-editenv", "bmaptool", "rauc", "unsquashfs", "faketime")
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

BOARD = {
    "bin/busybox": "busybox",
    "boot/vmlinuz-6.1": "kernel",
    "lib/modules/6.1/modules.order": "",
    "lib/modules/6.1/modules.builtin": "",
    f"usr/lib/python{PYTHON[0]}.{PYTHON[1]}/colours.py": "def known(c): return c in {'red', 'green', 'blue'}\n",
    "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi": "grub",
    "usr/lib/os-release": "ID=debian\n",
    "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n",
    "usr/share/base-passwd/group.master": "root:*:0:\nvideo:*:44:\nrender:*:105:\n",
    "usr/share/ca-certificates/one.crt": "certificate\n",
    "usr/share/libc-bin/nsswitch.conf": "passwd: files\n",
}
"""What the build asks of Debian's packages."""


def package(directory: Path, name: str, files: dict[str, str]) -> Path:
    root = directory / name
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    (root / "DEBIAN").mkdir()
    control = f"Package: {name}\nVersion: 1\nArchitecture: arm64\nMaintainer: a\nDescription: {name}\n"
    (root / "DEBIAN/control").write_text(control)
    made = directory / f"{name}_1_arm64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, made], check=True, capture_output=True)
    shutil.rmtree(root)
    return made


@pytest.fixture
def given(tmp_path: Path) -> Sources:
    """Sources of a whole image."""
    tmp_path.chmod(0o755)
    repository = tmp_path / "repository"
    repository.mkdir()
    package(repository, "board", BOARD)
    index = subprocess.run(["dpkg-scanpackages", "."], cwd=repository, check=True, capture_output=True).stdout
    (repository / "Packages").write_bytes(index)
    files = {"usr/lib/moedge/a.py": "print('a')\n", "etc/moedge/moedge.yaml": "# empty\n"}
    recipe = small_recipe().model_copy(update={"packages": ("board",), "modules": (), "data_mib": 8})
    certificate, key = tmp_path / "keyring.pem", tmp_path / "key.pem"
    given = replace(sources(tmp_path), recipe=recipe, mirror=f"deb [trusted=yes] copy://{repository} ./")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=test", "-days", "7300", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return replace(given, package=package(tmp_path, "moedge", files), keyring=certificate)


def data(directory: Path, names: str) -> Path:
    """A store, whose files come in an order of their own."""
    (directory / "store/files/ab").mkdir(parents=True)
    for name in names:
        (directory / "store/files/ab" / name).write_text(name * 5_000)
    (directory / "store/bundles/x/1").mkdir(parents=True)
    os.link(directory / "store/files/ab/a", directory / "store/bundles/x/1/head.onnx")
    (directory / "store/current").symlink_to("bundles/x/1")
    return directory


@pytest.mark.skipif(os.geteuid() != 0 or LIBFAKETIME is None, reason="needs root and faketime")
@pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="needs the programs of `moedge flash build`, and faketime"
)
def test_the_same_input_gives_the_same_image_byte_for_byte(
    tmp_path: Path, given: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, roots = [], []
    umask = os.umask(0o022)
    try:
        for name, names, mask, seed in (("one", "abcd", 0o022, "1"), ("two", "dbca", 0o077, "2")):
            stuff, out = data(tmp_path / f"data-{name}", names), tmp_path / f"{name}.img"
            os.umask(mask)
            monkeypatch.setenv("PYTHONHASHSEED", seed)
            if name == "two":
                monkeypatch.setenv("LD_PRELOAD", str(LIBFAKETIME))
                monkeypatch.setenv("FAKETIME", "+400d")
                monkeypatch.setenv("NO_FAKE_STAT", "1")
            cache = tmp_path / f"cache-{name}"
            build_image(
                given, out, seed={"device.json": b"{}"}, data=stuff, signer=None, cache=cache, say=lambda _: None
            )
            monkeypatch.delenv("LD_PRELOAD", raising=False)
            images.append(out)
            update = tmp_path / f"{name}.raucb"
            key = tmp_path / "key.pem"
            build_update(given, update, certificate=given.keyring, key=key, cache=cache, say=lambda _: None)
            command = ["unsquashfs", "-cat", update, "root.img"]
            roots.append(subprocess.run(command, check=True, capture_output=True).stdout)
    finally:
        os.umask(umask)
    assert roots[0] == roots[1]
    for part in ("moedge-boot", "root-a", "moedge-seed", "moedge-data"):
        assert len({_digest(image, *place_of(part, image)) for image in images}) == 1, part
    assert len({_digest(image, 0, image.stat().st_size) for image in images}) == 1
    start, size = place_of("moedge-data", images[0])
    ext4 = tmp_path / "data.ext4"
    ext4.write_bytes(images[0].read_bytes()[start : start + size])
    subprocess.run(["e2fsck", "-fn", ext4], check=True, capture_output=True)
    listed = subprocess.run(
        ["debugfs", "-R", "stat /store/bundles/x/1/head.onnx", ext4], check=True, capture_output=True
    )
    assert b"Links: 2" in listed.stdout


def _digest(image: Path, start: int, size: int) -> str:
    with image.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(size)).hexdigest()
