"""The configuration's file is the old one or the new one, whole, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moedge_runtime.config import load_config
from moedge_runtime.daemon.config_file import NewConfig
from moedge_runtime.errors import ConfigError
from runtime.daemon.fakes import write_config
from runtime.daemon.mortal_config import POINTS

SCRIPT = Path(__file__).with_name("mortal_config.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return write_config(tmp_path, tmp_path / "bundle", 1883)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_file_or_the_new_one_and_the_next_try_works(path: Path, point: str) -> None:
    old = path.read_text()
    new = old + "log: {level: debug}\n"
    (path.parent / "new").write_text(new)
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), str(path.parent / "new"), point],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    exchanged = point in ("after the exchange", "directory synced")
    assert path.read_text() == (new if exchanged else old)
    following = NewConfig(load_config(path), old + "log: {level: error}\n")
    following.commit()
    assert load_config(path).log.level == "error"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["bundle", "moedge.yaml", "new"]


def test_a_draft_that_is_given_up_leaves_nothing_behind(path: Path) -> None:
    before = path.read_text()
    new = NewConfig(load_config(path), before + "log: {level: debug}\n")
    new.discard()
    new.commit()
    assert path.read_text() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["bundle", "moedge.yaml"]


def test_a_link_stays_a_link_and_mode_and_owner_stay(path: Path) -> None:
    target = path.parent / "real.yaml"
    path.rename(target)
    path.symlink_to("real.yaml")
    target.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(target, 1234, 1234)
    NewConfig(load_config(path), target.read_text() + "log: {level: debug}\n").commit()
    assert path.is_symlink() and "debug" in target.read_text()
    found = target.stat()
    assert found.st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (1234, 1234)


def test_device_json_comes_beside_the_configuration_where_a_link_leads_to(path: Path) -> None:
    """As on a board whose /etc/moedge is root's: the daemon owns what the link points to."""
    state = path.parent / "state"
    state.mkdir()
    path.rename(state / "moedge.yaml")
    path.symlink_to(state / "moedge.yaml")
    running = load_config(path)
    text = path.read_text()
    device = f'{{"device": "{running.device}", "update": {{"channel": "beta"}}}}\n'
    NewConfig(running, text, device_file=device).commit()
    assert (state / "device.json").read_text() == device
    NewConfig(running, text).commit()
    assert (state / "device.json").read_text() == device, "a configuration alone leaves it"
    assert sorted(entry.name for entry in state.iterdir()) == ["device.json", "moedge.yaml"]
    assert path.is_symlink()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"device": "another"}'])
def test_what_is_not_the_device_json_of_this_device_is_refused(path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="device_file is not"):
        NewConfig(load_config(path), path.read_text(), device_file=content)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["bundle", "moedge.yaml"]
