import json
import threading
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from devices.fleet.fake_device import FakeDevice, wait_online
from devices.fleet.sample import FLEET, sample, write
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.links import Access
from moedge_devices.fleet.live import LiveView
from moedge_devices.fleet.load import Fleet
from moedge_devices.fleet.status import FleetView, Row, status_text
from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.brokers import Mosquitto
from runtime.mqtt.listener import Listener

DEADLINE_S = 30.0
OTHER = "runs another bundle than qwen3-vl-30b-int4@2026.11 of the fleet file"
GOLDEN = Path(__file__).parents[2] / "runtime/mqtt/golden"


def text_for(address: BrokerAddress) -> str:
    return FLEET.replace("mqtt://127.0.0.1:1883", str(address))


def until(live: LiveView, condition: Any) -> list[Row]:
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        rows = live.rows()
        if condition(rows):
            return rows
        assert time.monotonic() < deadline_s, status_text(rows)
        time.sleep(0.02)


def test_status_shows_what_devices_and_broker_say(tmp_path: Path, mosquitto: BrokerAddress) -> None:
    path = write(tmp_path, text_for(mosquitto))
    with ExitStack() as stack:
        first = stack.enter_context(FakeDevice(mosquitto, "panel-01"))
        second = stack.enter_context(FakeDevice(mosquitto, "panel-02"))
        third = FakeDevice(mosquitto, "panel-03")
        with third:
            wait_online(mosquitto, first, second, third)
        first.say(answer="half full")
        second.say(bundle="another")
        with Listener(mosquitto) as listener:
            listener.message("moedge/panel-01/gate/answer/last", "half full")
            listener.message("moedge/panel-02/gate/answer/last")
            listener.message("moedge/panel-03/status", "stopped")
        result = CliRunner().invoke(
            command, ["status", "-f", str(path), "--json", "--wait", "0.1"], standalone_mode=False
        )
        assert result.return_value == 1, result.exception
        document = json.loads(result.stdout)
        rows = {row["device"]: row for row in document["devices"]}
        assert document["live"] is True
        assert [row["state"] for row in rows.values()] == ["online", "online", "stopped", "unknown"]
        assert rows["panel-01"]["problems"] == [] and rows["panel-01"]["bundle_ok"] is True
        assert rows["panel-01"]["version"] == "0.1.0"
        assert rows["panel-01"]["last_answer"]["text"] == "half full" and rows["panel-01"]["last_answer"]["age_s"] < 30
        assert rows["panel-01"]["cameras"] == {"gate": "online"}
        assert rows["panel-02"]["problems"] == [OTHER]
        assert rows["panel-03"]["problems"] == ["stopped"] and rows["panel-04"]["problems"] == ["nothing heard"]
        result = CliRunner().invoke(command, ["status", "-f", str(path), "--device", "panel-01"], standalone_mode=False)
        assert result.return_value == 0, result.exception
        assert "1 device: 1 online; 1 without problems." in result.stdout and "half full" in result.stdout


def test_the_view_follows_answers_a_death_and_a_return(tmp_path: Path, mosquitto: BrokerAddress) -> None:
    fleet = sample(tmp_path, text_for(mosquitto))
    with LiveView(list(fleet.devices.values()), Access()) as live:
        with FakeDevice(mosquitto, "panel-01") as device:
            until(live, lambda rows: rows[0].state == "online")
            device.say(answer="one")
            until(live, lambda rows: rows[0].last_answer is not None and rows[0].last_answer.text == "one")
            device.say(answer="two")
            until(live, lambda rows: rows[0].last_answer is not None and rows[0].last_answer.text == "two")
        until(live, lambda rows: rows[0].state == "stopped")
        with FakeDevice(mosquitto, "panel-01"):
            until(live, lambda rows: rows[0].state == "online")


def test_the_view_comes_back_after_the_broker_was_killed(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    address = broker.start()
    fleet = sample(tmp_path, text_for(address))
    with FakeDevice(address, "panel-01"), LiveView(list(fleet.devices.values()), Access()) as live:
        until(live, lambda rows: rows[0].state == "online")
        broker.kill()
        until(live, lambda rows: live.fault is not None)
        broker.start()
        until(live, lambda rows: live.fault is None)
        with FakeDevice(address, "panel-04"):
            until(live, lambda rows: rows[3].state == "online" and rows[0].state == "online")
    broker.stop()


def two_brokers(first: BrokerAddress, second: BrokerAddress) -> str:
    """Paris has a broker of its own."""
    paris = f'  paris:\n    config: {{mqtt: {{url: "{second}"}}}}\n'
    return text_for(first).replace("  paris:\n", paris)


def test_a_site_whose_broker_is_away_hides_no_other_site(tmp_path: Path, mosquitto: BrokerAddress) -> None:
    paris = Mosquitto(tmp_path)
    path = write(tmp_path, two_brokers(mosquitto, paris.address))
    with FakeDevice(mosquitto, "panel-01") as device:
        wait_online(mosquitto, device)
        arguments = ["status", "-f", str(path), "--json", "--wait", "0.1"]
        result = CliRunner().invoke(command, arguments, standalone_mode=False)
        assert result.return_value == 1, result.exception
        document = json.loads(result.stdout)
        rows = {row["device"]: row for row in document["devices"]}
        assert document["live"] is False and str(paris.address) in document["fault"]
        assert (rows["panel-01"]["state"], rows["panel-01"]["problems"]) == ("online", [])
        assert rows["panel-04"]["problems"] == ["nothing heard", "its broker is not connected"]
        with LiveView(list(sample(tmp_path, path.read_text()).devices.values()), Access()) as live:
            until(live, lambda rows: rows[0].state == "online" and live.fault is not None)
            paris.start()
            with FakeDevice(paris.address, "panel-04"):
                until(live, lambda rows: rows[3].state == "online" and live.fault is None)
                paris.kill()
                until(live, lambda rows: "its broker is not connected" in rows[3].problems)
                device.say(answer="still here")
                until(live, lambda rows: rows[0].last_answer is not None and rows[0].problems == [])
    paris.stop()


def test_without_any_broker_there_is_no_view(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match="cannot be reached"),
        LiveView(list(sample(tmp_path, text_for(Mosquitto(tmp_path).address)).devices.values()), Access()),
    ):
        pass


def test_stored_messages_of_many_devices_are_all_there_at_once(tmp_path: Path, mosquitto: BrokerAddress) -> None:
    """More than mosquitto lets wait for a subscriber (1,000): 2,400 of 600 devices."""
    devices = "".join(
        f"          d{number}: {{config: {{cameras: {{gate: {{source: 'csi:0'}}}}}}}}\n" for number in range(600)
    )
    text = (
        text_for(mosquitto).partition("sites:")[0] + f"sites:\n  a:\n    groups:\n      b:\n        devices:\n{devices}"
    )
    fleet = sample(tmp_path, text)
    with Listener(mosquitto, "end") as listener:
        for name in fleet.devices:
            for topic, value in (
                ("status", {"state": "online"}),
                ("info", {"version": "1", "model": {"bundle": "b", "manifest_sha256": "0"}}),
                ("health", json.loads((GOLDEN / "health.json").read_text())),
                ("gate/answer/last", {"no": "answer"}),
            ):
                listener.client.publish(f"moedge/{name}/{topic}", json.dumps(value), 1, retain=True)
        listener.publish("end", b"")
        listener.message("end")
    with LiveView(list(fleet.devices.values()), Access()) as live:
        rows = live.rows()
    assert [row.state for row in rows] == ["online"] * 600
    assert all(row.version == "1" and row.health is not None for row in rows)
    assert all(any("answer/last is not readable" in problem for problem in row.problems) for row in rows)


def test_the_payloads_of_the_runtime_are_readable(tmp_path: Path) -> None:
    fleet = sample(tmp_path)
    view = FleetView(fleet.devices.values())
    for name, topic in (
        ("status_online", "status"),
        ("info", "info"),
        ("health", "health"),
        ("camera_status_offline", "gate/status"),
        ("answer", "gate/answer/last"),
    ):
        view.note(f"moedge/panel-01/{topic}", (GOLDEN / f"{name}.json").read_bytes())
    row = view.rows(datetime(2026, 11, 23, 8, 16, 30, tzinfo=timezone.utc))[0]
    assert row.state == "online" and row.version == "0.1.0" and row.bundle == "qwen3-vl-30b-int4"
    assert row.system == "2026.12" and "0.1.0, system 2026.12" in status_text([row])
    assert (row.bundle_version, row.bundle_ok) == ("2026.11", True), "as the fleet file says"
    assert row.health is not None and row.cameras == {"gate": "offline"}
    assert row.last_answer is not None and row.last_answer.text == '{"reading": "42.5", "red": false}'
    assert (row.health.age_s, row.last_answer.age_s) == (59.8, 55.2)
    assert row.problems == ["camera gate is offline"]
    view.note("moedge/panel-01/gate/status", b"")
    assert view.rows(datetime(2026, 11, 23, 8, 16, 30, tzinfo=timezone.utc))[0].problems == []
    (late,) = view.rows(datetime(2026, 11, 23, 9, 15, 30, tzinfo=timezone.utc))[:1]
    assert late.problems == ["health is 60 min old"]


@given(
    st.sampled_from(["status", "info", "health", "gate/answer/last", "x", "gate/status"]),
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["state", "model", "version", "at", "cameras", "mqtt", "answered_at", "text"]), inner
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_comes_the_view_stays(topic: str, payload: bytes) -> None:
    view = _view()
    view.note(f"moedge/panel-01/{topic}", payload)
    assert "panel-01" in status_text(view.rows())


_FLEET: list[Fleet] = []


@pytest.fixture(autouse=True, scope="module")
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FLEET.append(sample(tmp_path_factory.mktemp("fleet")))


def _view() -> FleetView:
    return FleetView(_FLEET[0].devices.values())


def test_watching_goes_on_until_it_is_interrupted(tmp_path: Path, mosquitto: BrokerAddress) -> None:
    path = write(tmp_path, text_for(mosquitto))
    shown: list[str] = []
    stop = threading.Event()

    def sleep(seconds: float) -> None:
        shown.append("once")
        if len(shown) == 3:
            stop.set()
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moedge_devices.fleet.cli.time.sleep", sleep)
        result = CliRunner().invoke(
            command, ["status", "-f", str(path), "--watch", "--json", "--wait", "0"], standalone_mode=False
        )
    assert stop.is_set() and len(result.stdout.splitlines()) == 3
    assert all(len(json.loads(line)["devices"]) == 4 for line in result.stdout.splitlines())


def test_another_version_of_the_bundle_is_another_bundle(tmp_path: Path) -> None:
    fleet = sample(tmp_path)
    view = FleetView(fleet.devices.values())
    info = json.loads((GOLDEN / "info.json").read_text())
    for version, right in (("2026.11", True), ("2026.12", False), (None, True)):
        info["model"]["version"] = version
        view.note("moedge/panel-01/info", json.dumps(info).encode())
        row = view.rows()[0]
        assert row.bundle_ok is right, version
        assert (OTHER in row.problems) is not right


def test_another_system_one_that_does_not_count_and_an_update_that_failed_are_problems(tmp_path: Path) -> None:
    fleet = sample(tmp_path, FLEET.replace("defaults:\n", 'defaults:\n  system: "2026.12"\n'))
    view = FleetView(fleet.devices.values())
    info = json.loads((GOLDEN / "info.json").read_text())
    fault = {"version": "2026.13", "key": "update.failed", "message": "no daemon ran"}
    for changes, system_ok, problems in (
        ({}, True, []),
        ({"image_version": "2026.11"}, False, ["runs another system than 2026.12 of the fleet file"]),
        ({"confirmed": False}, True, ["system 2026.12 has not been confirmed"]),
        ({"update_fault": fault}, True, ["its last update of the system failed: 2026.13: no daemon ran"]),
        ({"image_version": None, "slot": None, "confirmed": None}, None, []),
    ):
        said = info | {"system": info["system"] | changes}
        view.note("moedge/panel-01/status", b'{"state": "online"}')
        view.note("moedge/panel-01/info", json.dumps(said).encode())
        row = view.rows()[0]
        assert (row.system_ok, row.problems) == (system_ok, problems), changes
        assert ("(other)" in status_text([row])) is (system_ok is False)
