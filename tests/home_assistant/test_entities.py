"""What a real Home Assistant makes of a real daemon's announcement, and of what it says afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from home_assistant.conftest import CAMERA
from home_assistant.device import Device
from home_assistant.instance import HomeAssistant
from moedge_runtime import __version__
from runtime.daemon.update_units import look


def test_everything_announced_is_there_with_the_state_that_the_daemon_says(home: HomeAssistant, device: Device) -> None:
    def expected() -> dict[str, str]:
        health = device.said(device.topics.health)
        return {
            "uptime": str(round(health["uptime_s"])),
            "memory": str(health["rss_bytes"]),
            "queued": "0",
            "dropped": "0",
            "temperature": "55.0",
            "power": "off",
            "clock": "on" if health["clock_synced"] is False else "off",
            "spool": "off",
            "update": "unknown",
            "model": "unknown",
            "restart": "unknown",
            "camera_gate": "online",
            "take_gate": "unknown",
            "motion_gate": "off",
            "alert_number": "off",
            "watch_scene": "fake answer: frame 5",
            "watch_number": "5",
            "watch_failing": "error: request.fake",
            "watch_uncounted": "unknown",
            "camera_closed": "disabled",
            "snapshot_closed": "unavailable",
            "take_closed": "unavailable",
            "enabled_gate": "on",
            "detection_gate": "on",
            "asking_scene": "on",
            "asking_number": "on",
            "asking_failing": "on",
            "asking_uncounted": "on",
            "zone_4_gate_door": "on",
            "enabled_closed": "off",
        }

    def shown() -> dict[str, str]:
        return {key: state["state"] for key, state in device.states().items() if key != "snapshot_gate"}

    home.wait(lambda: shown() == expected(), "all states", lambda: f"{shown()} is not {expected()}")
    assert device.states().keys() == device.components().keys()
    number = device.states()["watch_number"]["attributes"]
    assert (number["unit_of_measurement"], number["state_class"]) == ("frames", "measurement")


def test_another_picture_is_motion_an_answer_an_alert_and_an_image(home: HomeAssistant, device: Device) -> None:
    device.wait_for("alert_number", "off")
    device.wait_for("motion_gate", "off")
    device.shows = 30
    for key, state in {
        "motion_gate": "on",
        "watch_scene": "fake answer: frame 30",
        "watch_number": "30",
        "alert_number": "on",
    }.items():
        device.wait_for(key, state)
    states = device.states()
    answer = states["watch_number"]["attributes"]
    assert (answer["question"], answer["data"], answer["model"]["precision"]) == ("Which frame?", {"frame": 30}, "int4")
    assert states["alert_number"]["attributes"]["data"] == {"frame": 30}
    assert states["motion_gate"]["attributes"]["zones"] == ["door"]
    wait_for_newest_picture(home, device)


def test_a_switch_reaches_the_daemon_and_comes_back(home: HomeAssistant, device: Device) -> None:
    for switch, feature, entity, on, off in (
        ("detection_gate", "motion", "motion_gate", "off", "unknown"),
        ("enabled_gate", "enabled", "camera_gate", "online", "disabled"),
        ("zone_4_gate_door", "zone/door", "camera_gate", "online", "online"),
    ):
        device.wait_for(entity, on)
        for action, position, effect in (("turn_off", "off", off), ("turn_on", "on", on)):
            home.call(f"switch.{action}", device.states()[switch])
            device.wait_for(switch, position)
            device.wait_for(entity, effect)
            assert device.listener.on(device.topics.feature_state(CAMERA, feature))[-1] == position.upper().encode()


def test_a_watch_that_is_switched_off_asks_nothing(home: HomeAssistant, device: Device) -> None:
    device.wait_for("watch_scene", "fake answer: frame 5")
    device.wait_for("motion_gate", "off")
    home.call("switch.turn_off", device.states()["asking_scene"])
    device.wait_for("asking_scene", "off")
    device.shows = 30
    device.wait_for("watch_number", "30")
    assert device.state("watch_scene") == "fake answer: frame 5"
    home.call("switch.turn_on", device.states()["asking_scene"])
    device.wait_for("watch_scene", "fake answer: frame 30")


def test_a_switch_is_there_while_its_camera_is_off(home: HomeAssistant, device: Device) -> None:
    device.wait_for("snapshot_closed", "unavailable")
    home.call("switch.turn_on", device.states()["enabled_closed"])
    device.wait_for("camera_closed", "online")
    device.wait_for("take_closed", "unknown")


def test_the_button_of_a_camera_takes_a_snapshot(home: HomeAssistant, device: Device) -> None:
    device.wait_for("motion_gate", "off")
    device.wait_for("watch_number", "5")
    pictures = len(device.listener.on(device.topics.snapshot(CAMERA)))
    home.call("button.press", device.states()["take_gate"])
    home.wait(lambda: len(device.listener.on(device.topics.snapshot(CAMERA))) > pictures, "the snapshot")
    wait_for_newest_picture(home, device)


def test_the_button_of_the_device_restarts_the_daemon(home: HomeAssistant, device: Device) -> None:
    device.wait_for("camera_gate", "online")
    started = device.said(device.topics.info)["started_at"]
    home.call("button.press", device.states()["restart"])
    home.wait(lambda: device.said(device.topics.info)["started_at"] != started, "the restart")
    device.wait_for("camera_gate", "online")


def test_a_newer_version_is_an_update(device: Device) -> None:
    device.wait_for("camera_gate", "online")
    for version, state in (("99.0.0", "on"), (__version__, "off")):
        device.listener.publish(device.topics.latest_version, version, retain=True)
        device.wait_for("update", state)
        attributes = device.states()["update"]["attributes"]
        assert (attributes["installed_version"], attributes["latest_version"]) == (__version__, version)


def test_a_newer_model_is_installed_by_the_button_and_why_not_is_shown(home: HomeAssistant, device: Device) -> None:
    def shows(**expected: Any) -> None:
        def shown() -> dict[str, Any]:
            state = device.states()["model"]
            return {key: (state | state["attributes"])[key] for key in expected}

        home.wait(lambda: shown() == expected, "the model", lambda: f"{shown()} is not {expected}")

    device.wait_for("model", "unknown")
    look(device.store, "available", text="sample@2 is there for this device; 1 is in use.")
    summary = "sample@2 is there for this device; 1 is in use."
    shows(state="on", installed_version="1", latest_version="2", release_summary=summary, in_progress=False)
    home.call("update.install", device.states()["model"])
    shows(in_progress=True)
    assert device.systemd.started() == ["moedge-update"]
    look(device.store, "failed", error={"key": "update.unreachable", "message": "It cannot be reached."})
    shows(state="on", release_summary="It cannot be reached.", in_progress=False)
    look(device.store, "current", version="1", text="It is the newest.")
    shows(state="off", release_summary="It is the newest.")


def test_a_power_supply_that_is_too_weak_is_a_problem(device: Device) -> None:
    device.wait_for("power", "off")
    device.weaken_power()
    device.wait_for("power", "on")


def test_a_daemon_that_is_killed_is_unavailable_until_it_is_back(home: HomeAssistant, device: Device) -> None:
    device.wait_for("watch_number", "5")
    device.kill()
    home.wait(lambda: {state["state"] for state in device.states().values()} == {"unavailable"}, "unavailable")
    assert device.states().keys() == device.components().keys()
    device.start()
    device.wait_for("watch_number", "5")
    device.wait_for("temperature", "55.0")


def test_a_home_assistant_that_starts_again_has_everything(home: HomeAssistant, device: Device) -> None:
    device.wait_for("watch_number", "5")
    home.restart()
    for key, state in {"watch_number": "5", "motion_gate": "off", "alert_number": "off", "power": "off"}.items():
        device.wait_for(key, state)
    assert device.states().keys() == device.components().keys()


def test_what_a_reload_takes_away_vanishes_and_in_the_end_the_device(home: HomeAssistant, device: Device) -> None:
    device.wait_for("alert_number", "off")
    before = device.states().keys()
    sections = device.sections(CAMERA)
    without: dict[str, Any] = {**sections, "watches": sections["watches"][:1]}
    del without["cameras"]["closed"]
    device.reload(without)
    home.wait(lambda: device.states().keys() == device.components().keys() < before, "entities to vanish")
    assert not [key for key in device.states() if "number" in key or "closed" in key]
    device.wait_for("watch_scene", "fake answer: frame 5")
    device.reload({**without, "mqtt": {**without["mqtt"], "home_assistant": False}})
    home.wait(lambda: home.states(device.name) == {}, "the device to vanish")


@pytest.mark.parametrize(("name", "camera"), [("same", "same"), ("another", "scene")])
def test_a_camera_may_be_called_as_its_device_or_its_watch(camera: str, device: Device) -> None:
    device.wait_for(f"camera_{camera}", "online")
    device.wait_for("watch_scene", "fake answer: frame 5")
    assert device.states().keys() == device.components().keys()


def wait_for_newest_picture(home: HomeAssistant, device: Device) -> None:
    """Wait until Home Assistant shows what is on the topic."""
    home.wait(
        lambda: (
            home.picture(device.states()["snapshot_gate"]) == device.listener.on(device.topics.snapshot(CAMERA))[-1]
        ),
        "the newest picture",
    )
