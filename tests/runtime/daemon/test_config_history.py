"""What the daemon ran with is kept, listed, and comes back; with real brokers, and by the command."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from moedge_runtime.cli.config import config as config_command
from moedge_runtime.config import load_config
from moedge_runtime.daemon.config_history import FOLDER, KEPT, ConfigHistory, Record, changes
from moedge_runtime.daemon.system import STATE_DIRECTORY
from moedge_runtime.durable import Drafts
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.daemon.fakes import write_config
from runtime.daemon.test_reload import LIVE, NUMBER, ask, changed, running
from runtime.mqtt.listener import Listener

SCHEMA = {"type": "object", "properties": {"frame": {"type": "integer"}}, "required": ["frame"]}


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.mktemp("state")
    monkeypatch.setenv(STATE_DIRECTORY, str(directory))
    return directory


@pytest.fixture
def path(place: Path, bundle: Path) -> Path:
    return write_config(place, bundle, 1, cameras=LIVE, watches=[NUMBER])


def run(path: Path, state: Path, **sections: Any) -> list[Record]:
    """A daemon runs with the configuration at `path`, changed; what is kept then."""
    path.write_text(changed(path, **sections))
    history = ConfigHistory(state)
    history.keep(load_config(path))
    records, problems = history.read()
    assert problems == []
    return list(records.values())


def files(state: Path) -> list[Path]:
    return sorted((state / FOLDER).iterdir())


def test_a_configuration_is_kept_as_written_readable_for_whom_its_file_is(path: Path, state: Path) -> None:
    path.chmod(0o640)
    text = f"# as written\n{path.read_text()}"
    path.write_text(text)
    history = ConfigHistory(state)
    history.keep(load_config(path))
    (record,) = history.read()[0].values()
    assert record.config == text == history.find(record.id).config
    assert (record.changes.added, record.changes.removed, record.changes.changed) == ([], [], [])
    assert [file.stat().st_mode & 0o777 for file in files(state)] == [0o640]
    assert (state / FOLDER).stat().st_mode & 0o077 == 0


def test_secrets_of_the_environment_are_not_in_it(path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "s3cret-of-the-environment")
    mqtt = yaml.safe_load(path.read_text())["mqtt"] | {"username": "d", "password": "${MQTT_PASSWORD}"}
    run(path, state, mqtt=mqtt)
    (content,) = [file.read_text() for file in files(state)]
    assert "${MQTT_PASSWORD}" in content and "s3cret" not in content


def test_a_start_with_what_ran_last_writes_nothing(path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(path, state)
    monkeypatch.setattr(Drafts, "add", None)
    assert len(run(path, state)) == 1


def test_the_last_ten_different_ones_are_kept_and_what_runs_again_is_first_again(path: Path, state: Path) -> None:
    for number in range(KEPT + 3):
        records = run(path, state, watches=[{**NUMBER, "question": f"Question {number}?"}])
    assert [yaml.safe_load(record.config)["watches"][0]["question"] for record in records] == [
        f"Question {number}?" for number in reversed(range(3, KEPT + 3))
    ]
    assert len({record.watches["number"] for record in records}) == KEPT
    again = run(path, state, watches=[{**NUMBER, "question": "Question 4?"}])
    assert [record.id for record in again] == [record.id for record in [records[-2], *records[:-2], records[-1]]]
    assert len(files(state)) == KEPT
    assert again[0].changes.changed == ["watches.number.question"]


def test_a_schema_in_a_file_that_changed_is_another_configuration(path: Path, state: Path) -> None:
    schema = path.with_name("frame.json")
    schema.write_text(json.dumps(SCHEMA))
    watches = [{**NUMBER, "json_schema": "frame.json"}]
    run(path, state, watches=watches)
    schema.write_text(json.dumps({**SCHEMA, "required": []}))
    new, old = run(path, state, watches=watches)
    assert new.config == old.config and new.watches != old.watches and new.id != old.id


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 9, slice(0, -9), (b"question", b"quesTion")], ids=str)
def test_a_damaged_file_is_reported_and_left_out_and_goes_in_its_turn(
    path: Path, state: Path, damage: bytes | slice | tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    run(path, state)
    (damaged,) = files(state)
    content = damaged.read_bytes()
    if isinstance(damage, tuple):
        assert damage[0] in content
        damaged.write_bytes(content.replace(*damage))
    else:
        damaged.write_bytes(content[damage] if isinstance(damage, slice) else damage)
    (state / FOLDER / ".00000002-0123456789ab.json.new").write_text("of a run that was cut short")
    history = ConfigHistory(state)
    path.write_text(changed(path, log={"level": "error"}))
    history.keep(load_config(path))
    told = history.told()
    assert isinstance(told, dict)
    assert [kept["id"] for kept in told["configurations"]] == [told["running"]]
    assert told["problems"] == [f"The kept configuration '{damaged}' is damaged, or of another version of moedge."]
    assert told["problems"][0] in caplog.text
    assert [file.name[:8] for file in files(state)] == ["00000001", "00000002"]
    for number in range(KEPT):
        path.write_text(changed(path, watches=[{**NUMBER, "interval": number + 1}]))
        history.keep(load_config(path))
    assert history.read()[1] == [] and len(files(state)) == KEPT


def test_a_disk_that_is_full_or_no_directory_is_an_error_in_the_log_and_no_more(
    path: Path, state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run(path, state)
    before = files(state)
    path.write_text(changed(path, log={"level": "error"}))
    history = ConfigHistory(state)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        history.keep(load_config(path))
    assert "No space left on device" in caplog.text and files(state) == before
    told = history.told()
    assert isinstance(told, dict) and told["running"] not in {kept["id"] for kept in told["configurations"]}
    caplog.clear()
    (state / "file").write_text("")
    history = ConfigHistory(state / "file")
    history.keep(load_config(path))
    assert "is not kept for a roll-back" in caplog.text
    assert isinstance(history.told(), StorageError)


def test_without_a_state_directory_nothing_is_kept_and_that_is_told(path: Path) -> None:
    history = ConfigHistory(None)
    history.keep(load_config(path))
    told = history.told()
    assert isinstance(told, dict)
    assert (told["running"], told["configurations"]) == (None, [])
    assert "STATE_DIRECTORY" in told["problems"][0]


def test_changes_are_named_to_the_third_key_with_watches_by_their_names() -> None:
    before = {
        "log": {"level": "info"},
        "cameras": {"panel": {"source": "csi:0", "motion": {"area": 1}}},
        "watches": [{"name": "a", "question": "?"}, {"name": "b"}],
    }
    after = {
        "cameras": {"panel": {"source": "csi:0", "motion": {"area": 2}}, "gate": {}},
        "watches": [{"name": "c"}, {"name": "a", "question": "!", "interval": 1}],
    }
    found = changes(yaml.safe_dump(before), yaml.safe_dump(after))
    assert found.added == ["cameras.gate", "watches.a.interval", "watches.c"]
    assert found.removed == ["log", "watches.b"]
    assert found.changed == ["cameras.panel.motion", "watches.a.question"]


def test_answers_name_their_version_and_a_configuration_comes_back_over_mqtt(
    place: Path, bundle: Path, broker: BrokerAddress, state: Path
) -> None:
    path = write_config(place, bundle, broker.port, cameras=LIVE, watches=[NUMBER])
    before = path.read_text()
    text = changed(path, watches=[{**NUMBER, "question": "Another question?"}])
    with Listener(broker, "t/#") as listener, running(path) as models:
        first = listener.json("t/d/panel/answer")["question_id"]
        assert ask(listener, "config", config=text)["status"] == "ok"
        second = listener.json("t/d/panel/answer", '"Another question?"')["question_id"]
        history = ask(listener, "config", history=True)["data"]
        new, old = history["configurations"]
        assert history["running"] == new["id"] and history["problems"] == []
        assert (new["watches"], old["watches"]) == ({"number": second}, {"number": first})
        assert new["changes"] == {"added": [], "removed": [], "changed": ["watches.number.question"]}
        assert "question?" not in json.dumps(history).lower(), "keys and identifiers, no values"
        listener.clear()
        for _ in range(2):  # a request may come twice
            data = ask(listener, "config", rollback=old["id"])["data"]
        assert data == {"changed": False, "model_loaded": False} and path.read_text() == before
        assert listener.json("t/d/panel/answer", '"Which frame?"')["question_id"] == first
        history = ask(listener, "config", history=True)["data"]
        assert [kept["id"] for kept in history["configurations"]] == [old["id"], new["id"]]
        error = ask(listener, "config", rollback="sha256-000000000000")["error"]
        assert error["key"] == "config.not_kept" and f"known are: {old['id']}, {new['id']}." in error["message"]
        for keys in ({"rollback": old["id"], "history": True}, {"rollback": old["id"], "config": text}):
            assert ask(listener, "config", **keys)["error"]["key"] == "request.invalid"
        assert ask(listener, "ask", question="Which frame?")["data"]["question_id"] == first
        assert ask(listener, "ask", question="Which frame?", max_tokens=9)["data"]["question_id"] != first
        assert len(models.opened) == 1


def test_a_configuration_that_does_not_fit_any_more_or_may_not_be_set_is_refused(
    place: Path, bundle: Path, broker: BrokerAddress, state: Path
) -> None:
    schema = place / "frame.json"
    schema.write_text(json.dumps(SCHEMA))
    cameras = {**LIVE, "known": {"source": "exec:true", "enabled": False}}
    watches = [{**NUMBER, "json_schema": "frame.json"}]
    path = write_config(place, bundle, broker.port, cameras=LIVE, watches=watches)
    run(path, state)
    run(path, state, cameras=cameras)
    path.write_text(changed(path, cameras=LIVE, watches=[NUMBER]))
    before = path.read_text()
    schema.unlink()
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        _, commands, schemas = ask(listener, "config", history=True)["data"]["configurations"]
        error = ask(listener, "config", rollback=schemas["id"])["error"]
        assert error["key"] == "config.invalid" and "watches[0].json_schema" in error["message"]
        schema.write_text(json.dumps(SCHEMA))
        error = ask(listener, "config", rollback=commands["id"])["error"]
        assert (error["key"], path.read_text()) == ("config.command_not_allowed", before)
    mqtt = yaml.safe_load(before)["mqtt"] | {"remote_config": False}
    path.write_text(changed(path, mqtt=mqtt))
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/status", "online")
        error = ask(listener, "config", rollback=schemas["id"])["error"]
        assert error["key"] == "request.config_not_allowed"
        assert len(ask(listener, "config", history=True)["data"]["configurations"]) == 4, "it may be read"


def test_a_daemon_whose_state_directory_cannot_be_written_runs_and_reloads(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv(STATE_DIRECTORY, str(place / "file"))
    mqtt = {"url": str(broker), "base_topic": "t", "spool": {"directory": str(place / "spool")}}
    path = write_config(place, bundle, broker.port, mqtt=mqtt, cameras=LIVE, watches=[NUMBER])
    caplog.set_level(logging.INFO)
    with Listener(broker, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        text = changed(path, watches=[{**NUMBER, "question": "Another question?"}])
        assert ask(listener, "config", config=text)["data"]["changed"] is True
        listener.message("t/d/panel/answer", '"Another question?"')
        assert ask(listener, "config", history=True)["error"]["key"] == "config.history_unreadable"
    assert caplog.text.count("is not kept for a roll-back") == 2


def command(*arguments: str) -> Result:
    return CliRunner().invoke(config_command, arguments)


def test_the_command_lists_and_brings_back_what_is_still_right(place: Path, tiny: Path, state: Path) -> None:
    path = write_config(place, tiny, 1, watches=[NUMBER])
    path.chmod(0o640)
    option = ("--config", str(path))
    assert command("history", *option).output.startswith("None is kept yet")
    before = path.read_text()
    run(path, state)
    new, old = run(path, state, watches=[{**NUMBER, "question": "Another question?"}])
    after = path.read_text()
    lines = command("history", *option).output.splitlines()
    assert lines[0].startswith(f"{new.id}  ") and lines[0].endswith("  as in the file")
    assert lines[1:3] == ["  changed: watches.number.question", f"  number: {new.watches['number']}"]
    assert lines[3].startswith(f"{old.id}  ") and "as in the file" not in lines[3]

    done = command("rollback", *option)
    assert (done.exit_code, path.read_text(), path.stat().st_mode & 0o777) == (0, before, 0o640), done.output
    assert old.id in done.output and "systemctl reload moedge" in done.output
    path.write_text("version: [")
    assert command("rollback", *option).exit_code == 0
    assert path.read_text() == after, "the one that ran last, since the file is another"
    assert command("rollback", old.id, *option).exit_code == 0
    assert path.read_text() == before


def test_the_command_refuses_what_is_not_kept_or_not_right_any_more(
    place: Path, tiny: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(place, tiny, 1, watches=[{**NUMBER, "max_tokens": 4000}])
    option = ("--config", str(path))
    (old,) = run(path, state)
    done = command("rollback", *option)
    assert isinstance(done.exception, ConfigError) and "No configuration is kept but that of the file" in str(
        done.exception
    )
    for wrong in ("7", ""):
        done = command("rollback", wrong, *option)
        assert isinstance(done.exception, ConfigError) and f"known are: {old.id}" in str(done.exception)
    before = changed(path, watches=[], model={"bundle": str(tiny)})
    (place / "moedge.yaml").write_text(before)
    (place / "frame.json").write_text(json.dumps(SCHEMA))
    run(path, state, watches=[{**NUMBER, "json_schema": "frame.json"}])
    (place / "frame.json").unlink()
    path.write_text(before)
    done = command("rollback", *option)
    assert isinstance(done.exception, ConfigError) and "watches[0].json_schema" in str(done.exception)
    assert path.read_text() == before
    monkeypatch.delenv(STATE_DIRECTORY)
    for verb in ("history", "rollback"):
        done = command(verb, *option)
        assert isinstance(done.exception, ConfigError) and done.exception.key == "config.no_state_directory"
