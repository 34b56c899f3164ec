"""Updates that are asked for over MQTT: what starts and refuses them, what is said of them; with real brokers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from moedge_runtime.config import load_config
from moedge_runtime.daemon import updates
from moedge_runtime.daemon.updates import LOOK_NAME, UPDATE_LOCK_NAME, Updates
from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.payloads import UpdateState
from runtime.daemon.fakes import write_config
from runtime.daemon.test_reload import LIVE, NUMBER, ask, changed, running
from runtime.daemon.update_units import Systemd, look, make_store
from runtime.mqtt.home_assistant_rules import problems
from runtime.mqtt.listener import Listener

HOLD = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
NAMES = ("moedge-update", "moedge-update-check", "moedge-system-update")
DISCOVERY = "homeassistant/device/moedge_d/config"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    """Nothing listens yet; there is a source."""
    directory = tmp_path / "run"
    directory.mkdir()
    monkeypatch.setattr(updates, "SOCKETS", directory)
    monkeypatch.setattr(updates, "UPDATE_CONFIG", tmp_path / "update.yaml")
    (tmp_path / "update.yaml").write_text("source: /srv/moedge\n")
    systemd = Systemd(directory)
    yield systemd
    systemd.close()


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> Path:
    """A store whose sample@1 is in use."""
    store = tmp_path / "store"
    make_store(store, bundle)
    return store


def updates_of(place: Path, bundle: Path, **mqtt: Any) -> Updates:
    config = load_config(write_config(place, bundle, 1, mqtt={"url": "mqtt://127.0.0.1:1", "base_topic": "t", **mqtt}))
    made = Updates()
    made.configure(config)
    return made


@pytest.fixture
def installed(place: Path, store: Path) -> Updates:
    """Of a daemon that runs from the store."""
    return updates_of(place, store / "current/sample")


@contextmanager
def updater(store: Path) -> Iterator[None]:
    """Another process holds the lock of the updater."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store / UPDATE_LOCK_NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.close()


def refusal(made: Updates, *, check: bool = False) -> str | None:
    with pytest.raises(RequestError) as caught:
        made.start(check=check)
    return caught.value.key


@pytest.mark.parametrize(
    ("listening", "check", "started"),
    [
        (NAMES[:2], False, {"model": "moedge-update"}),
        (NAMES, False, {"model": "moedge-update", "system": "moedge-system-update"}),
        (NAMES, True, {"model": "moedge-update-check"}),
        (NAMES[2:], False, {"system": "moedge-system-update"}),
    ],
)
def test_a_connection_starts_what_listens_and_nothing_is_said_over_it(
    systemd: Systemd, installed: Updates, listening: tuple[str, ...], check: bool, started: dict[str, str]
) -> None:
    systemd.listen(*listening)
    assert installed.start(check=check).started == list(started)
    assert systemd.started() == list(started.values())


def test_what_cannot_be_started_says_what_to_do(systemd: Systemd, place: Path, store: Path, bundle: Path) -> None:
    made = updates_of(place, store / "current/sample")
    assert refusal(made) == "update.not_here", "nothing listens, as in a container"
    systemd.listen("moedge-system-update")
    assert refusal(made, check=True) == "update.not_here", "of systems nothing is looked for"
    systemd.listen(*NAMES[:2])
    assert refusal(updates_of(place, store / "current/sample", remote_config=False)) == "request.update_not_allowed"
    for text in ("", "keep: 2\n", "source: null\n"):
        updates.UPDATE_CONFIG.write_text(text)
        assert refusal(made) == "update.no_source"
    for text in ("source: [\n", "- list\n"):
        updates.UPDATE_CONFIG.write_text(text)
        assert made.start(check=True).started, "the updater knows better what is wrong"
        made = updates_of(place, store / "current/sample")
    assert systemd.started() == ["moedge-update-check"] * 2
    assert refusal(updates_of(place, bundle), check=True) == "update.not_in_store"
    assert systemd.started() == []


def test_a_socket_that_nobody_listens_on_any_more_or_that_is_none_is_not_there(
    systemd: Systemd, installed: Updates
) -> None:
    systemd.listen("moedge-update")
    systemd.close()
    assert refusal(installed) == "update.not_here"
    (updates.SOCKETS / "moedge-update.socket").unlink()
    (updates.SOCKETS / "moedge-update.socket").symlink_to(updates.UPDATE_CONFIG)
    assert (refusal(installed), installed.state().can_start) == ("update.not_here", False)
    assert updates.UPDATE_CONFIG.read_text() == "source: /srv/moedge\n"


def test_an_update_is_started_once(
    systemd: Systemd, store: Path, installed: Updates, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = installed
    systemd.listen(*NAMES[:2])
    with updater(store):
        assert refusal(made) == refusal(made, check=True) == "update.running"
    assert systemd.started() == []
    made.start(check=False)
    assert made.busy and refusal(made) == "update.running"
    look(store, "current")
    assert not made.busy, "it has run meanwhile"
    made.start(check=True)
    assert made.busy and not made.state().in_progress, "it only looks"
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + updates.START_S + 1)
    assert not made.busy, "it did not come"
    assert systemd.started() == ["moedge-update", "moedge-update-check"]


def test_the_state_is_what_the_updater_says_and_whether_it_runs(
    systemd: Systemd, store: Path, installed: Updates
) -> None:
    made = installed
    assert made.state() == UpdateState()
    systemd.listen("moedge-update")
    assert made.state() == UpdateState(can_start=True)
    said = look(store)
    state = made.state().model_dump(mode="json")
    assert {key: state[key] for key in ("looked_at", "status", "latest_version", "text", "error")} == {
        "looked_at": said["at"],
        "status": "waiting",
        "latest_version": "2",
        "text": "It waits.",
        "error": None,
    }
    look(store, "updating")
    assert (made.state().status, made.state().in_progress) == ("stopped", False), "it was killed"
    with updater(store):
        assert (made.state().status, made.state().in_progress, made.busy) == ("updating", True, True)
        look(store, "current")
        assert not made.state().in_progress, "it only looks"
    for damaged in ("", "[]", '{"at": 1}', '{"status": "of another moedge"}'):
        (store / LOOK_NAME).write_text(damaged)
        assert made.state() == UpdateState(can_start=True)


def test_an_update_that_is_asked_for_is_started_and_what_became_of_it_is_said(
    systemd: Systemd, place: Path, store: Path, broker: BrokerAddress
) -> None:
    path = write_config(place, store / "current/sample", broker.port, cameras=LIVE, watches=[NUMBER])
    with Listener(broker, "t/#") as listener, running(path):
        assert listener.json("t/d/update/state") == UpdateState(installed_version="1").model_dump()
        assert ask(listener, "update")["error"]["key"] == "update.not_here"
        systemd.listen(*NAMES[:2])
        response = ask(listener, "update")
        assert (response["status"], response["data"]) == ("ok", {"started": ["model"], "check": False})
        assert systemd.started() == ["moedge-update"]
        assert ask(listener, "update")["error"]["key"] == "update.running"
        assert listener.json("t/d/update/state", '"in_progress":true')["can_start"] is True
        look(store, "failed", error={"key": "update.unreachable", "message": "It cannot be reached."})
        failed = listener.json("t/d/update/state", '"status":"failed"')
        assert (failed["in_progress"], failed["error"]["key"]) == (False, "update.unreachable")
        assert ask(listener, "update", check=True)["data"] == {"started": ["model"], "check": True}
        assert systemd.started() == ["moedge-update-check"]
        assert ask(listener, "update", now=True)["error"]["key"] == "request.invalid"
        path.write_text(changed(path, mqtt={**yaml.safe_load(path.read_text())["mqtt"], "remote_config": False}))
        assert ask(listener, "reload")["status"] == "ok"
        assert ask(listener, "update")["error"]["key"] == "request.update_not_allowed"
    assert systemd.started() == []


def test_home_assistant_has_the_button_where_and_while_it_does_something(
    systemd: Systemd, place: Path, store: Path, bundle: Path, broker: BrokerAddress
) -> None:
    path = write_config(
        place,
        store / "current/sample",
        broker.port,
        mqtt={"url": f"mqtt://127.0.0.1:{broker.port}", "base_topic": "t", "home_assistant": True},
        health={"interval": "1s"},
        cameras=LIVE,
        watches=[NUMBER],
    )

    def announced(listener: Listener, text: str = "") -> dict[str, Any]:
        payload = listener.json(DISCOVERY, text)
        assert problems(DISCOVERY, payload) == []
        component: dict[str, Any] = payload["components"]["model"]
        return component

    with Listener(broker, DISCOVERY) as listener, Listener(broker, "t/#") as said, running(path):
        assert announced(listener).keys().isdisjoint({"command_topic", "payload_install"})
        systemd.listen("moedge-update")
        component = announced(listener, "payload_install")
        said.publish(component["command_topic"], component["payload_install"])
        assert said.json("t/d/response/update")["data"]["started"] == ["model"]
        assert systemd.started() == ["moedge-update"]
        path.write_text(changed(path, model={"bundle": str(bundle)}))
        assert ask(said, "reload")["status"] == "ok"
        listener.message(DISCOVERY, '"model":{"platform":"update"}')  # takes it away
        with Listener(broker, DISCOVERY) as later:
            assert "model" not in later.json(DISCOVERY)["components"], "this model is not one that is updated"
            later.publish(DISCOVERY, b"", retain=True)
