"""What is in a backup and what never is; and over MQTT with real brokers."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from moedge_runtime.config import pushed
from moedge_runtime.daemon import backup
from moedge_runtime.daemon.backup import make_backup
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.inference.expert_core.hot_set import HotSet, save_hot_set
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.client import MqttClient
from runtime.bundle.sample import TEXT
from runtime.daemon.fakes import write_config
from runtime.daemon.test_reload import LIVE, NUMBER, ask, running
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import Listener

SCHEMA = {"type": "object", "properties": {"frame": {"type": "integer"}}, "required": ["frame"]}


def contents(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def write_hot_set(path: Path) -> None:
    import numpy as np

    counts = np.arange(len(TEXT.moe_layers) * TEXT.num_experts, dtype=np.uint64)
    save_hot_set(path, HotSet(counts.reshape(len(TEXT.moe_layers), TEXT.num_experts)), TEXT)


@pytest.fixture
def path(place: Path, bundle: Path) -> Path:
    """A device with everything that a backup may hold, and a secret that stands in the environment."""
    (place / "schemas").mkdir()
    (place / "schemas/frame.json").write_text(json.dumps(SCHEMA))
    write_hot_set(place / "hot.json")
    (place / "device.json").write_text('{"device": "d"}')
    return write_config(
        place,
        bundle,
        1,
        model={"bundle": str(bundle), "hot_set": "hot.json"},
        mqtt={"url": "mqtt://127.0.0.1:1", "username": "d", "password": "${MQTT_PASSWORD}", "base_topic": "t"},
        cameras=LIVE,
        watches=[{**NUMBER, "json_schema": "schemas/frame.json"}],
    )


def test_a_backup_has_the_configuration_as_written_and_what_was_learnt(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("state")
    (state / "switches.json").write_text('{"version": 1}')
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    monkeypatch.setenv("MQTT_PASSWORD", "s3cret-of-the-environment")
    path.write_text(f"# as written\n{path.read_text()}")
    made = make_backup(path)
    files = contents(made.content)
    assert files["moedge.yaml"] == path.read_bytes()
    assert files["device.json"] == b'{"device": "d"}'
    assert files["hot_set.json"] == (path.parent / "hot.json").read_bytes()
    assert files["schemas/schemas/frame.json"] == json.dumps(SCHEMA).encode()
    assert files["switches.json"] == b'{"version": 1}'
    index = json.loads(files.pop("backup.json"))
    assert index["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert (index["format"], index["version"], index["device"]) == ("moedge-backup", 1, "d")
    assert index["model"]["bundle"] == "sample" and len(index["model"]["manifest_sha256"]) == 64
    assert index["config_file"] == str(path)
    assert made.left_out == ()
    assert made.name.startswith("moedge-d-") and made.name.endswith("Z.zip")
    assert not any(b"s3cret" in content for content in files.values())
    assert "hot_set.json" not in contents(make_backup(path, hot_set=False).content)


def test_variables_that_are_not_set_here_hinder_nothing_and_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MQTT_PASSWORD", raising=False)
    made = make_backup(path)
    assert made.left_out == () and "hot_set.json" in contents(made.content)
    path.write_text(path.read_text().replace("hot_set: hot.json", "hot_set: ${STATE_OF_D}/hot.json"))
    assert make_backup(path).left_out == (
        "the hot set, whose path names a variable of the environment that is not set here",
    )


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("password: ${MQTT_PASSWORD}", "password: hunter2", "line 9: mqtt.password"),
        ("source: file:panel.mp4", "source: exec:grab --token=abcdef", "cameras.panel.source"),
    ],
)
def test_a_secret_that_stands_in_the_configuration_itself_is_refused(
    path: Path, before: str, after: str, where: str
) -> None:
    text = path.read_text()
    assert before in text
    if "exec:" in after:
        text = text.replace("    loop: true\n    realtime: true\n", "")
    path.write_text(text.replace(before, after))
    with pytest.raises(ConfigError, match="holds secrets itself") as caught:
        make_backup(path)
    assert caught.value.key == "backup.secret"
    assert where in str(caught.value)
    assert "hunter2" not in str(caught.value) and "abcdef" not in str(caught.value)


def test_keys_certificates_and_tokens_are_never_in_it(path: Path) -> None:
    for name in ("ca.pem", "device.pem", "device.key", "web-token"):
        (path.parent / name).write_text(f"content of {name}")
    sections = yaml.safe_load(path.read_text())
    sections["mqtt"] |= {"url": "mqtts://h", "ca": "ca.pem", "cert": "device.pem", "key": "device.key"}
    sections["web"] = {"token_file": "web-token"}
    path.write_text(yaml.safe_dump(sections))
    for content in contents(make_backup(path).content).values():
        assert b"content of" not in content


def test_what_was_pushed_is_in_it_beside_what_it_stands_in_the_place_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("var")
    for module in (pushed, backup):
        monkeypatch.setattr(module, "PUSHED", state / "pushed")
        monkeypatch.setattr(module, "ETC", path.parent)
    (state / "pushed").mkdir()
    (state / "pushed/moedge.yaml").write_text(path.read_text().replace("Which frame?", "Which now?"))
    (state / "pushed/device.json").write_text('{"device": "d", "pushed": true}')
    (state / "switches.json").write_text("{}")
    files = contents(make_backup(path).content)
    assert b"Which frame?" in files["moedge.yaml"] and b"Which now?" in files["pushed/moedge.yaml"]
    assert b"pushed" in files["pushed/device.json"] and b"pushed" not in files["device.json"]
    assert files["switches.json"] == b"{}", "the package's state directory"


def test_a_wrong_configuration_and_files_that_are_too_large_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "MAX_FILE_BYTES", 100)
    with pytest.raises(StorageError, match="has more than 100 bytes"):
        make_backup(path)
    monkeypatch.undo()
    path.write_text(path.read_text() + "unknown: 1\n")
    with pytest.raises(ConfigError, match="unknown key"):
        make_backup(path)
    with pytest.raises(StorageError, match="No such file"):
        make_backup(path.with_name("nothing.yaml"))


@pytest.fixture
def online(place: Path, bundle: Path, broker: BrokerAddress) -> Path:
    write_hot_set(place / "hot.json")
    model = {"bundle": str(bundle), "hot_set": "hot.json"}
    return write_config(place, bundle, broker.port, model=model, cameras=LIVE, watches=[NUMBER])


def test_the_response_carries_it(online: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener, running(online):
        listener.message("t/d/panel/answer")
        response = ask(listener, "backup")
        assert response["status"] == "ok"
        data: dict[str, Any] = response["data"]
        content = base64.b64decode(data["zip"])
        assert (data["bytes"], data["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        files = contents(content)
        assert files["moedge.yaml"] == online.read_bytes() and "hot_set.json" in files
        assert "hot_set.json" not in contents(base64.b64decode(ask(listener, "backup", hot_set=False)["data"]["zip"]))
        assert ask(listener, "backup", everything=True)["error"]["key"] == "request.invalid"
        online.write_text(online.read_text().replace("base_topic", "username: u\n  password: hunter2\n  base_topic"))
        refused = ask(listener, "backup")
        assert refused["error"]["key"] == "backup.secret" and "hunter2" not in str(refused)


def test_backups_do_not_pile_up_in_memory(online: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MqttClient, "waiting_bytes", lambda self: (1 << 20) + 1)
    with Listener(broker, "t/#") as listener, running(online):
        listener.message("t/d/panel/answer")
        assert ask(listener, "backup")["error"]["key"] == "request.busy"


def test_one_that_the_broker_would_not_take_is_an_error_that_says_so(tmp_path: Path, place: Path, bundle: Path) -> None:
    broker = Mosquitto(tmp_path, "allow_anonymous true", "max_packet_size 60000")
    address = broker.start()
    path = write_config(place, bundle, address.port, cameras=LIVE, watches=[NUMBER])
    with Listener(address, "t/#") as listener, running(path):
        listener.message("t/d/panel/answer")
        assert ask(listener, "backup")["status"] == "ok"
        noise = hashlib.shake_256(b"noise").hexdigest(60_000)
        path.write_text(f"# {noise}\n{path.read_text()}")
        error = ask(listener, "backup")["error"]
        assert error["key"] == "backup.too_large"
        assert "60,000 are possible over this broker. Leave out the hot set" in error["message"]
    broker.stop()
