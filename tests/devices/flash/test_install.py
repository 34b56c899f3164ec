"""Updates on a board of files: RAUC records what it is asked, or is Debian's for what it says of bundles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from devices.flash.test_build import sources
from moedge_devices.flash import confirm
from moedge_devices.flash import install as updates
from moedge_devices.flash.build import bundle_from, manifest
from moedge_devices.flash.command import flash
from moedge_devices.flash.install import Update, board_compatible, check, look_at
from moedge_runtime.errors import ConfigError, MoedgeError, StorageError

BOARD = "moedge-generic-arm64"
Install = Callable[..., Result]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`moedge flash install` on a board that runs version 2.0, build `b2`, in slot B, confirmed if so."""
    (tmp_path / "cmdline").write_text("root=PARTLABEL=root-b rauc.slot=B\n")
    (tmp_path / "os-release").write_text('IMAGE_VERSION="2.0"\nBUILD_ID="b2"\n')
    (tmp_path / "system.conf").write_text(f"[system]\ncompatible={BOARD}\nbundle-formats=-plain\n")
    monkeypatch.setattr(confirm, "COMMAND_LINE", tmp_path / "cmdline")
    monkeypatch.setattr(confirm, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(updates.board_compatible, "__defaults__", (tmp_path / "system.conf",))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def run(*arguments: str, version: str = "2.1", confirmed: bool = True, other: bool = True, code: int = 0) -> Result:
        (tmp_path / "bin").mkdir(exist_ok=True)
        said = json.dumps({"compatible": BOARD, "version": version})
        for name, script in (
            ("rauc", f"[ $1 = info ] && echo '{said}' && exit 0; exit {code}"),
            ("systemctl", ""),
        ):
            path = tmp_path / "bin" / name
            path.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path / "asked"}\n{script}\n')
            path.chmod(0o755)
        monkeypatch.setattr(confirm, "is_confirmed", lambda slot, build: confirmed and (slot, build) == ("B", "b2"))
        monkeypatch.setattr(confirm, "other_is_good", lambda slot: other)
        return CliRunner().invoke(flash, ["install", *arguments])

    return run


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text().splitlines()


def test_a_newer_system_is_installed_and_started_if_asked(install: Install, tmp_path: Path) -> None:
    done = install("new.raucb")
    assert done.exception is None and "System 2.1 is in slot A" in done.stderr and "systemctl reboot" in done.stderr
    assert asked(tmp_path) == ["rauc info --output-format=json new.raucb", "rauc install new.raucb"]
    install("new.raucb", "--reboot")
    assert asked(tmp_path)[-2:] == ["rauc install new.raucb", "systemctl reboot"]


@pytest.mark.parametrize(
    ("version", "confirmed", "key"),
    [("1.9", True, "flash.downgrade"), ("2.0~rc1", True, "flash.downgrade"), ("2.1", False, "flash.unconfirmed")],
)
def test_what_may_not_be_is_refused_with_its_reason_and_rauc_is_not_asked(
    install: Install, tmp_path: Path, version: str, confirmed: bool, key: str
) -> None:
    done = install("new.raucb", version=version, confirmed=confirmed)
    assert isinstance(done.exception, ConfigError) and done.exception.key == key
    assert "2.0" in str(done.exception)
    assert all("install" not in line for line in asked(tmp_path))


def test_a_system_with_nothing_to_go_back_to_may_be_updated(install: Install) -> None:
    assert install("new.raucb", confirmed=False, other=False).exception is None


def test_what_rauc_could_not_install_is_an_error(install: Install) -> None:
    error = install("new.raucb", code=1).exception
    assert isinstance(error, StorageError) and "journalctl -u rauc" in str(error)


def test_an_update_for_other_boards_is_refused() -> None:
    with pytest.raises(ConfigError, match="for 'moedge-raspberry-pi-5', this board is 'moedge-generic-arm64'"):
        check(Update("moedge-raspberry-pi-5", "3"), {"IMAGE_VERSION": "2"}, BOARD, may_go_back=False)


def test_a_machine_without_slots_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="for systems that `moedge flash build` made"):
        board_compatible(tmp_path / "none")


@pytest.mark.skipif(shutil.which("rauc") is None, reason="needs rauc")
def test_rauc_tells_what_a_bundle_is_and_refuses_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for name in ("ours", "theirs"):
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
                *("-subj", "/CN=test", "-days", "7300", "-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
        keys.append((certificate, key))
        content = tmp_path / name
        content.mkdir()
        (content / "root.img").write_bytes(os.urandom(100_000))
        (content / "version").write_text("1.0\n")
        (content / "manifest.raucm").write_text(manifest(sources(tmp_path)))
        bundle_from(content, certificate, key, tmp_path / f"{name}.raucb", certificate)
    rauc, board = shutil.which("rauc"), tmp_path / "bin"
    board.mkdir()
    (board / "rauc").write_text(f'#!/bin/sh\nexec {rauc} --keyring={keys[0][0]} "$@"\n')
    (board / "rauc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{board}:/usr/bin:/bin")
    assert look_at(str(tmp_path / "ours.raucb")) == Update(BOARD, "1.0")
    (tmp_path / "unsigned.raucb").write_bytes((tmp_path / "ours.raucb").read_bytes()[:16384])
    for name, words in (("theirs", "signature verification failed"), ("unsigned", "no update"), ("none", "No such")):
        with pytest.raises(MoedgeError, match=words):
            look_at(str(tmp_path / f"{name}.raucb"))
