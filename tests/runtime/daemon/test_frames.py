"""From frame to answer with the whole daemon: real cameras of four kinds, a real broker, a fake model."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from moedge_runtime.daemon.answerer import Question, Reply
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.mqtt.address import BrokerAddress
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.spool import Spool
from PIL import Image
from runtime.camera.http_camera import HttpCamera, jpeg
from runtime.camera.videos import brightness, write_video
from runtime.daemon.fakes import FakeAnswerer, config_for, reply
from runtime.daemon.pages import wait_until
from runtime.daemon.test_service import health_with
from runtime.mqtt.listener import DEADLINE_S, Listener

NOISE = """
import os, sys, time
half = bytes(range(32)) * 3
while True:
    for _ in range(48):
        sys.stdout.buffer.write(half + os.urandom(96))
    sys.stdout.buffer.flush()
    time.sleep(0.02)
"""
"""Raw frames of 64 x 48: the left half is always the same, the right half always another."""

MOVING = """
import sys, time
frames = [open(path, 'rb').read() for path in sys.argv[1:]]
count = 0
while True:
    sys.stdout.buffer.write(frames[count // 25 % len(frames)])
    sys.stdout.flush()
    count += 1
    time.sleep(0.02)
"""


class Digester(FakeAnswerer):
    """Answers with a digest of the picture it gets."""

    def ask(self, question: Question, image: np.ndarray, should_stop: Callable[[], bool]) -> Reply:
        digest = hashlib.sha256(np.ascontiguousarray(image)).hexdigest()
        return reply(f"{image.shape[1]}x{image.shape[0]} {digest}", "stop")


class Slow(FakeAnswerer):
    """Takes 30 ms for an answer; fails every seventh time."""

    def __init__(self) -> None:
        super().__init__()
        self._tick = threading.Event()

    def ask(self, question: Question, image: np.ndarray, should_stop: Callable[[], bool]) -> Reply:
        self._tick.wait(0.03)
        failing = len(self.asked) % 7 == 6
        word = "FAIL" if failing else question.text
        return super().ask(Question(word, json_schema=question.json_schema), image, should_stop)


@contextmanager
def running(
    place: Path, bundle: Path, broker: BrokerAddress, answerer: FakeAnswerer, **changes: Any
) -> Iterator[Daemon]:
    daemon = Daemon(config_for(place, bundle, broker.port, **changes), lambda bundle, config: answerer)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.request_stop()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_nothing_under_a_mask_reaches_the_model_a_request_or_any_message(
    tmp_path: Path, bundle: Path, broker: BrokerAddress
) -> None:
    source = f"exec:{shlex.join([sys.executable, '-c', NOISE])}"
    camera = {"source": source, "format": "rgb24", "size": "64x48", "fps": 50}
    cameras = {"masked": {**camera, "masks": ["0.5,0,1,0,1,1,0.5,1"]}, "open": camera}
    watches = [{"name": name, "camera": name, "question": "?", "interval": "every_frame"} for name in cameras]
    mqtt = {"url": f"mqtt://{broker.host}:{broker.port}", "base_topic": "t", "snapshots": True}
    with (
        Listener(broker, "t/#") as listener,
        running(tmp_path, bundle, broker, Digester(), cameras=cameras, watches=watches, mqtt=mqtt),
    ):
        for name in cameras:
            listener.wait(lambda _, name=name: len(listener.on(f"t/d/{name}/answer")) >= 5, "five answers")
            listener.publish("t/d/request/ask", json.dumps({"question": "?", "camera": name, "transaction": name}))
            listener.json("t/d/response/ask", name)
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    pictures: dict[str, set[bytes]] = defaultdict(set)
    for message in listener.messages:
        name, _, kind = message.topic.removeprefix("t/d/").partition("/")
        if kind == "snapshot":
            pictures[name].add(Image.open(io.BytesIO(message.payload)).tobytes())
            continue
        if kind.endswith("/state"):
            continue
        payload = json.loads(message.payload)
        payload = payload["data"] if message.topic == "t/d/response/ask" else payload
        if kind in ("answer", "event", "ask") and payload.get("text"):
            texts[payload["camera"]][payload["text"]] += 1
    assert len(texts["open"]) >= 5, "without a mask every frame is another"
    assert len(texts["masked"]) == 1, "with it every frame is the same to model, request, answer and event"
    assert len(pictures["open"]) >= 5
    assert len(pictures["masked"]) == 1, "and so is every snapshot"
    seen = np.zeros((48, 64, 3), np.uint8)
    seen[:, :31] = np.frombuffer(bytes(range(32)) * 3, np.uint8).reshape(32, 3)[:31]
    assert texts["masked"].popitem()[0] == f"64x48 {hashlib.sha256(seen).hexdigest()}", "black from column 31 on"


def test_nothing_under_a_mask_waits_on_the_disk_for_a_broker_that_is_away(tmp_path: Path, bundle: Path) -> None:
    source = f"exec:{shlex.join([sys.executable, '-c', NOISE])}"
    camera = {"source": source, "format": "rgb24", "size": "64x48", "fps": 50}
    cameras = {"masked": {**camera, "masks": ["0.5,0,1,0,1,1,0.5,1"]}, "open": camera}
    watches = [{"name": name, "camera": name, "question": "?", "interval": "every_frame"} for name in cameras]
    away = BrokerAddress("127.0.0.1", free_port(), False)
    mqtt = {"url": str(away), "snapshots": True, "spool": {"directory": "spool"}}
    with running(tmp_path, bundle, away, Digester(), cameras=cameras, watches=watches, mqtt=mqtt):
        wait_until(lambda: sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.seg")) > 100_000)
    spool = Spool(tmp_path / "spool", max_bytes=1 << 24, max_age_s=3600.0)
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    while (record := spool.read()) is not None:
        payload = json.loads(record.payload)
        if payload["text"]:
            texts[payload["camera"]][payload["text"]] += 1
    spool.close()
    assert len(texts["open"]) >= 10, "without a mask every frame is another"
    assert len(texts["masked"]) == 1 and texts["masked"].total() >= 10, "with it every frame is the same"


def test_crop_and_zones_are_what_the_model_gets(tmp_path: Path, bundle: Path, broker: BrokerAddress) -> None:
    write_video(tmp_path / "panel.mp4", frames=2)
    zones = {"corner": [[0.5, 0.5], [0.75, 0.5], [0.75, 1]], "top": [[0, 0], [0.5, 0], [0.5, 0.25]]}
    cameras = {"panel": {"source": "file:panel.mp4", "crop": [0.25, 0, 1, 1], "zones": zones}}
    keys = {"camera": "panel", "question": "?", "interval": 100}
    watches = [
        {"name": "all", **keys},
        {"name": "corner", "zones": ["corner"], **keys},
        {"name": "both", "zones": ["corner", "top"], **keys},
        {"name": "wide", "zones": ["corner"], "view": "camera", **keys},
    ]
    answerer = Digester()
    with Listener(broker, "t/#") as listener:
        daemon = Daemon(
            config_for(tmp_path, bundle, broker.port, cameras=cameras, watches=watches),
            lambda bundle, config: answerer,
            exit_when_done=True,
        )
        assert daemon.run() == 0
        listener.message("t/d/status", "stopped")
    answers = {item["watch"]: item for item in map(json.loads, listener.on("t/d/panel/answer"))}
    sizes = {name: item["text"].partition(" ")[0] for name, item in answers.items()}
    assert sizes == {"all": "48x48", "corner": "16x24", "both": "32x48", "wide": "48x48"}
    assert answers["both"]["zones"] == ["corner", "top"]


def test_a_zone_that_is_switched_off_is_out_of_picture_question_and_event(
    tmp_path: Path, bundle: Path, broker: BrokerAddress
) -> None:
    write_video(tmp_path / "panel.mp4", frames=20)
    zones = {"corner": [[0.5, 0.5], [0.75, 0.5], [0.75, 1]], "top": [[0, 0], [0.5, 0], [0.5, 0.25]]}
    cameras = {"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True, "zones": zones}}
    keys = {"camera": "panel", "question": "What is in {zones}?", "interval": "every_frame"}
    watches = [{"name": "both", "zones": ["corner", "top"], **keys}, {"name": "one", "zones": ["top"], **keys}]

    def answered(watch: str, size: str) -> dict[str, Any]:
        def found(_: object) -> Any:
            answers = map(json.loads, listener.on("t/d/panel/answer"))
            return next((one for one in answers if one["watch"] == watch and one["text"].startswith(size)), None)

        answer: dict[str, Any] = listener.wait(found, f"{watch} with {size}")
        return answer

    with (
        Listener(broker, "t/#") as listener,
        running(tmp_path, bundle, broker, Digester(), cameras=cameras, watches=watches),
    ):
        assert answered("both", "48x48")["zones"] == ["corner", "top"]
        answered("one", "32x12")
        listener.publish("t/d/panel/zone/top/set", b"OFF")
        listener.message("t/d/panel/zone/top/state", "OFF")
        answer = answered("both", "16x24")
        assert (answer["zones"], answer["question"]) == (["corner"], "What is in corner?")
        listener.clear()
        answered("both", "16x24")
        assert not [one for one in map(json.loads, listener.on("t/d/panel/answer")) if one["watch"] == "one"]
        listener.publish("t/d/panel/zone/top/set", b"ON")
        answered("one", "32x12")


def test_every_frame_of_four_cameras_is_counted_once_and_every_event_ends_once(
    tmp_path: Path, bundle: Path, broker: BrokerAddress
) -> None:
    write_video(tmp_path / "clip.mp4", frames=120, fps=30)
    write_video(tmp_path / "loop.mp4", frames=30, fps=30)
    picture = Image.new("RGB", (64, 48), (brightness(3),) * 3)
    picture.save(tmp_path / "empty.jpg")
    picture.paste((255, 255, 255), (40, 10, 60, 40))
    picture.save(tmp_path / "somebody.jpg")
    moving = shlex.join([sys.executable, "-c", MOVING, str(tmp_path / "empty.jpg"), str(tmp_path / "somebody.jpg")])

    def answer(handler: Any) -> None:
        handler.reply(200, jpeg(len(camera.requests) % 30), Content_Type="image/jpeg")

    with HttpCamera(answer) as camera:
        cameras = {
            "clip": {"source": "file:clip.mp4"},
            "loop": {"source": "file:loop.mp4", "loop": True, "realtime": True},
            "http": {"source": camera.url, "fps": 20},
            "exec": {"source": f"exec:{moving}", "fps": 20, "motion": True, "frozen_after": "200ms"},
        }
        watches: list[dict[str, Any]] = [
            {"name": name, "camera": name, "question": "Which frame?", "interval": interval}
            for name, interval in (("clip", "200ms"), ("loop", "every_frame"), ("http", "100ms"), ("exec", "50ms"))
        ]
        watches.append({"name": "more", "camera": "http", "question": "?", "interval": 1, "freshness": "100ms"})
        watches[1]["freshness"] = "20ms"
        with (
            Listener(broker, "t/d/+/event", "t/d/status") as events,
            Listener(broker, "t/d/health", "t/d/status", "t/d/response/#") as listener,
        ):
            with running(tmp_path, bundle, broker, Slow(), cameras=cameras, watches=watches):
                events.wait(lambda _: len(events.on("t/d/exec/event")) >= 6, "events")
                for _ in range(15):
                    adds_up(health_with(listener, lambda health: True))
                adds_up(health_with(listener, lambda health: health["cameras"]["clip"]["frames"] == 120))
            events.message("t/d/status", "stopped")
            listener.message("t/d/status", "stopped")
    last = json.loads(listener.on("t/d/health")[-1])
    adds_up(last)
    for name, counts in last["cameras"].items():
        assert counts["frames"] > 0 and counts["waiting"] == 0, name
    assert last["cameras"]["clip"]["frames"] == 120
    assert last["cameras"]["clip"]["skipped"] == last["cameras"]["clip"]["reasons"]["interval"] == 100
    assert {"frozen", "no_motion"} & set(last["cameras"]["exec"]["reasons"])
    assert {"replaced", "stale"} & set(last["cameras"]["loop"]["reasons"])
    assert any("failed" in counts["reasons"] for counts in last["cameras"].values())
    for counts in last["watches"].values():
        assert counts["due"] == counts["answered"] + counts["failed"] + counts["dropped"]
    statuses: dict[str, list[str]] = defaultdict(list)
    for message in events.messages:
        if message.topic == "t/d/status":
            continue
        payload = json.loads(message.payload)
        statuses[payload["id"]].append(payload["status"])
    connected = [told for told in statuses.values() if told[0] == "pending"]
    assert len(connected) > 20
    assert all(len(told) == 2 and told[1] != "pending" for told in connected), "each ends once"
    assert all(len(told) == 1 for told in statuses.values() if told[0] != "pending"), "also those before the connection"
    assert {told[1] for told in connected} >= {"answered", "failed", "dropped"}


def adds_up(health: dict[str, Any]) -> None:
    for name, counts in health["cameras"].items():
        total = counts["skipped"] + counts["answered"] + counts["dropped"] + counts["waiting"]
        assert counts["frames"] == total, (name, counts)
        assert sum(counts["reasons"].values()) == counts["skipped"] + counts["dropped"], (name, counts)


def test_motion_is_told_to_who_comes_later_with_or_without_a_watch(
    tmp_path: Path, bundle: Path, broker: BrokerAddress
) -> None:
    picture = Image.new("RGB", (64, 48), (brightness(3),) * 3)
    picture.save(tmp_path / "empty.jpg")
    picture.paste((255, 255, 255), (40, 10, 60, 40))
    picture.save(tmp_path / "somebody.jpg")
    moving = shlex.join([sys.executable, "-c", MOVING, str(tmp_path / "empty.jpg"), str(tmp_path / "somebody.jpg")])
    zones = {"door": "0.5,0,1,0,1,1,0.5,1", "wall": "0,0,0.5,0,0.5,1,0,1"}
    camera = {"source": f"exec:{moving}", "fps": 20}
    cameras = {"watched": {**camera, "motion": True, "zones": zones}, "quiet": camera}
    with running(tmp_path, bundle, broker, FakeAnswerer(), cameras=cameras, watches=[]):
        with Listener(broker, "t/#") as listener:
            told = listener.message("t/d/watched/motion", '"on"')
            assert json.loads(told.payload)["zones"] == ["door"]
        with Listener(broker, "t/#") as late:
            assert late.json("t/d/watched/motion")["state"] == "on"
            late.message("t/d/quiet/status")
            assert late.on("t/d/quiet/motion") == []


def test_an_alert_is_raised_rests_and_is_told_to_who_comes_later(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    write_video(place / "panel.mp4", frames=36, fps=10)
    watch = {
        "name": "number",
        "camera": "panel",
        "question": "Which frame?",
        "interval": "every_frame",
        "json_schema": {"type": "object", "properties": {"frame": {"type": "integer"}}},
        "alert": {"field": "frame", "above": 9, "raise_after": 2, "cooldown": "1s"},
    }
    with Listener(broker, "t/#") as listener:
        config = config_for(place, bundle, broker.port, watches=[watch])
        assert Daemon(config, lambda bundle, config: FakeAnswerer(), exit_when_done=True).run() == 0
        listener.message("t/d/status", "stopped")
    told = [json.loads(payload) for payload in listener.on("t/d/panel/alert/number")]
    said = [item["state"] for item in told]
    assert said == ["unknown", "off", "on"][-len(said) :], "of a state only the newest counts"
    events = [json.loads(payload) for payload in listener.on("t/d/panel/event")]
    raised = next(event for event in events if event["id"] == told[-1]["id"] and event["type"] == "end")
    assert raised["alert"] == {"state": "on", "changed": True}
    assert raised["frame"]["index"] == 11, "the second frame above 9"
    health = json.loads(listener.on("t/d/health")[-1])
    assert health["cameras"]["panel"]["reasons"] == {"cooldown": 9}
    with Listener(broker, "t/d/panel/alert/#") as late:
        assert late.json("t/d/panel/alert/number")["state"] == "on"
