import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from devices.fleet.fake_device import FakeDevice, wait_online
from devices.fleet.sample import FLEET, write
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.fleet import load_fleet
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.render import device_text
from moedge_devices.fleet.stages import stages_of
from moedge_runtime.errors import ConfigError, MoedgeError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.listener import Listener

NAMES = [f"panel-{number:02}" for number in range(1, 9)]
QUICK = ["--settle", "0.3", "--timeout", "10"]


def fleet_text(address: BrokerAddress, *, interval: str = "10s", base: str = "moedge", groups: int = 2) -> str:
    """Eight devices in `groups` groups of one site."""
    camera = {"config": {"cameras": {"gate": {"source": "csi:0"}}}}
    size = len(NAMES) // groups
    parts = [NAMES[start : start + size] for start in range(0, len(NAMES), size)]
    document = {
        "version": 1,
        "defaults": {
            "config": {
                "model": {"bundle": "/b"},
                "mqtt": {"url": str(address), "base_topic": base},
                "watches": [{"name": "level", "camera": "gate", "question": "How full?", "interval": interval}],
            }
        },
        "sites": {
            "berlin": {
                "groups": {f"g{number}": {"devices": dict.fromkeys(part, camera)} for number, part in enumerate(parts)}
            }
        },
    }
    return yaml.safe_dump(document, sort_keys=False)


def run(path: Path, *options: str) -> tuple[int, str]:
    result: Result = CliRunner().invoke(command, ["apply", "-f", str(path), *QUICK, *options], standalone_mode=False)
    if isinstance(result.exception, MoedgeError):
        raise result.exception
    assert result.exception is None, result.exception
    return int(result.return_value), result.stdout


class Fakes:
    """Fake devices by name, and in which order they were asked."""

    def __init__(self, address: BrokerAddress, stack: ExitStack) -> None:
        self._address, self._stack = address, stack
        self.asked: list[str] = []
        self.devices: dict[str, FakeDevice] = {}

    def start(self, *names: str, base: str = "moedge", **behaviours: Any) -> None:
        for name in names:
            behaviour = behaviours.get(name.replace("-", "_"), "ok")
            self.devices[name] = self._stack.enter_context(
                FakeDevice(self._address, name, behaviour, base=base, on_config=self.asked.append)
            )
        wait_online(self._address, *(self.devices[name] for name in names))


@pytest.fixture
def fakes(mosquitto: BrokerAddress) -> Iterator[Fakes]:
    with ExitStack() as stack:
        yield Fakes(mosquitto, stack)


def test_every_device_gets_its_effective_configuration_canaries_first(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES)
    code, output = run(path, "--canaries", "1")
    assert code == 0 and output.endswith("8 applied.\n")
    fleet = load_fleet(path)
    for name, device in fakes.devices.items():
        assert device.configs == [fleet.devices[name].values]
    assert fakes.asked[0] == "panel-01" and fakes.asked[4] == "panel-05"
    assert sorted(fakes.asked[1:4]) == NAMES[1:4] and sorted(fakes.asked[5:]) == NAMES[5:]
    assert [line for line in output.splitlines() if "to go" in line] == [
        "berlin/g0, canaries: 1 device (panel-01) to go.",
        "berlin/g0: 3 devices to go.",
        "berlin/g1, canaries: 1 device (panel-05) to go.",
        "berlin/g1: 3 devices to go.",
    ]


def test_a_canary_that_refuses_stops_it_and_the_next_run_goes_on_there(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES, panel_05="refuse")
    code, output = run(path, "--max-failures", "3", "--json")
    outcome = json.loads(output)
    assert code == 1
    assert outcome["applied"] == NAMES[:4] and outcome["waiting"] == NAMES[5:]
    assert outcome["failed"] == {"panel-05": "it refused the configuration: The camera is another one."}
    assert "1 of 1 device of 'berlin/g1, canaries' failed; 0 may" in outcome["stopped"]
    assert sorted(fakes.asked) == NAMES[:5]
    fakes.asked.clear()
    fakes.devices["panel-05"].behaviour = "ok"
    code, output = run(path, "--json")
    outcome = json.loads(output)
    assert (code, outcome["current"], sorted(outcome["applied"])) == (0, NAMES[:4], NAMES[4:])
    assert sorted(fakes.asked) == NAMES[4:]
    fakes.asked.clear()
    assert run(path) == (0, "0 applied, 8 had it before.\n") and fakes.asked == []
    assert run(path, "--again")[0] == 0 and sorted(fakes.asked) == NAMES


@pytest.mark.parametrize(("threshold", "reached"), [(1, False), (2, True)])
def test_it_stops_past_the_threshold_and_not_before(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes, threshold: int, reached: bool
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES, panel_02="refuse", panel_03="silent")
    code, output = run(path, "--max-failures", str(threshold), "--json", "--timeout", "0.5")
    outcome = json.loads(output)
    assert code == 1
    assert outcome["failed"] == {
        "panel-02": "it refused the configuration: The camera is another one.",
        "panel-03": "no acknowledgement within 0.5 s",
    }
    assert ("panel-08" in fakes.asked) == reached == (outcome["stopped"] is None)
    assert outcome["waiting"] == ([] if reached else NAMES[4:])


def test_a_device_that_goes_away_after_its_acknowledgement_has_failed_and_is_asked_again(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES, panel_01="stop")
    code, output = run(path, "--json")
    outcome = json.loads(output)
    assert code == 1 and fakes.asked == ["panel-01"]
    assert outcome["failed"] == {"panel-01": "it acknowledged, and is stopped 0.3 s later"}
    assert json.loads(run(path, "--json")[1])["away"] == ["panel-01"]


def test_devices_that_are_not_online_are_left_for_another_run(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES[1:])
    code, output = run(path, "--json")
    outcome = json.loads(output)
    assert code == 1 and outcome["away"] == ["panel-01"] and sorted(outcome["applied"]) == NAMES[1:]
    assert fakes.asked[0] == "panel-02"  # the first that is there is the canary
    fakes.start("panel-01")
    code, output = run(path, "--json")
    assert code == 0 and json.loads(output)["applied"] == ["panel-01"]


def with_bundle(path: Path) -> Path:
    """Devices are to have version 2 of bundle `b`."""
    document = yaml.safe_load(path.read_text())
    document["defaults"]["bundle"] = {"name": "b", "version": "2"}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def test_a_new_bundle_goes_no_further_than_the_group_in_which_it_does_not_answer(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = with_bundle(write(tmp_path, fleet_text(mosquitto)))
    updates = dict.fromkeys(NAMES, "2") | {"panel-03": "1"}  # where it was undone
    fakes.start(*NAMES)
    for name, device in fakes.devices.items():
        device.say(bundle="b", version="1", minutes_old=1)
        device._on_config = lambda name: fakes.devices[name].say(bundle="b", version=updates[name])
    with Listener(mosquitto, "moedge/+/gate/answer/last") as listener:
        for name in NAMES:
            listener.message(f"moedge/{name}/gate/answer/last")
    code, output = run(path, "--json", "--bundle-within", "1")
    outcome = json.loads(output)
    assert code == 1 and outcome["applied"] == ["panel-01", "panel-02", "panel-04"]
    assert outcome["failed"] == {"panel-03": "no answer with b@2 within 1 s: its last answer is of b@1"}
    assert outcome["waiting"] == NAMES[4:]
    updates["panel-03"] = "2"
    outcome = json.loads(run(path, "--json", "--bundle-within", "10")[1])
    assert outcome["current"] == ["panel-01", "panel-02", "panel-04"]
    assert sorted(outcome["applied"]) == ["panel-03", *NAMES[4:]] and not outcome["failed"]


def test_a_device_that_never_answers_has_not_got_its_bundle(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = with_bundle(write(tmp_path, fleet_text(mosquitto)))
    fakes.start(*NAMES)
    outcome = json.loads(run(path, "--json", "--bundle-within", "0.3")[1])
    assert outcome["failed"] == {"panel-01": "no answer with b@2 within 0.3 s: it has not answered at all"}
    assert run(path)[0] == 0, "without looking at bundles all take it"


def test_a_new_system_goes_no_further_than_the_group_in_which_it_is_undone(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    document = yaml.safe_load(path.read_text())
    document["defaults"]["system"] = "2026.13"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    old = {"image_version": "2026.12", "slot": "A", "confirmed": True, "update_fault": None}
    new = {"image_version": "2026.13", "slot": "B", "confirmed": True, "update_fault": None}
    fault = {"version": "2026.13", "key": "update.failed", "message": "no daemon ran"}
    after = dict.fromkeys(NAMES, new) | {
        "panel-02": {**new, "confirmed": False},
        "panel-03": {**old, "update_fault": fault},
        "panel-04": {"image_version": None, "slot": None, "confirmed": None, "update_fault": None},
    }
    fakes.start(*NAMES)
    for device in fakes.devices.values():
        device.say(system=old)
        device._on_config = lambda name: fakes.devices[name].say(system=after[name])
    outcome = json.loads(run(path, "--json", "--system-within", "1", "--max-failures", "2")[1])
    assert outcome["applied"] == ["panel-01"] and outcome["waiting"] == NAMES[4:]
    assert outcome["failed"] == {
        "panel-02": "no system 2026.13 within 1 s: it runs, and has not been confirmed",
        "panel-03": "no system 2026.13 within 1 s: system 2026.12 runs; its last update failed: 2026.13: no daemon ran",
        "panel-04": "no system 2026.13 within 1 s: it runs no system image",
    }
    after |= dict.fromkeys(NAMES, new)
    outcome = json.loads(run(path, "--json", "--system-within", "10")[1])
    assert outcome["current"] == ["panel-01"] and outcome["applied"] == NAMES[1:]
    sent = json.loads(device_text(load_fleet(path).devices["panel-01"]))
    assert sent["system"] == "2026.13"


def test_a_device_is_asked_where_its_last_configuration_has_put_it(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    fakes.start(*NAMES)
    assert run(write(tmp_path, fleet_text(mosquitto)))[0] == 0
    moved = write(tmp_path, fleet_text(mosquitto, base="plant/moedge"))
    fakes.asked.clear()
    assert run(moved)[0] == 0 and len(fakes.asked) == 8
    assert fakes.devices["panel-01"].configs[-1]["mqtt"]["base_topic"] == "plant/moedge"
    fakes.asked.clear()
    for device in fakes.devices.values():
        device.client.close(5.0)
    fakes.start(*NAMES, base="plant/moedge")
    assert run(write(tmp_path, fleet_text(mosquitto, base="plant/moedge", interval="1m")))[0] == 0
    assert sorted(fakes.asked) == NAMES


def test_a_dry_run_says_the_steps_and_sends_nothing(tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start("panel-01")
    with Listener(mosquitto, "moedge/+/request/#") as listener:
        code, output = run(path, "--dry-run", "--canaries", "2", "--max-failures", "1")
        assert code == 0 and listener.messages == []
    assert output.splitlines() == [
        "berlin/g0, canaries (2; 0 may fail): panel-01, panel-02",
        "berlin/g0 (2; 1 may fail): panel-03, panel-04",
        "berlin/g1, canaries (2; 0 may fail): panel-05, panel-06",
        "berlin/g1 (2; 1 may fail): panel-07, panel-08",
        "8 devices would be asked if online; up to date already: 0.",
    ]
    assert not Path(f"{path}.applied").exists()


def test_a_journal_that_a_crash_has_cut_is_read_as_far_as_it_goes(
    tmp_path: Path, mosquitto: BrokerAddress, fakes: Fakes
) -> None:
    path = write(tmp_path, fleet_text(mosquitto))
    fakes.start(*NAMES)
    run(path)
    journal = Path(f"{path}.applied")
    journal.write_bytes(journal.read_bytes()[:-20])
    fakes.asked.clear()
    assert run(path)[0] == 0 and len(fakes.asked) == 1
    fakes.asked.clear()
    assert run(path)[0] == 0 and fakes.asked == []


def test_a_configuration_that_no_device_would_read_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    text = fleet_text(BrokerAddress("127.0.0.1", 1))
    document = yaml.safe_load(text)
    document["defaults"]["config"]["watches"][0]["json_schema"] = {"enum": ["x" * 100] * 5_300}
    path = write(tmp_path, yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"makes a request of 5\d\d,\d{3} bytes; a device reads at most 524,288"):
        run(path)


def test_an_embedded_broker_needs_an_address(tmp_path: Path) -> None:
    path = write(tmp_path, FLEET.replace('{url: "mqtt://127.0.0.1:1883"}', "{embedded: true}"))
    with pytest.raises(ConfigError, match=r"starts its own broker.*--url"):
        run(path)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 3))
def test_stages_hold_every_device_once_in_order(sizes: list[int], canaries: int, failures: int) -> None:
    class Member:
        def __init__(self, group: int, number: int) -> None:
            self.site, self.group, self.name = "s", f"g{group}", f"{group}-{number}"

    devices: Any = [Member(group, number) for group, size in enumerate(sizes) for number in range(size)]
    stages = stages_of(devices, canaries=canaries, max_failures=failures)
    assert [device.name for stage in stages for device in stage.devices] == [device.name for device in devices]
    for stage in stages:
        assert len({device.group for device in stage.devices}) == 1 and stage.devices
        if stage.max_failures:
            assert stage.max_failures == failures
