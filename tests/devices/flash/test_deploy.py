"""Boards that have a system: ssh is a program that runs the commands here, with a board of scripts before PATH."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from devices.fleet.sample import write
from moedge_devices.flash.command import flash
from moedge_devices.flash.seed import pack, take_archive, unpack
from moedge_runtime.errors import ConfigError, StorageError

Deploy = Callable[..., Result]
COMMANDS = ["dpkg --print-architecture", "apt-get install --yes", "moedge flash seed --from -",
            "moedge doctor --config /etc/moedge/moedge.yaml --no-measure", "systemctl restart moedge"]  # fmt: skip


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """`moedge flash deploy panel-01 root@board` with an environment file in its seed."""
    package = tmp_path / "build" / "DEBIAN"
    package.mkdir(parents=True)
    control = "Package: moedge\nVersion: 1\nArchitecture: arm64\nMaintainer: a\nDescription: b\n"
    (package / "control").write_text(control)
    deb = tmp_path / "moedge_1_arm64.deb"
    subprocess.run(["dpkg-deb", "--build", package.parent, deb], check=True, capture_output=True)
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "environment").write_text("CAMERA_PASSWORD=geheim\n")
    bin_, board = tmp_path / "bin", tmp_path / "board"
    bin_.mkdir()
    board.mkdir()
    (bin_ / "ssh").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/ssh\nPATH={board}:$PATH; export PATH\nexec sh -c "$3"\n'
    )
    (bin_ / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def run(*arguments: str, architecture: str = "arm64", doctor: int = 0, apt: int = 0) -> Result:
        for name, script in (
            ("dpkg", f"echo {architecture}"),
            ("sudo", 'shift; exec "$@"'),
            ("apt-get", f'cp "$3" {tmp_path}/installed; exit {apt}'),
            ("systemctl", ""),
            ("moedge", f"[ $1 = flash ] && exec cat >{tmp_path}/taken\necho ok jetson.redundancy; exit {doctor}"),
        ):
            (board / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/done\n{script}\n')
            (board / name).chmod(0o755)
        given = ["panel-01", "root@board", "-f", str(write(tmp_path)), "--package", str(deb), "--seed", str(seed)]
        return CliRunner().invoke(flash, ["deploy", *given, *arguments])

    return run


def ran(tmp_path: Path) -> list[str]:
    """Commands of the board, without sudo, in their order."""
    lines = (tmp_path / "done").read_text().splitlines() if (tmp_path / "done").exists() else []
    return [line for line in lines if not line.startswith("sudo ")]


def test_a_board_gets_package_and_files_is_checked_and_started(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("--yes")
    assert done.exception is None, done.output
    commands = ran(tmp_path)
    assert len(commands) == len(COMMANDS)
    assert all(command.startswith(expected) for command, expected in zip(commands, COMMANDS, strict=True))
    files = unpack((tmp_path / "taken").read_bytes())
    assert set(files) == {"moedge.yaml", "device.json", "environment"}
    assert json.loads(files["device.json"])["device"] == "panel-01"
    assert "ok jetson.redundancy" in done.output and "'panel-01'" in done.output
    assert "geheim" not in done.output + (tmp_path / "ssh").read_text()
    assert (tmp_path / "installed").read_bytes() == (tmp_path / "moedge_1_arm64.deb").read_bytes()
    assert not list((tmp_path / "tmp").iterdir()), "nothing is left behind"


def test_a_package_that_cannot_be_installed_ends_it_and_leaves_nothing(deploy: Deploy, tmp_path: Path) -> None:
    error = deploy("--yes", apt=100).exception
    assert isinstance(error, StorageError) and "code 100 (install moedge_1_arm64.deb" in str(error)
    assert len(ran(tmp_path)) == 2 and not list((tmp_path / "tmp").iterdir())


def test_a_dry_run_says_the_commands_and_connects_to_nothing(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("--dry-run")
    assert done.exception is None and not (tmp_path / "ssh").exists()
    said = done.output
    deploy("--yes")
    for line in (tmp_path / "ssh").read_text().splitlines():
        assert line.removeprefix("-T root@board ") in said, "what is said is what is done"


def test_a_board_of_another_architecture_gets_nothing(deploy: Deploy, tmp_path: Path) -> None:
    error = deploy("--yes", architecture="amd64").exception
    assert isinstance(error, StorageError) and "the board must be arm64" in str(error)
    assert ran(tmp_path) == ["dpkg --print-architecture"]


def test_a_board_that_fails_its_check_is_not_started(deploy: Deploy, tmp_path: Path) -> None:
    done = deploy("--yes", doctor=1)
    assert isinstance(done.exception, StorageError) and "check the board" in str(done.exception)
    assert "ok jetson.redundancy" in done.output and all("systemctl" not in command for command in ran(tmp_path))


def test_an_address_that_ssh_would_take_for_an_option_is_refused(deploy: Deploy, tmp_path: Path) -> None:
    deb, fleet = str(tmp_path / "moedge_1_arm64.deb"), str(write(tmp_path))
    arguments = ["deploy", "--package", deb, "-f", fleet, "--", "panel-01", "-oProxyCommand=x"]
    error = CliRunner().invoke(flash, arguments).exception
    assert isinstance(error, ConfigError) and error.key == "flash.address"


def test_a_seed_over_ssh_may_come_again_but_not_to_another_device(tmp_path: Path) -> None:
    first = pack({"device.json": b'{"device": "gate-01"}', "device.key": b"one"}, 1 << 20)
    assert take_archive(first, tmp_path) == ["device.json", "device.key"]
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o640
    take_archive(pack({"device.json": b'{"device": "gate-01"}', "device.key": b"two"}, 1 << 20), tmp_path)
    assert (tmp_path / "device.key").read_bytes() == b"two"
    with pytest.raises(ConfigError, match="This board is 'gate-01', the seed is of 'gate-02'"):
        take_archive(pack({"device.json": b'{"device": "gate-02"}'}, 1 << 20), tmp_path)
    with pytest.raises(ConfigError, match="damaged"):
        take_archive(first[:700], tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        take_archive(first, tmp_path / "none" / "deeper")
