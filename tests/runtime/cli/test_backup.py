from __future__ import annotations

import errno
from pathlib import Path

import pytest
from click.testing import CliRunner
from moedge_runtime.cli import backup as module
from moedge_runtime.errors import ConfigError

CONFIG = """
version: 1
device: d
model: {bundle: bundle}
mqtt: {url: "mqtt://127.0.0.1"}
cameras: {gate: {source: "rtsp://10.0.0.7/s1"}}
"""


def test_a_backup_that_cannot_be_written_whole_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moedge.yaml").write_text(CONFIG)
    file = tmp_path / "d.zip"

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "sync_path", full)
    done = CliRunner().invoke(module.backup, [str(file), "--config", str(tmp_path / "moedge.yaml"), "--no-hot-set"])
    assert isinstance(done.exception, ConfigError), done.output
    assert "No space left on device" in str(done.exception)
    assert not file.exists()


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "moedge.yaml").write_text(CONFIG)
    file = tmp_path / "d.zip"
    file.write_text("another one")
    done = CliRunner().invoke(module.backup, [str(file), "--config", str(tmp_path / "moedge.yaml"), "--no-hot-set"])
    assert isinstance(done.exception, ConfigError)
    assert "is there already" in str(done.exception)
    assert file.read_text() == "another one"
