"""The daemon in this process with real brokers, real videos and a fake model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.config.schema import config_schema
from moedge_runtime.daemon import reader, service
from moedge_runtime.daemon.service import Daemon
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.mqtt.address import BrokerAddress
from PIL import Image
from runtime.bundle.sample import write_sample
from runtime.camera.videos import write_video
from runtime.daemon.fakes import FakeAnswerer, config_for
from runtime.mqtt.listener import DEADLINE_S, Listener

Run = Callable[..., Any]

LOOPED = {"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}}
NO_FRAMES = {"panel": {"source": "file:panel.mp4", "enabled": False}}


@contextmanager
def running(place: Path, bundle: Path, broker: BrokerAddress, **changes: Any) -> Iterator[FakeAnswerer]:
    """A daemon that runs until the block ends, and ends with 0."""
    answerer = FakeAnswerer()
    daemon = Daemon(config_for(place, bundle, broker.port, **changes), lambda bundle, config: answerer)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    thread.start()
    try:
        yield answerer
    finally:
        answerer.gate.set()
        daemon.request_stop()
        thread.join(DEADLINE_S)
    assert codes == [0]
    assert answerer.closed is not daemon.stuck


def finished(place: Path, bundle: Path, broker: BrokerAddress, **changes: Any) -> tuple[int, FakeAnswerer]:
    """A daemon that runs until its cameras have ended."""
    answerer = FakeAnswerer()
    config = config_for(place, bundle, broker.port, **changes)
    code = Daemon(config, lambda bundle, config: answerer, exit_when_done=True).run()
    assert answerer.closed
    return code, answerer


def answers(listener: Listener, camera: str = "panel") -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in listener.on(f"t/d/{camera}/answer")]


def test_a_clip_gets_exactly_its_answers_and_the_daemon_ends(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    write_video(place / "panel.mp4", frames=600, fps=10)
    watches = [
        {"name": "number", "camera": "panel", "question": "Which frame?", "interval": 2},
        {
            "name": "json",
            "camera": "panel",
            "question": "As JSON?",
            "interval": "20s",
            "json_schema": {"type": "object"},
        },
    ]
    with Listener(broker, "t/#") as listener:
        code, _ = finished(place, bundle, broker, watches=watches)
        listener.message("t/d/status", "stopped")
    assert code == 0
    by_watch = {name: [item for item in answers(listener) if item["watch"] == name] for name in ("number", "json")}
    assert [item["frame"]["index"] for item in by_watch["number"]] == list(range(0, 600, 20))
    assert [item["text"] for item in by_watch["number"]] == [f"fake answer: frame {i % 36}" for i in range(0, 600, 20)]
    assert [item["data"] for item in by_watch["json"]] == [{"frame": i % 36} for i in range(0, 600, 200)]
    assert sorted(item["id"] for item in answers(listener)) == [item["id"] for item in answers(listener)]
    health = json.loads(listener.on("t/d/health")[-1])
    assert health["watches"]["number"] == {"due": 30, "answered": 30, "late": 0, "failed": 0, "dropped": 0}
    assert health["cameras"]["panel"] == {
        "state": "offline",
        "frames": 600,
        "skipped": 570,
        "answered": 30,
        "dropped": 0,
        "waiting": 0,
        "reasons": {"interval": 570},
        "last_frame_age_s": health["cameras"]["panel"]["last_frame_age_s"],
    }


def test_the_order_of_what_is_said(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener:
        finished(place, bundle, broker)
        listener.message("t/d/status", "stopped")
    said = [(item.topic, item.payload) for item in listener.messages if not item.retain]
    topics = [topic for topic, _ in said]
    assert topics[:2] == ["t/d/status", "t/d/info"]
    # What changed before the broker was there is said in the order of the last changes: health may go first.
    assert topics.index("t/d/panel/status") < topics.index("t/d/panel/answer")
    assert said[0][1] == b'{"state":"online"}'
    assert said[-1] == ("t/d/status", b'{"state":"stopped"}')
    cameras = [json.loads(payload) for topic, payload in said if topic == "t/d/panel/status"]
    assert [(item["state"], (item["reason"] or {}).get("key")) for item in cameras][-1] == ("offline", "camera.ended")
    assert topics.count("t/d/panel/answer") == 4


def test_info_is_retained_and_names_model_and_configuration(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    finished(place, bundle, broker)
    with Listener(broker, "t/d/#") as late:
        info = late.json("t/d/info")
        assert late.message("t/d/info").retain
        assert late.json("t/d/panel/answer/last")["text"] == "fake answer: frame 30"
        assert late.json("t/d/status") == {"state": "stopped"}
    assert info["model"]["bundle"] == "sample"
    assert info["model"]["precision"] == "int4"
    assert len(info["model"]["manifest_sha256"]) == 64
    assert set(info["system"]) == {"board", "name", "image_version", "slot", "confirmed", "update_fault"}
    assert info["system"]["slot"] is None
    assert info["config"]["device"] == "d"
    assert info["config_schema"] == json.loads(json.dumps(config_schema()))


def test_questions_are_answered_with_their_transaction(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/d/response/#", "inbox/#", "t/d/panel/status") as asker, running(place, bundle, broker):
        asker.message("t/d/panel/status", "camera.ended")
        asker.publish("t/d/request/ask", '{"question": "Now?", "transaction": "a-1", "reasoning": true}')
        response = asker.json("t/d/response/ask", "a-1")
        assert (response["status"], response["transaction"]) == ("ok", "a-1")
        answer = response["data"]
        assert (answer["text"], answer["watch"], answer["camera"]) == ("fake answer: frame 3", None, "panel")
        assert answer["frame"]["index"] == 39, "the newest frame"
        assert answer["reasoning"] == "fake reasoning"
        asker.publish("t/d/request/ask", b'{"question": "Now?"}', response_topic="inbox/me", correlation=b"\x01\xff")
        reply = asker.message("inbox/me")
        assert reply.properties.CorrelationData == b"\x01\xff"
        assert json.loads(reply.payload)["data"]["question"] == "Now?"
        for verb in ("health", "info", "config"):
            asker.publish(f"t/d/request/{verb}", json.dumps({"transaction": verb}))
            response = asker.json(f"t/d/response/{verb}")
            assert (response["status"], response["transaction"]) == ("ok", verb)


@pytest.mark.parametrize(
    ("verb", "payload", "key"),
    [
        ("ask", b"{", "request.invalid_json"),
        ("ask", b"\xff\xfe", "request.invalid_json"),
        ("ask", b"[" * 50_000, "request.invalid_json"),
        ("ask", b"x" * 100_000, "request.too_large"),
        ("ask", b'{"question": "?", "sudo": 1}', "request.invalid"),
        ("ask", b'{"question": "?", "camera": "attic"}', "request.camera_unknown"),
        ("ask", b'{"question": "FAIL"}', "request.fake"),
        ("ask", b'{"question": "CRASH"}', "internal"),
        ("ask", b'{"question": "PANIC"}', "internal"),
        ("reboot", b"{}", "request.unknown_verb"),
    ],
)
def test_hostile_requests_get_an_error_and_do_no_harm(hostile: Listener, verb: str, payload: bytes, key: str) -> None:
    hostile.clear()
    hostile.publish(f"hostile/h/request/{verb}", payload)
    response = hostile.json(f"hostile/h/response/{verb}")
    assert (response["status"], response["error"]["key"], response["data"]) == ("error", key, None)
    hostile.clear()
    hostile.publish("hostile/h/request/ask", b'{"question": "Still there?"}')
    assert hostile.json("hostile/h/response/ask")["status"] == "ok"


@pytest.fixture(scope="module")
def hostile(broker: BrokerAddress, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    place = tmp_path_factory.mktemp("hostile")
    write_video(place / "panel.mp4", frames=5)
    with (
        Listener(broker, "hostile/h/#") as listener,
        running(
            place,
            bundle,
            broker,
            device="h",
            mqtt={"url": str(broker), "base_topic": "hostile"},
        ),
    ):
        listener.message("hostile/h/panel/status", "camera.ended")
        yield listener


def test_a_response_topic_cannot_forge_a_statement_of_the_device(hostile: Listener) -> None:
    hostile.clear()
    hostile.publish("hostile/h/request/health", b'{"transaction": 5}', response_topic="hostile/h/panel/answer")
    response = hostile.json("hostile/h/response/health")
    assert (response["error"]["key"], response["transaction"]) == ("request.response_topic", 5)
    assert hostile.on("hostile/h/panel/answer") == []


def test_a_retained_request_is_not_executed(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/#") as listener:
        listener.publish("t/d/request/ask", b'{"question": "Stored?"}', retain=True)
        _, answerer = finished(place, bundle, broker)
        listener.message("t/d/status", "stopped")
        listener.publish("t/d/request/ask", b"", retain=True)
        assert listener.on("t/d/response/ask") == []
    assert {question for question, _ in answerer.asked} == {"Which frame?"}


def test_a_request_goes_before_waiting_watches_and_cancels_nothing(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    watches = [
        {"name": name, "camera": "panel", "question": question, "interval": 3600}
        for name, question in (("first", "GATE first"), ("second", "second"))
    ]
    with (
        Listener(broker, "t/d/#") as listener,
        running(place, bundle, broker, watches=watches) as answerer,
    ):
        assert answerer.held.wait(DEADLINE_S)
        listener.message("t/d/status", "online")
        listener.publish("t/d/request/ask", b'{"question": "urgent", "transaction": 1}')
        listener.publish("t/d/request/health", b'{"transaction": 2}')
        assert listener.json("t/d/response/health")["data"]["requests_waiting"] == 1
        answerer.gate.set()
        listener.wait(lambda messages: len(answers(listener)) == 2, "both watches")
        listener.message("t/d/response/ask")
    assert [question for question, _ in answerer.asked] == ["GATE first", "urgent", "second"]
    assert all(item["status"] == "ok" for item in answers(listener))


def test_an_error_of_one_question_is_an_answer_and_the_next_goes_on(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    watches = [
        {"name": name, "camera": "panel", "question": question, "interval": 2}
        for name, question in (("bad", "FAIL always"), ("worse", "CRASH always"), ("good", "Which frame?"))
    ]
    with Listener(broker, "t/#") as listener:
        finished(place, bundle, broker, watches=watches)
        listener.message("t/d/status", "stopped")
    results = [(item["watch"], item["status"], (item["error"] or {}).get("key")) for item in answers(listener)]
    once = [("bad", "error", "request.fake"), ("worse", "error", "internal"), ("good", "ok", None)]
    assert results == once * 2


def test_one_broken_camera_leaves_the_others_and_the_exit_code_tells(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    (place / "broken.mp4").write_bytes(b"no video")
    write_video(place / "cut.mp4", frames=40, faststart=True)
    (place / "cut.mp4").write_bytes((place / "cut.mp4").read_bytes()[:-1500])
    cameras = {name: {"source": f"file:{name}.mp4"} for name in ("panel", "broken", "cut")}
    cameras["off"] = {"source": "file:no.mp4", "enabled": False}
    watches = [
        {"name": name, "camera": name, "question": "Which frame?", "interval": "every_frame"}
        for name in ("panel", "broken", "cut")
    ]
    with Listener(broker, "t/#") as listener:
        code, _ = finished(place, bundle, broker, cameras=cameras, watches=watches)
        listener.message("t/d/status", "stopped")
    assert code == 1
    states = {name: json.loads(listener.on(f"t/d/{name}/status")[-1]) for name in (*cameras,)}
    assert states["broken"]["reason"] == {
        "key": "camera.unreadable",
        "message": f"Camera 'broken' (file:{place}/broken.mp4) failed: Video '{place}/broken.mp4' cannot be opened: "
        "Invalid data found when processing input. Give a file that FFmpeg can read.",
    }
    assert states["cut"]["reason"]["key"] in ("camera.truncated", "camera.damaged")
    assert states["off"] == {"state": "disabled", "reason": None}
    assert len(answers(listener)) == 40
    assert 0 < len(answers(listener, "cut")) < 40


def test_a_folder_that_comes_later_is_found(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reader, "FIRST_RETRY_S", 0.01)
    cameras = {"panel": {"source": "folder:shelf"}}
    with Listener(broker, "t/d/#") as listener, running(place, bundle, broker, cameras=cameras):
        text = (
            f"Camera 'panel' (folder:{place}/shelf) failed: Folder '{place}/shelf' cannot be listed (No such file or "
            "directory). Give a directory of images. Retrying within 10 s."
        )
        listener.message("t/d/panel/status", text)
        assert json.loads(listener.on("t/d/panel/status")[-1]) == {
            "state": "offline",
            "reason": {"key": "camera.not_found", "message": text},
        }
        (place / "new").mkdir()
        Image.new("RGB", (64, 64)).save(place / "new" / "a.png")
        (place / "new").rename(place / "shelf")
        # It is online in between; of a retained topic only the newest state has to be told.
        listener.message("t/d/panel/status", "camera.ended")
        assert len(answers(listener)) == 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [text], "said once"


def test_a_looping_file_that_breaks_is_played_again_once_it_is_whole(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FIRST_RETRY_S", 0.01)
    cameras = {"panel": {"source": "file:panel.mp4", "loop": True}}
    (place / "whole.mp4").write_bytes((place / "panel.mp4").read_bytes())
    (place / "broken.mp4").write_bytes(b"no video")
    with Listener(broker, "t/d/#") as listener, running(place, bundle, broker, cameras=cameras):
        listener.message("t/d/panel/answer")
        (place / "broken.mp4").replace(place / "panel.mp4")
        listener.message("t/d/panel/status", "camera.unreadable")
        listener.clear()
        (place / "whole.mp4").replace(place / "panel.mp4")
        listener.message("t/d/panel/status", "online")
        assert listener.json("t/d/panel/answer")["frame"] == {"index": 0, "pts_s": 0.0}, "its time begins again"


def test_a_recording_that_breaks_off_is_not_asked_about_twice(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FIRST_RETRY_S", 0.01)
    write_video(place / "panel.mp4", frames=40, faststart=True)
    (place / "panel.mp4").write_bytes((place / "panel.mp4").read_bytes()[:-1500])
    with Listener(broker, "t/d/#") as listener, running(place, bundle, broker):
        listener.wait(lambda messages: "Copy it again" in str(listener.on("t/d/panel/status")), "the break")
        state = json.loads(listener.on("t/d/panel/status")[-1])
        assert state["reason"]["message"].endswith("Copy it again, or give a whole file."), "it is given up"


def test_a_realtime_camera_keeps_only_its_newest_frame_for_a_slow_model(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    write_video(place / "panel.mp4", frames=30, fps=60)
    cameras = {"panel": {"source": "file:panel.mp4", "realtime": True, "loop": True}}
    watches = [{"name": "slow", "camera": "panel", "question": "GATE", "interval": "every_frame"}]
    with (
        Listener(broker, "t/d/#") as listener,
        running(place, bundle, broker, cameras=cameras, watches=watches) as answerer,
    ):
        assert answerer.held.wait(DEADLINE_S)
        listener.message("t/d/status", "online")
        since = health_with(listener, lambda health: True)["cameras"]["panel"]["frames"]
        while_held = health_with(listener, lambda health: health["cameras"]["panel"]["frames"] >= since + 10)
        newest_waiting = while_held["cameras"]["panel"]["frames"] - 2  # the last one counted may not wait yet
        answerer.gate.set()
        listener.wait(lambda messages: len(answers(listener)) >= 2, "two answers")
    first, second = answers(listener)[:2]
    assert first["status"] == "ok", "the answer under way was not disturbed"
    assert second["frame"]["index"] >= newest_waiting, "the model goes on with the newest frame"
    counts = while_held["watches"]["slow"]
    assert (counts["answered"], counts["failed"]) == (0, 0)
    assert counts["due"] - counts["dropped"] in (2, 3), "one is under way, one waits, one may just be taking its place"


def health_with(listener: Listener, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for health until it fulfils `condition`."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        listener.clear()
        listener.publish("t/d/request/health", b"{}")
        health: dict[str, Any] = listener.json("t/d/response/health")["data"]
        if condition(health):
            return health
    raise AssertionError(f"waited {DEADLINE_S} s for another health than {health}")


def test_a_hanging_answer_is_cancelled_and_not_half_published(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    watches = [{"name": "hang", "camera": "panel", "question": "HANG", "interval": 1}]
    with Listener(broker, "t/d/#") as listener:
        with running(place, bundle, broker, watches=watches) as answerer:
            assert answerer.held.wait(DEADLINE_S)
            listener.message("t/d/status", "online")
            listener.publish("t/d/request/ask", b'{"question": "waiting"}')
            listener.publish("t/d/request/health", b"{}")
            listener.message("t/d/response/health")
        listener.message("t/d/status", "stopped")
        assert answers(listener) == []
        assert listener.json("t/d/response/ask")["error"]["key"] == "request.stopping"


def test_a_request_that_is_being_answered_at_the_end_is_told_so(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FINISH_S", 0.05)
    with Listener(broker, "t/d/#") as listener:
        with running(place, bundle, broker, cameras=LOOPED, watches=[]) as answerer:
            listener.message("t/d/panel/status", "online")
            listener.publish("t/d/request/ask", b'{"question": "HANG", "transaction": "under way"}')
            assert answerer.held.wait(DEADLINE_S)
        response = listener.json("t/d/response/ask")
        assert (response["transaction"], response["error"]["key"]) == ("under way", "request.stopping")


def test_a_request_ends_at_its_deadline_whether_it_waits_or_is_being_answered(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with (
        Listener(broker, "t/d/#") as listener,
        running(place, bundle, broker, cameras=LOOPED, watches=[]) as answerer,
    ):
        listener.message("t/d/panel/status", "online")
        listener.publish("t/d/request/ask", b'{"question": "GATE", "deadline": 3600, "transaction": "in time"}')
        assert answerer.held.wait(DEADLINE_S)
        listener.publish("t/d/request/ask", b'{"question": "never begun", "deadline": 0.1, "transaction": "waits"}')
        late = listener.json("t/d/response/ask", "waits")
        assert late["error"]["key"] == "request.deadline" and "deadline=0.1 s" in late["error"]["message"]
        answerer.gate.set()
        assert listener.json("t/d/response/ask", "in time")["status"] == "ok"
        listener.publish("t/d/request/ask", b'{"question": "HANG", "deadline": 0.2, "transaction": "hangs"}')
        assert listener.json("t/d/response/ask", "hangs")["error"]["key"] == "request.deadline"
    assert "never begun" not in {question for question, _ in answerer.asked}


def test_a_model_that_does_not_notice_the_end_does_not_keep_the_daemon_from_saying_stopped(
    place: Path, bundle: Path, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FINISH_S", 0.05)
    monkeypatch.setattr(service, "CANCEL_S", 0.05)
    answerer = FakeAnswerer()
    watches = [{"name": "gate", "camera": "panel", "question": "GATE", "interval": 1}]
    daemon = Daemon(config_for(place, bundle, broker.port, watches=watches), lambda bundle, config: answerer)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    with Listener(broker, "t/d/#") as listener:
        thread.start()
        assert answerer.held.wait(DEADLINE_S)
        listener.message("t/d/status", "online")
        daemon.request_stop()
        thread.join(30)
        listener.message("t/d/status", "stopped")
        answerer.gate.set()
        assert answers(listener) == []
    assert codes == [0]
    assert daemon.stuck, "the process has to be ended without the model's thread"


def test_the_first_health_that_anybody_hears_knows_of_the_connection(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    with Listener(broker, "t/d/health") as listener, running(place, bundle, broker):
        assert listener.json("t/d/health")["mqtt"]["connected"] is True


def test_a_watch_asks_with_the_names_of_its_camera_and_zones(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    cameras = {"panel": {"source": "file:panel.mp4", "zones": {"a": "0,0,1,0,1,1", "b": "0,0,1,1,0,1"}}}
    watch = {"name": "n", "camera": "panel", "question": "What is in {zones} of {camera}? {other}", "interval": 100}
    with Listener(broker, "t/d/#") as listener:
        finished(place, bundle, broker, cameras=cameras, watches=[{**watch, "zones": ["a", "b"]}])
        listener.message("t/d/status", "stopped")
    assert answers(listener)[0]["question"] == "What is in a, b of panel? {other}"


def test_health_comes_at_its_interval(place: Path, bundle: Path, broker: BrokerAddress) -> None:
    with Listener(broker, "t/d/health") as listener, running(place, bundle, broker, health={"interval": "50ms"}):
        listener.wait(lambda messages: len(messages) >= 4, "four health messages")
        health = listener.json("t/d/health", '"connected":true')
    assert health["rss_bytes"] > 1 << 20


def test_a_damaged_bundle_ends_the_daemon_before_any_camera_is_opened(tmp_path: Path, broker: BrokerAddress) -> None:
    damaged = write_sample(tmp_path / "damaged")
    (damaged / "head.onnx").write_bytes(b"HEAD.onnx")
    with Listener(broker, "t/#") as listener:
        listener.clear()
        with pytest.raises(BundleError, match=r"SHA-256 differs from the manifest for 'head\.onnx'"):
            finished(tmp_path, damaged, broker)
        assert [item for item in listener.messages if not item.retain] == []
    finished(tmp_path, damaged, broker, model={"bundle": str(damaged), "verify": False}, cameras=NO_FRAMES)
    (damaged / "head.onnx").write_bytes(b"head.onnx")
    experts = damaged / "experts.bin"
    experts.write_bytes(bytes(experts.stat().st_size))
    finished(tmp_path, damaged, broker, cameras=NO_FRAMES)
    with pytest.raises(BundleError, match=r"SHA-256 differs from the manifest for 'experts\.bin'"):
        finished(tmp_path, damaged, broker, model={"bundle": str(damaged), "verify": True})
    with pytest.raises(BundleError, match=r"is no moedge bundle: it has no manifest\.json"):
        finished(tmp_path, tmp_path / "nothing", broker)


def test_a_watch_that_the_model_refuses_ends_the_daemon_before_it_connects(
    place: Path, bundle: Path, broker: BrokerAddress
) -> None:
    watches = [{"name": "n", "camera": "panel", "question": "REFUSED always"}]
    with pytest.raises(ConfigError) as caught:
        finished(place, bundle, broker, watches=watches)
    assert str(caught.value) == (
        f"Configuration '{place}/moedge.yaml' has 1 error:\n"
        "  line 14: watches[0].question: got 'REFUSED always'; This fake refuses the question."
    )
