"""The daemon over HTTP: metrics, health and the JSON behind the page, with a real broker and a fake model."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from moedge_runtime.config import ProtectionConfig, load_config
from moedge_runtime.daemon import liveness
from moedge_runtime.daemon.answerer import ExpertUse
from moedge_runtime.daemon.board import FlashLife, Reading, Zone
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.metrics import BOARD_FAMILIES, FAMILIES, PREFIX, DaemonMetrics
from moedge_runtime.daemon.preflight import check_config
from moedge_runtime.daemon.protection import Protection
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.address import BrokerAddress
from PIL import Image
from runtime.daemon import fakes
from runtime.daemon.fakes import FakeAnswerer, config_for
from runtime.daemon.pages import MASK, TOKEN, Site, site, wait_until
from runtime.mqtt.listener import Listener
from runtime.web.raw import send

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Only mosquitto: what MQTT brokers do differently is tested elsewhere."""
    from runtime.mqtt.brokers import running_mosquitto

    yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))


def test_frames_add_up_in_every_scrape_and_answers_are_counted(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    reply = fakes.reply
    use = ExpertUse(hits=90, misses=10, read_bytes=5000, wait_s=0.25)
    monkeypatch.setattr(fakes, "reply", lambda *arguments: replace(reply(*arguments), experts=use))
    with site(place, bundle, broker.port) as running:
        wait_until(lambda: running.scraped()['moedge_watch_answered_total{watch="number"}'] >= 3)
        for _ in range(5):
            now = running.scraped()
            parts = [
                value
                for name, value in now.items()
                if re.match(r"moedge_camera_frames_(skipped_total|answered_total|dropped_total|waiting)\{", name)
            ]
            assert now['moedge_camera_frames_seen_total{camera="panel"}'] == sum(parts)
        answers = now['moedge_answers_total{camera="panel",status="ok"}']
        assert answers >= 3
        assert now["moedge_time_to_first_token_seconds_count"] == answers
        assert now["moedge_time_to_first_token_seconds_sum"] == pytest.approx(0.003 * answers)
        assert now["moedge_generated_tokens_total"] == 5 * answers
        assert now["moedge_decode_seconds_total"] == pytest.approx(0.003 * answers)
        assert now["moedge_expert_hits_total"] == 90 * answers
        assert now["moedge_expert_misses_total"] == 10 * answers
        assert now["moedge_flash_read_bytes_total"] == 5000 * answers
        assert now['moedge_camera_state{camera="panel",state="online"}'] == 1
        assert now["moedge_mqtt_connected"] == 1
        assert now["moedge_pace"] == 0
        assert 'moedge_build_info{device="d"' in " ".join(now)


def test_the_documentation_lists_exactly_what_is_exported() -> None:
    metrics = DaemonMetrics(Protection(ProtectionConfig(), Reading), lambda: None)
    text = metrics.text().decode()
    own = set(re.findall(rf"^# TYPE ({PREFIX}\w+)", text, re.M))
    own |= {PREFIX + family.name + ("_total" if family.counter else "") for family in FAMILIES}
    own |= {PREFIX + name for name, _, _ in BOARD_FAMILIES}
    documented = set(re.findall(rf"^\| `({PREFIX}\w+)", (ROOT / "docs/metrics.md").read_text(), re.M))
    assert documented == own


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    documented = set(re.findall(rf"^\| `({PREFIX}\w+)", (ROOT / "docs/metrics.md").read_text(), re.M))
    text = (ROOT / "examples/grafana/moedge.json").read_text()
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(rf"{PREFIX}\w+", text)}
    assert asked and asked <= documented


def test_healthz_is_ok_then_degraded_then_stuck(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(place, bundle, broker.port) as running:
        wait_until(lambda: send(running.metrics, "GET", "/healthz").json()["status"] == "ok")
        assert send(running.metrics, "HEAD", "/healthz").status == 200
        assert send(running.metrics, "GET", "/healthz", Host="evil.example").status == 421
        assert send(running.metrics, "GET", "/").status == 404
        assert send(running.metrics, "POST", "/metrics", {}).status == 405
        running.log_in()
        monkeypatch.setattr(liveness, "STUCK_S", 0.05)
        running.post("/api/ask", {"question": "GATE until the test says so"})
        wait_until(lambda: send(running.metrics, "GET", "/healthz").status == 503)
        assert send(running.metrics, "GET", "/healthz").json()["status"] == "stuck"
        stuck = send(running.metrics, "GET", "/readiness")
        assert (stuck.status, stuck.json()["reason"]["key"]) == (503, "model.stuck")
        running.answerer.gate.set()
        wait_until(lambda: send(running.metrics, "GET", "/healthz").status == 200)


def test_readiness_waits_for_the_model_and_healthz_does_not(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    loads = threading.Event()
    with site(place, bundle, broker.port, loads=loads) as running:
        wait_until(lambda: _reaches(running.metrics))
        assert send(running.metrics, "GET", "/healthz").json()["status"] == "starting"
        answer = send(running.metrics, "GET", "/readiness")
        assert (answer.status, answer.json()["ready"]) == (503, False)
        assert answer.json()["reason"]["key"] == "model.not_loaded"
        loads.set()
        wait_until(lambda: send(running.metrics, "GET", "/readiness").status == 200)
        assert send(running.metrics, "GET", "/readiness").json() == {"ready": True, "reason": None}
        assert send(running.metrics, "HEAD", "/readiness").status == 200
        assert send(running.metrics, "POST", "/readiness", {}).status == 405


def test_a_broker_that_is_away_degrades_and_fails_nothing(place: Path, bundle: Path) -> None:
    with site(place, bundle, 1, code=1) as running:
        answer = send(running.metrics, "GET", "/healthz")
        assert (answer.status, answer.json()["status"], answer.json()["mqtt"]) == (
            200,
            "degraded",
            {"connected": False},
        )
        assert send(running.metrics, "GET", "/readiness").status == 200
        assert running.scraped()["moedge_mqtt_connected"] == 0


def test_the_page_shows_status_answers_and_the_masked_picture(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with site(place, bundle, broker.port, allow=False) as running:
        running.log_in()
        status = running.get("/api/status").json()
        assert status["cameras"]["panel"]["masks"] == [MASK]
        assert status["cameras"]["panel"]["zones"] == {"dial": MASK}
        assert status["allow_changes"] is False
        assert TOKEN not in str(status)
        wait_until(lambda: len(running.get("/api/answers").json()["answers"]) >= 2)
        newest, older = running.get("/api/answers").json()["answers"][:2]
        assert newest["id"] > older["id"]
        assert newest["text"].startswith("fake answer: frame")
        for _ in range(3):
            picture = running.get("/api/cameras/panel/picture")
            pixels = np.asarray(Image.open(io.BytesIO(picture.body)).convert("L"))
            height, width = pixels.shape
            assert pixels[: height // 2 - 8, : width // 2 - 8].max() <= 8, "JPEG rounds black a little"
        assert running.get("/api/cameras/nothing/picture").json()["error"]["key"] == "request.camera_unknown"


def test_a_question_goes_the_way_of_requests(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with site(place, bundle, broker.port) as running:
        running.log_in()
        asked = running.post("/api/ask", {"question": "What is shown?", "camera": "panel"})
        assert asked.status == 202
        outcome = running.ended(asked.json()["id"])
        assert outcome["data"]["text"].startswith("fake answer: frame")
        assert outcome["data"]["watch"] is None
        assert "What is shown?" in {text for text, _ in running.answerer.asked}
        refused = running.ended(running.post("/api/ask", {"question": "FAIL please"}).json()["id"])
        assert (refused["state"], refused["error"]["key"]) == ("failed", "request.fake")
        for body, key in (
            ({"question": ""}, "request.invalid"),
            ({"question": "?", "camera": "x"}, "request.camera_unknown"),
            ({"question": "?", "other": 1}, "request.invalid"),
        ):
            answer = running.post("/api/ask", body)
            assert (answer.status, answer.json()["error"]["key"]) == (400, key)
        running.post("/api/ask", {"question": "GATE"})
        assert running.answerer.held.wait(30)
        full = [running.post("/api/ask", {"question": "?"}) for _ in range(9)][-1]
        assert full.json()["error"]["key"] == "request.busy"
        assert running.get("/api/asked/unknown").json()["error"]["key"] == "request.identifier_unknown"


def test_a_mask_that_is_removed_is_out_of_the_file_and_off_the_pixels(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with site(place, bundle, broker.port) as running:
        running.log_in()
        wait_until(lambda: _corner(running) <= 8)
        unknown = running.post("/api/cameras/panel/masks/remove", {"polygon": [[0, 0], [1, 0], [1, 1]]})
        assert (unknown.status, unknown.json()["error"]["key"]) == (400, "request.mask_unknown")
        assert running.post("/api/cameras/panel/masks/remove", {}).json()["error"]["key"] == "request.mask_unknown"
        removed = running.post("/api/cameras/panel/masks/remove", {"polygon": MASK})
        assert running.ended(removed.json()["id"]) == {
            "state": "done",
            "data": {"changed": True, "model_loaded": False},
        }
        assert load_config(running.path).cameras["panel"].masks == ()
        wait_until(lambda: _corner(running) > 8)
        before = running.path.read_text()
        running.path.write_text(before.replace("Which frame?", "Which frame now?"))
        answer = running.post("/api/cameras/panel/masks/remove", {"polygon": MASK})
        assert answer.json()["error"]["key"] == "request.mask_unknown", "it is gone already"


def _corner(running: Site) -> int:
    """The brightest pixel of the part that MASK covers; -1 while there is no picture."""
    answer = running.get("/api/cameras/panel/picture")
    if answer.status != 200:
        return -1
    pixels = np.asarray(Image.open(io.BytesIO(answer.body)).convert("L"))
    return int(pixels[: pixels.shape[0] // 2 - 8, : pixels.shape[1] // 2 - 8].max())


def test_a_mask_that_is_drawn_is_in_the_file_and_on_the_pixels(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with site(place, bundle, broker.port) as running:
        running.log_in()
        text = running.path.read_text()
        whole = [[0, 0], [1, 0], [1, 1], [0, 1]]
        added = running.post("/api/cameras/panel/masks", {"polygon": whole})
        assert running.ended(added.json()["id"]) == {"state": "done", "data": {"changed": True, "model_loaded": False}}
        assert load_config(running.path).cameras["panel"].masks[1] == ((0, 0), (1, 0), (1, 1), (0, 1))
        assert [line for line in text.splitlines() if line not in running.path.read_text()] != text.splitlines()

        def black() -> bool:
            answer = running.get("/api/cameras/panel/picture")
            return answer.status == 200 and np.asarray(Image.open(io.BytesIO(answer.body))).max() <= 8

        wait_until(black)
        zone = running.post("/api/cameras/panel/zones", {"polygon": MASK, "name": "lamp"})
        assert running.ended(zone.json()["id"])["state"] == "done"
        assert set(load_config(running.path).cameras["panel"].zones) == {"dial", "lamp"}
        before = running.path.read_text()
        for body in (
            {"polygon": [[0, 0], [1, 1]], "name": "a"},
            {"polygon": [[0, 0], [1, 1], [1, 0], [0, 1]], "name": "a"},
            {"polygon": [[0, 0], [2, 0], [1, 1]], "name": "a"},
            {"polygon": [[0, 0], [0.00001, 0], [0, 0.00001]], "name": "a"},
            {"polygon": "x" * 1000, "name": "a"},
            {"name": "a"},
            {"polygon": MASK, "name": "no name"},
            {"polygon": MASK},
        ):
            assert running.post("/api/cameras/panel/zones", body).json()["error"]["key"] == "request.invalid"
        running.path.write_text(before.replace("Which frame?", "Which frame now?"))
        answer = running.post("/api/cameras/panel/masks", {"polygon": MASK})
        assert answer.json()["error"]["key"] == "config.changed_on_disk"


def test_a_camera_that_is_paused_shows_nothing_and_the_file_stays(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with Listener(broker, "t/#") as listener, site(place, bundle, broker.port) as running:
        running.log_in()
        before = running.path.read_text()
        assert running.get("/api/cameras/panel/picture").status == 200
        paused = running.post("/api/cameras/panel/enabled", {"on": False})
        assert running.ended(paused.json()["id"]) == {"state": "done", "data": {"state": "OFF"}}
        assert running.get("/api/cameras/panel/picture").json()["error"]["key"] == "request.camera_unknown"
        status = running.get("/api/status").json()
        assert status["cameras"]["panel"]["enabled"] is False
        listener.message("t/d/panel/enabled/state", "OFF")
        listener.message("t/d/panel/status", "disabled")
        resumed = running.post("/api/cameras/panel/enabled", {"on": True})
        assert running.ended(resumed.json()["id"])["data"] == {"state": "ON"}
        wait_until(lambda: running.get("/api/cameras/panel/picture").status == 200)
        assert running.path.read_text() == before
        for body in ({}, {"on": "no"}, {"on": 0}):
            assert running.post("/api/cameras/panel/enabled", body).json()["error"]["key"] == "request.invalid"
        unknown = running.post("/api/cameras/other/enabled", {"on": False})
        assert unknown.json()["error"]["key"] == "request.camera_unknown"


def test_nothing_is_changed_unless_that_is_allowed(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with site(place, bundle, broker.port, allow=False) as running:
        running.log_in()
        before = running.path.read_text()
        in_the_file = "Change the file on the board and send the request reload."
        over_mqtt = "Switch them over MQTT."
        for path, body, what, instead in (
            ("masks", {"polygon": MASK}, "add masks", in_the_file),
            ("zones", {"polygon": MASK, "name": "door"}, "add zones", in_the_file),
            ("masks/remove", {"polygon": MASK}, "remove masks", in_the_file),
            ("enabled", {"on": False}, "pause cameras or resume them", over_mqtt),
        ):
            answer = running.post(f"/api/cameras/panel/{path}", body)
            error = answer.json()["error"]
            assert (answer.status, error["key"]) == (400, "request.config_not_allowed")
            assert error["message"] == f"The page may not {what}: web.allow_changes is false. {instead}"
        assert running.path.read_text() == before


def test_a_reload_keeps_sessions_and_moves_what_has_another_address(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    from moedge_runtime.mqtt.listening import free_port
    from runtime.mqtt.listener import Listener

    with site(place, bundle, broker.port) as running:
        running.log_in()
        config = yaml.safe_load(running.path.read_text())
        earlier, config["metrics"]["port"] = running.metrics, free_port()
        running.path.write_text(yaml.safe_dump(config))
        with Listener(broker, "t/#") as listener:
            listener.publish("t/d/request/reload", b"{}")
            listener.message("t/d/response/reload", "changed")
        running.metrics = config["metrics"]["port"]
        wait_until(lambda: running.get("/api/status").status == 200)
        wait_until(lambda: _reaches(running.metrics))
        assert not _reaches(earlier)


def _reaches(port: int) -> bool:
    try:
        return send(port, "GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ({"token": "short"}, "16 to 256 characters"),
        ({"token": "with blanks in the middle"}, "without blanks"),
        ({}, "exactly one of token and token_file"),
        ({"token": TOKEN, "token_file": "x"}, "exactly one of token and token_file"),
        ({"token": TOKEN, "listen": "localhost"}, "write an IP address"),
        ({"token": TOKEN, "hosts": ["http://x"]}, "without scheme"),
        ({"token": TOKEN, "port": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_the_section_is_said_without_the_token(
    place: Path, bundle: Path, web: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        config_for(place, bundle, 1883, web=web)
    assert "short" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_token_file_is_read_at_start_and_must_hold_one(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    config = config_for(place, bundle, broker.port, web={"token_file": "token"})
    with pytest.raises(ConfigError, match=r"token_file: .*cannot be read"):
        check_config(config)
    (place / "token").write_text("short\n")
    with pytest.raises(ConfigError, match="is no token"):
        Daemon(config, FakeAnswerer.open).run()
    (place / "token").write_text(TOKEN + "\nanother line\n")
    check_config(config)


def test_a_hot_board_makes_the_model_rest_between_answers() -> None:
    from moedge_runtime.daemon.worker import Worker
    from runtime.daemon.test_schedule import job

    jobs, answerer = JobQueue(), FakeAnswerer()
    pauses: list[float] = []

    def pause_s(spent_s: float) -> float:
        pauses.append(spent_s)
        return 3600.0

    jobs.pause_s = pause_s
    jobs.ask(job(None))
    worker = Worker(jobs, answerer)
    worker.start()
    wait_until(lambda: len(pauses) == 1)
    jobs.ask(job(None))
    assert jobs.waiting()[0] == 1
    assert not worker.join(0.2), "it rests"
    assert len(answerer.asked) == 1
    jobs.close()
    assert worker.stop(finish_within_s=10, give_up_after_s=0), "a rest ends when the daemon does"


def test_temperature_and_pace_are_in_the_metrics() -> None:
    zones = (Zone("cpu-thermal", 78.5), Zone("gpu", 60.0))
    reading = Reading(zones, under_voltage=True, power_mode="MAXN", flash=(FlashLife("mmcblk0", "a", 0.3),))
    protection = Protection(ProtectionConfig(), lambda: reading)
    protection.look()
    text = DaemonMetrics(protection, lambda: None).text().decode()
    assert 'moedge_temperature_celsius{zone="cpu-thermal"} 78.5' in text
    assert "moedge_under_voltage 1.0" in text
    assert "moedge_pace 2.0" in text
    assert 'moedge_power_mode{mode="MAXN"} 1.0' in text
    assert 'moedge_flash_life_used_ratio{device="mmcblk0",memory="a"} 0.3' in text
    assert float(re.search(r"^moedge_written_bytes_total (\S+)$", text, re.M)[1]) >= 0  # type: ignore[index]
    assert "moedge_serving 0.0" in text
