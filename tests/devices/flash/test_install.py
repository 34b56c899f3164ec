"""Updates on a board of files: RAUC records what it is asked, or is Debian's for what it says of bundles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from devices.flash.test_build import sources
from devices.store.samples import Publisher
from moedge_devices.flash import confirm
from moedge_devices.flash import install as updates
from moedge_devices.flash.build import bundle_from, manifest
from moedge_devices.flash.command import flash
from moedge_devices.flash.install import Machine, board_compatible, check
from moedge_devices.store.cli import bundle
from moedge_devices.store.rauc import Update, look_at
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
    machine = Machine("A", "2", BOARD, may_go_back=False, boot="1")
    with pytest.raises(ConfigError, match="for 'moedge-raspberry-pi-5', this board is 'moedge-generic-arm64'"):
        check(Update("moedge-raspberry-pi-5", "3"), machine)


def test_a_machine_without_slots_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="for systems that `moedge flash build` made"):
        board_compatible(tmp_path / "none")


def signed(place: Path, name: str) -> tuple[Path, Path]:
    """An update of system 1.0 for BOARD, signed by a certificate of its own; both."""
    certificate, key, content = place / f"{name}.pem", place / f"{name}.key", place / name
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=test", "-days", "7300", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    content.mkdir()
    (content / "root.img").write_bytes(os.urandom(100_000))
    (content / "version").write_text("1.0\n")
    (content / "manifest.raucm").write_text(manifest(sources(place)))
    bundle_from(content, certificate, key, place / f"{name}.raucb", certificate)
    return place / f"{name}.raucb", certificate


@pytest.mark.skipif(shutil.which("rauc") is None, reason="needs rauc")
def test_rauc_tells_what_a_bundle_is_and_refuses_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, certificate = signed(tmp_path, "ours")
    signed(tmp_path, "theirs")
    rauc, board = shutil.which("rauc"), tmp_path / "bin"
    board.mkdir()
    (board / "rauc").write_text(f'#!/bin/sh\nexec {rauc} --keyring={certificate} "$@"\n')
    (board / "rauc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{board}:/usr/bin:/bin")
    assert look_at(str(ours)) == Update(BOARD, "1.0")
    (tmp_path / "unsigned.raucb").write_bytes(ours.read_bytes()[:16384])
    for name, key, words in (
        (
            "theirs",
            "flash.signature",
            r"signed by nobody whom this board trusts \(RAUC: signature verification failed.*",
        ),
        ("unsigned", "flash.unsigned", r"is no signed update: it has no signature, or was cut short .*Copy it anew"),
        ("none", "flash.rauc", "No such file.*Give the path"),
    ):
        with pytest.raises(MoedgeError, match=words) as caught:
            look_at(str(tmp_path / f"{name}.raucb"))
        assert caught.value.key == key


@pytest.mark.skipif(shutil.which("rauc") is None, reason="needs rauc")
def test_a_system_is_published_as_what_it_says_it_is_and_only_if_boards_would_take_it(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "publisher")
    (ours, certificate), (_, stranger) = signed(tmp_path, "ours"), signed(tmp_path, "theirs")

    def publish(*options: object) -> dict[str, Any]:
        arguments = ["publish", publisher.directory, ours, "--key", publisher.key, *options, "--json"]
        done = CliRunner().invoke(bundle, [str(argument) for argument in arguments])
        if isinstance(done.exception, MoedgeError):
            return {"error": {"key": done.exception.key, "message": str(done.exception)}}
        assert done.exception is None, done.exception
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    assert "Give --keyring" in publish()["error"]["message"]
    assert "Leave out --name" in publish("--keyring", certificate, "--version", "1.0")["error"]["message"]
    assert publish("--keyring", stranger)["error"]["key"] == "flash.signature"
    said = publish("--keyring", certificate, "--channel", "beta")["release"]
    assert (said["name"], said["version"], said["number"], said["channels"]) == (BOARD, "1.0", 1, ["beta"])
    assert said["bytes"] == ours.stat().st_size
    assert publish("--keyring", certificate, "--channel", "stable")["written_bytes"] == 0
    other, theirs = signed(tmp_path, "again")
    other.replace(ours)
    assert publish("--keyring", theirs)["error"]["key"] == "update.version_reused"
