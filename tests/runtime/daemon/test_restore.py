"""A backup comes back as a whole, or nothing is written."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_runtime.cli.backup import backup as backup_command
from moedge_runtime.cli.backup import restore as restore_command
from moedge_runtime.config import load_config, pushed
from moedge_runtime.daemon import backup, restore
from moedge_runtime.daemon.backup import make_backup
from moedge_runtime.daemon.restore import read_backup
from moedge_runtime.daemon.restore import restore as restore_backup
from moedge_runtime.errors import ConfigError, MoedgeError, StorageError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.fakes import write_config
from runtime.daemon.test_backup import path, write_hot_set
from runtime.daemon.test_reload import running
from runtime.mqtt.listener import Listener

__all__ = ["path"]  # the fixture


@pytest.fixture
def archive(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive") / "backup.zip"
    made.write_bytes(make_backup(path).content)
    return made


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine."""
    monkeypatch.delenv("MQTT_PASSWORD", raising=False)
    return tmp_path_factory.mktemp("board")


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def changed(archive: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The backup with other members."""
    with zipfile.ZipFile(archive) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    other = archive.with_name("other.zip")
    other.write_bytes(buffer.getvalue())
    return other


def test_an_empty_board_gets_everything_and_is_told_what_it_needs(
    archive: Path, path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = restore_backup(archive, board / "moedge.yaml")
    for name in ("moedge.yaml", "hot.json", "device.json", "schemas/frame.json"):
        assert (board / name).read_bytes() == (path.parent / name).read_bytes(), name
    assert done.unset == ("MQTT_PASSWORD",) and done.left_out == () and len(done.written) == 4
    assert list(board.rglob("*.new")) == []
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    assert load_config(board / "moedge.yaml").device == "d"
    again = restore_backup(archive, board / "moedge.yaml")
    assert again.written == () and len(again.same) == 4


def test_files_that_differ_are_replaced_only_if_told(archive: Path, board: Path) -> None:
    target = board / "moedge.yaml"
    target.write_text("version: 1 # mine\n")
    target.chmod(0o604)
    before = snapshot(board)
    with pytest.raises(ConfigError, match="--replace replaces them") as caught:
        restore_backup(archive, target)
    assert caught.value.key == "backup.differs" and f"'{target}'" in str(caught.value)
    assert snapshot(board) == before
    assert target in restore_backup(archive, target, replace=True).written
    assert b"mine" not in target.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o604


def test_nothing_is_restored_under_a_running_daemon(
    place: Path, bundle: Path, tmp_path: Path, broker: BrokerAddress
) -> None:
    path = write_config(place, bundle, broker.port)
    archive = tmp_path / "backup.zip"
    archive.write_bytes(make_backup(path).content)
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/status", "online")
        assert make_backup(path).content, "a backup is made at any time"
        with pytest.raises(ConfigError, match="Stop it first") as caught:
            restore_backup(archive, path)
        path.with_name("new").write_text(path.read_text())
        path.with_name("new").rename(path)
        with pytest.raises(ConfigError, match="Stop it first"):
            restore_backup(archive, path)
    assert caught.value.key == "backup.running"
    assert restore_backup(archive, path).written == ()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda members: members.pop("backup.json"), "backup.damaged"),
        (lambda members: members.update({"backup.json": b"[]"}), "backup.damaged"),
        (lambda members: members.pop("hot_set.json"), "backup.damaged"),
        (lambda members: members.update({"moedge.yaml": b"version: 1\n"}), "backup.damaged"),
        (lambda members: members.update({"more": b""}), "backup.damaged"),
        (
            lambda members: members.update(
                {"backup.json": members["backup.json"].replace(b'"version": 1', b'"version": 2', 1)}
            ),
            "backup.version_unsupported",
        ),
        (lambda members: members.update({"schemas/../../evil": b""}), "backup.damaged"),
    ],
)
def test_what_is_not_as_it_was_made_is_refused(
    archive: Path, board: Path, change: Callable[[dict[str, bytes]], object], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        restore_backup(changed(archive, change), board / "moedge.yaml")
    assert caught.value.key == key
    assert snapshot(board) == {}


@pytest.mark.parametrize("name", ["schemas/../evil", "schemas//etc/evil", "schemas/", "other"])
def test_a_backup_that_was_made_to_write_elsewhere_writes_nothing(archive: Path, board: Path, name: str) -> None:
    import hashlib

    def with_name(members: dict[str, bytes]) -> None:
        index = json.loads(members["backup.json"])
        members[name] = b"evil"
        index["files"][name] = hashlib.sha256(b"evil").hexdigest()
        members["backup.json"] = json.dumps(index).encode()

    with pytest.raises(ConfigError) as caught:
        restore_backup(changed(archive, with_name), board / "moedge.yaml")
    assert caught.value.key == "backup.damaged"
    assert snapshot(board) == {} and not (board.parent / "evil").exists()


def test_no_bytes_whatever_raise_anything_else(archive: Path, tmp_path: Path) -> None:
    whole, broken = archive.read_bytes(), tmp_path / "broken.zip"
    for position in range(0, len(whole), 7):
        for content in (whole[:position], whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :]):
            broken.write_bytes(content)
            with suppress(MoedgeError):
                read_backup(broken)
    with pytest.raises(StorageError, match="No such file"):
        read_backup(tmp_path / "nothing.zip")


def test_a_bomb_is_not_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "MAX_FILE_BYTES", 10)
    with pytest.raises(ConfigError, match="more or larger files"):
        read_backup(archive)


def test_a_configuration_that_is_not_right_here_is_refused_before_anything_is_written(
    path: Path, board: Path, tmp_path: Path
) -> None:
    (path.parent / "ca.pem").touch()
    path.write_text(path.read_text().replace("mqtt://127.0.0.1:1", "mqtts://h\n  ca: ca.pem"))
    archive = tmp_path / "backup.zip"
    archive.write_bytes(make_backup(path).content)
    with pytest.raises(ConfigError, match="there is no file") as caught:
        restore_backup(archive, board / "moedge.yaml")
    assert caught.value.key == "backup.config"
    assert snapshot(board) == {}


def test_a_hot_set_that_does_not_fit_stays_out_since_the_daemon_would_not_start_with_it(
    path: Path, board: Path, tmp_path: Path
) -> None:
    (path.parent / "hot.json").write_text(
        (path.parent / "hot.json").read_text().replace('"num_experts": 3', '"num_experts": 4')
    )
    archive = tmp_path / "backup.zip"
    archive.write_bytes(make_backup(path).content)
    done = restore_backup(archive, board / "moedge.yaml")
    assert not (board / "hot.json").exists()
    assert "its num_experts is 4, this bundle's is 3" in done.left_out[0]


def test_a_disk_that_fails_leaves_every_file_as_it_was(
    archive: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hot_set(board / "hot.json")
    before = snapshot(board)
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        restore_backup(archive, board / "moedge.yaml")
    assert snapshot(board) == before


def test_what_was_pushed_goes_where_it_counts(
    path: Path, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(etc: Path, var: Path) -> None:
        for module in (pushed, backup):
            monkeypatch.setattr(module, "PUSHED", var / "pushed")
            monkeypatch.setattr(module, "ETC", etc)

    old = tmp_path / "var"
    machine(path.parent, old)
    (old / "pushed").mkdir(parents=True)
    (old / "pushed/moedge.yaml").write_text(path.read_text().replace("Which frame?", "Which now?"))
    archive = tmp_path / "backup.zip"
    archive.write_bytes(make_backup(path).content)
    machine(board / "etc", board / "var")
    (board / "etc").mkdir()
    with pytest.raises(ConfigError, match="counts in the place of one in /etc/moedge only") as caught:
        restore_backup(archive, board / "moedge.yaml")
    assert caught.value.key == "backup.pushed"
    restore_backup(archive, board / "etc/moedge.yaml")
    assert "Which now?" in (board / "var/pushed/moedge.yaml").read_text()
    assert "Which frame?" in (board / "etc/moedge.yaml").read_text()
    (old / "pushed/moedge.yaml").unlink()
    machine(path.parent, old)
    archive.write_bytes(make_backup(path).content)
    machine(board / "etc", board / "var")
    with pytest.raises(ConfigError, match="would count in the place of what is restored"):
        restore_backup(archive, board / "etc/moedge.yaml", replace=True)


def test_the_commands_write_and_bring_back(path: Path, board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, file = CliRunner(), board / "b.zip"
    made = runner.invoke(backup_command, [str(file), "--config", str(path)])
    assert made.exit_code == 0 and f"{file}: " in made.stdout and "of device 'd'" in made.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    twice = runner.invoke(backup_command, [str(file), "--config", str(path)])
    assert "is there already" in str(twice.exception)
    done = runner.invoke(restore_command, [str(file), "--config", str(board / "moedge.yaml")])
    assert done.exit_code == 0, done.exception
    assert f"Written: {board / 'moedge.yaml'}\n" in done.stdout
    assert "Set in the daemon's environment before it starts: MQTT_PASSWORD" in done.stdout
    monkeypatch.chdir(board)
    assert runner.invoke(backup_command, ["--config", str(path), "--no-hot-set"]).exit_code == 0
    assert len(list(board.glob("moedge-d-*Z.zip"))) == 1
