"""`moedge bundle` from the key ceremony to the store, as docs/updates.md shows it."""

from __future__ import annotations

import io
import json
import subprocess
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from devices.store.samples import make_key, write_bundle
from moedge_devices.fleet.model import UpdateWindow
from moedge_devices.store.windows import is_open
from moedge_runtime.cli.main import main


def moedge(*arguments: object) -> dict[str, Any]:
    """The JSON that `moedge bundle` prints."""
    with redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit):
        main(["bundle", *map(str, arguments), "--json"])
    value: dict[str, Any] = json.loads(output.getvalue())
    return value


def test_the_whole_way_from_keys_to_a_version_in_use(place: Path) -> None:
    root, root_pub = make_key(place, "root")
    key, pub = make_key(place, "signing")
    published, store, trusted = place / "published", place / "store", place / "update-keys.json"
    made = moedge("keys", "--version", 1, "--root", root_pub, "--signer", pub, "--sign-with", root,
                  "--out", place / "keys-1.json", "--board-file", trusted)  # fmt: skip
    assert made["ok"] and len(made["signers"]) == 1
    write_bundle(place / "panel", "first")
    for version, head in (("2026.11", None), ("2026.12", "second")):
        if head:
            write_bundle(place / "again", head)
        path = place / ("again" if head else "panel")
        keys = ["--keys", place / "keys-1.json"] if not head else []
        said = moedge("publish", published, path, "--key", key, "--name", "panel", "--version", version,
                      "--channel", "stable", *keys)  # fmt: skip
        assert said["release"]["number"] == (2 if head else 1)
    options = ["--store", store, "--source", published, "--keys", trusted]
    assert [each["version"] for each in moedge("list", "--available", *options)["bundles"]] == ["2026.12", "2026.11"]
    assert moedge("install", "panel@2026.11", *options)["fetched_bytes"] > 90_000
    assert moedge("install", "panel", *options)["fetched_bytes"] < 3_000
    assert moedge("use", "panel@2026.12", "--store", store)["before"] is None
    error = moedge("install", "panel@2026.11", *options)["error"]
    assert error["key"] == "update.downgrade"
    listed = moedge("list", "--store", store)["bundles"]
    assert [(each["version"], each["in_use"]) for each in listed] == [("2026.12", True), ("2026.11", False)]
    assert moedge("verify", "--store", store)["checked"] == ["panel@2026.12", "panel@2026.11"]
    assert moedge("remove", "panel@2026.12", "--store", store)["error"]["key"] == "bundle.in_use"
    assert moedge("remove", "panel@2026.11", "--store", store)["freed_bytes"] > 0
    assert moedge("gc", "--store", store) == {"ok": True, "freed_bytes": 0}
    damaged = store / "current" / "panel" / "head.onnx"
    damaged.chmod(0o644)
    damaged.write_text("SECOND")
    assert moedge("verify", "--store", store) == {
        "ok": False, "checked": ["panel@2026.12"], "damaged": {"panel@2026.12": ["head.onnx"]}
    }  # fmt: skip
    assert moedge("update", *options)["status"] == "current"
    assert moedge("publish", published, "--key", key)["release"] is None, "renewed"
    assert moedge("publish", published, "--key", root)["error"]["key"] == "config.key"


def test_what_is_missing_is_said(place: Path) -> None:
    (place / "keys.json").write_text("{}")
    key, _ = make_key(place, "signing")
    assert moedge("install", "panel", "--store", place / "store")["error"]["key"] == "config.source"
    said = moedge("list", "--available", "--store", place / "store", "--source", place, "--keys", place / "keys.json")
    assert said["error"]["key"] == "config.keys"
    assert moedge("use", "panel", "--store", place / "store")["error"]["message"].startswith("'panel' names no bundle")
    assert moedge("publish", place / "published", "--key", key)["error"]["key"] == "config.keys"
    assert (
        "has no panel; versions of panel there: none"
        in moedge("verify", "panel", "--store", place / "store")["error"]["message"]
    )


def test_values_that_are_refused_are_named_with_what_is_allowed(place: Path) -> None:
    key, pub = make_key(place, "signing")
    write_bundle(place / "panel", "first")
    root, root_pub = make_key(place, "root")
    made = ("keys", "--version", 1, "--root", root_pub, "--signer", pub, "--sign-with", root, "--out")
    assert moedge(*made, place / "keys-1.json")["ok"]
    version = moedge("publish", place / "published", place / "panel", "--key", key, "--version", "a b",
                     "--keys", place / "keys-1.json")["error"]["message"]  # fmt: skip
    assert "version: got 'a b'; it has to match pattern" in version
    within = moedge("update", "--store", place / "store", "--within", "-5")["error"]["message"]
    assert "--within: got '-5'; write seconds as a number" in within
    (place / "binary.pub").write_bytes(b"\xff\x00")
    error = moedge("keys", "--version", 1, "--root", place / "binary.pub", "--sign-with", root, "--out", place / "k")
    assert error["error"]["key"] == "config.keys" and "no public key in PEM" in error["error"]["message"]
    device = moedge(*made, "/dev/null")["error"]
    assert device["key"] == "usage" and "would be replaced" in device["message"]


@pytest.mark.parametrize(
    ("window", "moment", "inside"),
    [
        ({"start": "22:00", "end": "04:00"}, "2026-11-26T23:00", True),
        ({"start": "22:00", "end": "04:00"}, "2026-11-26T03:59", True),
        ({"start": "22:00", "end": "04:00"}, "2026-11-26T04:00", False),
        ({"start": "22:00", "end": "04:00", "days": ["wed"]}, "2026-11-26T03:00", True),
        ({"start": "22:00", "end": "04:00", "days": ["thu"]}, "2026-11-26T03:00", False),
        ({"start": "08:00", "end": "09:00", "days": ["thu"]}, "2026-11-26T08:30", True),
        ({"start": "08:00", "end": "09:00", "days": ["thu"], "timezone": "Asia/Tokyo"}, "2026-11-26T08:30", False),
        ({"start": "08:00", "end": "09:00", "days": ["thu"], "timezone": "Asia/Tokyo"}, "2026-11-25T23:30", True),
    ],
)
def test_windows_begin_on_their_days_and_end_on_the_next_if_need_be(
    window: dict[str, Any], moment: str, inside: bool
) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=timezone.utc)
    assert is_open([UpdateWindow(**window)], now) is inside


def test_no_windows_is_any_time_and_an_empty_list_never() -> None:
    now = datetime.now(timezone.utc)
    assert is_open(None, now) and not is_open([], now)


def test_an_update_waits_for_its_window_and_the_fleets_version_is_what_it_goes_to(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devices.store.samples import Board, Publisher
    from moedge_devices.store import run
    from moedge_devices.store.config import UpdateConfig
    from moedge_devices.store.trust import Clock

    publisher = Publisher(place / "publisher")
    board = Board(place / "board", publisher)
    for version in ("1", "2", "3"):
        publisher.release(version, channels=["fleet"])
    device = place / "device.json"
    device.write_text(
        json.dumps({
            "device": "gate-01", "site": "s", "group": "g", "profile": None,
            "bundle": {"name": "panel", "version": "2", "manifest_sha256": None},
            "update": {"channel": "fleet", "windows": [{"start": "01:00", "end": "02:00"}]},
        })
    )  # fmt: skip
    config = UpdateConfig(
        store=board.store.root, source=str(publisher.directory), keys=publisher.keys_file, device=device
    )
    monkeypatch.setattr(run.Updater, "check_daemon", lambda self, name: None)
    switched: list[str] = []
    monkeypatch.setattr(run.Updater, "switch", lambda self, release: switched.append(release.version))

    def at(hour: int, synced: bool) -> run.Outcome:
        moment = datetime.now(timezone.utc).replace(hour=hour, minute=30)
        return run.run_update(
            config, run.Choice(), lambda total: lambda advance: None, lambda text: None, lambda: Clock(moment, synced)
        )

    assert at(3, True).status == "waiting" and "none of its windows is open" in at(3, True).text
    assert at(1, False).status == "waiting", "a clock that nobody keeps opens no window"
    assert switched == [] and board.store.installed() == []
    assert (at(1, True).status, switched) == ("updated", ["2"])


def test_device_certificates_of_the_documentation_are_users_with_their_own_topics(place: Path) -> None:
    """The openssl commands of docs/security.md, run against a real mosquitto with the list of `moedge mqtt acl`."""
    import re
    import time

    from moedge_runtime.mqtt.acl import Access, acl_text
    from runtime.mqtt.brokers import Mosquitto

    text = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    script = re.search(r"```sh\n(# device certificates.*?)```", text, re.DOTALL)
    assert script is not None
    subprocess.run(["bash", "-euc", script[1]], cwd=place, check=True, capture_output=True)
    subject = subprocess.run(
        ["openssl", "x509", "-in", "gate-01.pem", "-noout", "-subject"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CN = gate-01" in subject.stdout
    (place / "acl").write_text(acl_text(Access("moedge", ["gate-01", "gate-02"])))
    broker = Mosquitto(
        place, f"cafile {place}/ca.pem", f"certfile {place}/broker.pem", f"keyfile {place}/broker.key",
        "require_certificate true", "use_identity_as_username true", "allow_anonymous false", f"acl_file {place}/acl",
    )  # fmt: skip
    address = broker.start()
    try:
        import paho.mqtt.client as paho

        def publish(cert: str | None, topic: str) -> int | None:
            """The reason code of the broker's acknowledgement; None without a connection."""
            codes: list[int] = []
            client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
            client.tls_set(
                str(place / "ca.pem"), *([str(place / f"{cert}.pem"), str(place / f"{cert}.key")] if cert else [])
            )
            client.on_publish = lambda client, data, mid, reason, properties: codes.append(reason.value)
            try:
                client.connect("127.0.0.1", address.port)
            except OSError:
                return None
            client.loop_start()
            client.publish(topic, b"x", qos=1)
            deadline_s = time.monotonic() + 5
            while not codes and time.monotonic() < deadline_s and cert:
                time.sleep(0.02)
            client.loop_stop()
            return codes[0] if codes else None

        assert publish("gate-01", "moedge/gate-01/status") in (0, 16), "16: nobody listens"
        assert publish("gate-01", "moedge/gate-02/status") == 135, "not authorized"
        assert publish(None, "moedge/gate-01/status") is None
    finally:
        broker.stop()
