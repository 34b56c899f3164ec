"""The brokers of examples/fleet as they are written there, but for addresses, ports and places of files."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from devices.fleet.fake_device import FakeDevice
from devices.fleet.sample import FLEET, sample, write
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.links import Access
from moedge_devices.fleet.live import LiveView
from moedge_devices.fleet.status import Row, status_text
from moedge_runtime.mqtt.acl import Access as AclAccess
from moedge_runtime.mqtt.acl import acl_text
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.brokers import Mosquitto

EXAMPLES = Path(__file__).parents[3] / "examples/fleet"
DEADLINE_S = 40.0


def certificates(directory: Path) -> None:
    """An authority, and certificates of the broker in the middle, a site and an operator."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("central", "site-berlin", "operator"):
        openssl("req", "-new", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        openssl(*sign, "-in", f"{name}.csr", "-out", f"{name}.pem")


def lines_of(name: str, certs: Path, central: BrokerAddress | None = None) -> list[str]:
    """An example's lines without its listener, which the test chooses."""
    text = (EXAMPLES / name).read_text().replace("/etc/mosquitto/certs", str(certs))
    if central is not None:
        text = text.replace("broker.example:8883", f"{central.host}:{central.port}")
    return [line for line in text.splitlines() if not line.startswith("listener ")]


def until(live: LiveView, condition: Any) -> list[Row]:
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        rows = live.rows()
        if condition(rows[0]):
            return rows
        assert time.monotonic() < deadline_s, f"{live.fault} {status_text(rows)}"
        time.sleep(0.02)


def test_a_bridged_site_is_seen_and_configured_from_the_middle(tmp_path: Path) -> None:
    certificates(tmp_path)
    middle = Mosquitto(tmp_path, *lines_of("mosquitto-central.conf", tmp_path))
    site = Mosquitto(tmp_path, *lines_of("mosquitto-bridge.conf", tmp_path, middle.address))
    text = FLEET.replace('{url: "mqtt://127.0.0.1:1883"}', f'{{url: "{site.address}", base_topic: moedge/berlin}}')
    path, url = write(tmp_path, text), f"mqtts://{middle.address.host}:{middle.address.port}"
    middle.start()
    site.start()
    tls = {
        name: tmp_path / file for name, file in (("ca", "ca.pem"), ("cert", "operator.pem"), ("key", "operator.key"))
    }
    options = ["--url", url, *(word for name, file in tls.items() for word in (f"--{name}", str(file)))]
    device = sample(tmp_path, text).devices["panel-01"]
    try:
        with (
            FakeDevice(site.address, "panel-01", base="moedge/berlin") as fake,
            LiveView([device], Access(url=url, **tls)) as live,
        ):
            fake.say(answer="one")
            until(live, lambda row: row.state == "online" and row.last_answer and row.last_answer.text == "one")
            apply = ["apply", "-f", str(path), "--device", "panel-01", "--settle", "0.1", *options]
            result = CliRunner().invoke(command, apply, standalone_mode=False)
            assert result.return_value == 0, (result.exception, result.stdout)
            assert [config["device"] for config in fake.configs] == ["panel-01"]

            middle.kill()
            until(live, lambda row: live.fault is not None)
            fake.say(answer="two")
            middle.start()
            until(live, lambda row: live.fault is None and row.last_answer and row.last_answer.text == "two")
        with LiveView([device], Access(url=url, **tls)) as live:
            until(live, lambda row: row.state == "stopped")
        result = CliRunner().invoke(command, ["status", "-f", str(path), *options[:4]], standalone_mode=False)
        assert result.exception is not None, "the broker in the middle takes nobody without a certificate"
    finally:
        site.stop()
        middle.stop()


def test_the_bridge_passes_every_topic_of_a_device_and_none_in_both_directions() -> None:
    lines = [line.split() for line in lines_of("mosquitto-bridge.conf", Path()) if line.startswith("topic ")]
    assert all(line[4] == line[5] == "moedge/berlin/" for line in lines)
    passed = [(line[1], line[2]) for line in lines]
    rules = [
        line.split() for line in acl_text(AclAccess("moedge/berlin", ["gate-01"])).splitlines() if "topic " in line
    ]
    topics = {topic.replace("moedge/berlin/gate-01/", "+/"): verb for _, verb, topic in rules}
    topics["+/update/latest"] = "read"  # for Home Assistant, from whoever keeps the fleet
    assert sorted(passed) == sorted((topic, {"write": "out", "read": "in"}[verb]) for topic, verb in topics.items())


@pytest.mark.parametrize("name", ["mosquitto-central.conf", "mosquitto-bridge.conf"])
def test_the_page_shows_the_examples(name: str) -> None:
    page = (EXAMPLES.parents[1] / "docs/fleet.md").read_text()
    assert f"examples/fleet/{name}" in page
