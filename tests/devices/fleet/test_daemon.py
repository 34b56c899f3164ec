"""Render, apply and status against the daemon itself; only the model is a fake."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import moedge_runtime.mqtt.requests as daemon_requests
import pytest
from click.testing import CliRunner
from devices.fleet.sample import write
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.load import load_fleet
from moedge_devices.fleet.render import ConfigTexts
from moedge_devices.store.config import load_device
from moedge_runtime.errors import MoedgeError
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.bundle.sample import write_sample
from runtime.camera.videos import write_video
from runtime.mqtt.listener import Listener

ROOT = Path(__file__).parents[3]

FLEET = """\
version: 1
defaults:
  bundle: {{name: sample, version: "1"}}
  update: {{channel: {channel}}}
  config:
    model: {{bundle: {place}/sample}}
    mqtt: {{url: "{url}"}}
    cameras: {{gate: {{source: "file:{place}/panel.mp4", loop: true, realtime: true}}}}
    watches: [{{name: level, camera: gate, question: "How full is it?", interval: {interval}}}]
sites: {{berlin: {{groups: {{press: {{devices: {{panel-01: }}}}}}}}}}
"""


def run(name: str, path: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, [name, "-f", str(path), *options], standalone_mode=False)
    if isinstance(result.exception, MoedgeError):
        raise result.exception
    assert result.exception is None, result.exception
    return int(result.return_value or 0), result.stdout


@pytest.fixture
def board(tmp_path: Path, mosquitto: BrokerAddress) -> Iterator[Path]:
    """A daemon that runs what was rendered for panel-01; the path of its moedge.yaml."""
    write_sample(tmp_path / "sample")
    write_video(tmp_path / "panel.mp4", frames=40, fps=10)
    path = write(tmp_path, FLEET.format(place=tmp_path, url=mosquitto, interval="2s", channel="stable"))
    run("render", path, "--out", str(tmp_path / "out"))
    config = tmp_path / "out/panel-01/moedge.yaml"
    with (tmp_path / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/runtime/daemon/fake_daemon.py"), str(config)], stdout=log, stderr=log
        )
    try:
        with Listener(mosquitto) as listener:
            listener.message("moedge/panel-01/gate/answer/last")
            listener.message("moedge/panel-01/gate/status", "online")
        yield config
    finally:
        daemon.terminate()
        daemon.wait()


def test_status_shows_a_daemon_as_it_is(tmp_path: Path, board: Path) -> None:
    code, output = run("status", tmp_path / "fleet.yaml", "--json")
    (row,) = json.loads(output)["devices"]
    assert (code, row["state"], row["problems"]) == (0, "online", []), row
    assert row["bundle"] == "sample" and row["bundle_ok"] is True and row["last_answer"]["camera"] == "gate"


@pytest.mark.skipif(
    not hasattr(daemon_requests, "ConfigCommand"), reason="this daemon takes no configuration over MQTT"
)
def test_the_daemon_takes_what_is_applied_and_refuses_what_it_cannot_do(
    tmp_path: Path, mosquitto: BrokerAddress, board: Path
) -> None:
    changed = write(tmp_path, FLEET.format(place=tmp_path, url=mosquitto, interval="1s", channel="beta"))
    code, output = run("apply", changed, "--settle", "0.5", "--timeout", "60", "--json")
    assert (code, json.loads(output)["applied"]) == (0, ["panel-01"]), output
    assert board.read_text() == ConfigTexts().of(load_fleet(changed).devices["panel-01"])
    device = load_device(board.with_name("device.json"))
    assert device is not None and device.update.channel == "beta"

    impossible = FLEET.format(place=tmp_path, url=mosquitto, interval="1s", channel="beta").replace(
        "/sample}", "/another}"
    )
    code, output = run("apply", write(tmp_path, impossible), "--settle", "0.5", "--timeout", "60", "--json")
    assert code == 1 and "another" in json.loads(output)["failed"]["panel-01"], output
    assert "/sample" in board.read_text()

    later = FLEET.format(place=tmp_path, url=mosquitto, interval="1s", channel="later")
    assert run("apply", write(tmp_path, later), "--settle", "0.5", "--timeout", "60")[0] == 0
    device = load_device(board.with_name("device.json"))
    assert device is not None and device.update.channel == "later", "also if nothing of moedge.yaml changes"
    assert run("status", tmp_path / "fleet.yaml", "--wait", "5")[0] == 0
