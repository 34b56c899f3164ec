"""What was pushed counts in the place of the file in /etc/moedge, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from moedge_runtime.config import load_config, pushed
from moedge_runtime.daemon.config_file import NewConfig
from moedge_runtime.errors import ConfigError
from runtime.daemon.fakes import write_config


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `etc`, whose moedge.yaml is valid, and `state`, in which nothing was pushed."""
    (tmp_path / "etc" / "bundle").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    write_config(tmp_path / "etc", Path("bundle"), 1883)
    monkeypatch.setattr(pushed, "ETC", tmp_path / "etc")
    monkeypatch.setattr(pushed, "PUSHED", tmp_path / "state" / "pushed")
    return tmp_path


def push(path: Path, level: str, device_file: str | None = None) -> None:
    running = load_config(path)
    text = (path.parent / "moedge.yaml").read_text() + f"log: {{level: {level}}}\n"
    NewConfig(running, text, device_file=device_file).commit()


def test_what_is_pushed_counts_and_the_file_in_etc_stays(board: Path) -> None:
    path = board / "etc" / "moedge.yaml"
    path.chmod(0o640)
    before = path.read_text()
    assert load_config(path).source == path
    push(path, "debug", '{"device": "d"}')
    config = load_config(path)
    assert (config.path, config.source, config.log.level) == (path, board / "state/pushed/moedge.yaml", "debug")
    assert config.model.bundle == board / "etc" / "bundle", "relative paths stay those of /etc/moedge"
    push(path, "error")
    assert load_config(path).log.level == "error"
    assert path.read_text() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["bundle", "moedge.yaml"]
    assert sorted(entry.name for entry in (board / "state/pushed").iterdir()) == ["device.json", "moedge.yaml"]
    assert pushed.in_force(board / "etc" / "device.json").read_text() == '{"device": "d"}'


def test_only_group_and_owner_read_what_was_pushed(board: Path) -> None:
    path = board / "etc" / "moedge.yaml"
    path.chmod(0o640)
    push(path, "debug")
    assert (board / "state/pushed/moedge.yaml").stat().st_mode & 0o777 == 0o640
    assert (board / "state/pushed").stat().st_mode & 0o027 == 0


def test_without_the_pushed_file_that_of_etc_counts_again(board: Path) -> None:
    path = board / "etc" / "moedge.yaml"
    push(path, "debug")
    (board / "state/pushed/moedge.yaml").unlink()
    config = load_config(path)
    assert (config.source, config.log.level) == (path, "info")
    assert NewConfig(config, None).config.source == path


def test_a_configuration_elsewhere_is_replaced_where_it_is(board: Path) -> None:
    path = write_config(board, board / "etc" / "bundle", 1883)
    push(path, "debug")
    assert load_config(path).log.level == "debug"
    assert path.read_text().endswith("log: {level: debug}\n")
    assert not (board / "state/pushed").exists()


def test_a_link_out_of_etc_is_followed(board: Path) -> None:
    path, target = board / "etc" / "moedge.yaml", board / "state" / "moedge.yaml"
    path.rename(target)
    path.symlink_to(target)
    push(path, "debug")
    assert path.is_symlink() and target.read_text().endswith("log: {level: debug}\n")
    assert not (board / "state/pushed").exists()


def test_a_pushed_file_that_is_wrong_is_named_with_the_way_back(board: Path) -> None:
    path = board / "etc" / "moedge.yaml"
    push(path, "debug")
    (board / "state/pushed/moedge.yaml").write_text("version: 99\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"Configuration '{board}/state/pushed/moedge.yaml' has version 99;")
    assert str(caught.value).endswith(
        f"It was pushed and counts in the place of '{path}'. Push another one, or remove it to have that."
    )
