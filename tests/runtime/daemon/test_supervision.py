"""What the daemon tells systemd, over a real socket, and when it stops to feed the watchdog."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moedge_runtime.camera import Frame
from moedge_runtime.config import CameraConfig
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.sd_notify import ServiceManager
from moedge_runtime.daemon.supervision import Progress, Supervision, WatchedAnswerer, WatchedSource, describe
from moedge_runtime.errors import CameraError, RequestError
from moedge_runtime.mqtt.listening import free_port
from moedge_runtime.mqtt.payloads import CameraHealth, DeviceHealth, MqttHealth
from runtime.daemon.fakes import FakeAnswerer, reply, write_config
from runtime.daemon.notify_socket import NotifySocket

SCRIPT = Path(__file__).with_name("fake_daemon.py")
DEADLINE_S = 30.0
LIMIT_S = 1.0
LIVE = CameraConfig(source="exec:true", first_frame_timeout=0.1, stall_timeout=0.1)
PICTURE = np.zeros((8, 8, 3), np.uint8)
CAMERAS = {"panel": {"source": "file:panel.mp4", "loop": True, "realtime": True}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as manager:
        yield manager


@contextmanager
def service(config: Path, manager: NotifySocket, limit_s: float | None = LIMIT_S) -> Iterator[subprocess.Popen[str]]:
    """The daemon with the fake model, started as systemd starts a service."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path)}
    if limit_s is not None:
        environment["WATCHDOG_USEC"] = str(round(limit_s * 1e6))
    command = [sys.executable, str(SCRIPT), str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as it:
        try:
            yield it
        finally:
            it.kill()


def health(states: list[Any], *, connected: bool = True, age_s: float | None = 12.3) -> DeviceHealth:
    return DeviceHealth.model_construct(
        cameras={str(number): CameraHealth.model_construct(state=state) for number, state in enumerate(states)},
        mqtt=MqttHealth.model_construct(connected=connected),
        last_answer_age_s=age_s,
    )


def test_variables_of_one_message_are_lines_of_one_datagram(manager: NotifySocket) -> None:
    ServiceManager(str(manager.path), None).tell(READY=1, STATUS="two\nlines")
    assert manager.receive(DEADLINE_S) == {"READY": "1", "STATUS": "two lines"}


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0moedge-test-{os.getpid()}")
        ServiceManager(f"@moedge-test-{os.getpid()}", None).tell(READY=1)
        assert abstract.recv(100) == b"READY=1"


def test_a_manager_that_is_away_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(str(tmp_path / "nobody"), None).tell(READY=1)
    assert "systemd was not told READY=1: [Errno 2]" in caplog.text


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative"])
def test_without_a_socket_nothing_is_told(address: str | None) -> None:
    assert ServiceManager.from_environment({} if address is None else {"NOTIFY_SOCKET": address}) is None


@pytest.mark.parametrize(
    ("variables", "limit_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(variables: dict[str, str], limit_s: float | None) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": "/run/systemd/notify", **variables})
    assert manager is not None
    assert manager.watchdog_s == limit_s


def test_progress_is_silent_only_while_it_works_and_beyond_its_own_pause() -> None:
    clock = Clock()
    progress = Progress("It", pause_s=10, clock=clock)
    clock.now += 1000
    assert progress.silent_s() == 0, "it has had nothing to do"
    progress.sign()
    clock.now += 10
    assert progress.silent_s() == 0, "its own pause"
    clock.now += 3
    assert progress.silent_s() == 3
    progress.sign()
    assert progress.silent_s() == 0
    clock.now += 1000
    progress.rest()
    assert progress.silent_s() == 0


class SlowAnswerer(FakeAnswerer):
    """Takes 7 s before each of three tokens by `clock`, then as long after the last one; then fails if asked to."""

    def __init__(self, clock: Clock, progress: Progress, error: RequestError | None) -> None:
        super().__init__()
        self._clock, self._progress, self._error = clock, progress, error
        self.silences: list[float] = []

    def ask(self, question: Question, image: np.ndarray, should_stop: Callable[[], bool]) -> Any:
        for _ in range(3):
            self._clock.now += 7
            self.silences.append(self._progress.silent_s())
            assert should_stop() is False
            self.silences.append(self._progress.silent_s())
        if self._error:
            raise self._error
        return reply("done", "stop")


@pytest.mark.parametrize("error", [None, RequestError("No.", key="request.no")])
def test_every_token_is_progress_and_an_answer_or_an_error_ends_the_work(error: RequestError | None) -> None:
    clock = Clock()
    progress = Progress("The model", clock=clock)
    slow = SlowAnswerer(clock, progress, error)
    watched = WatchedAnswerer(slow, progress)
    if error:
        with pytest.raises(RequestError):
            watched.ask(Question("?"), PICTURE, lambda: False)
    else:
        assert watched.ask(Question("?"), PICTURE, lambda: False).text == "done"
    assert slow.silences == [7, 0, 7, 0, 7, 0]
    clock.now += 1000
    assert progress.silent_s() == 0


class SlowSource:
    """Takes 7 s by `clock` for each of two frames, then breaks off."""

    def __init__(self, clock: Clock, progress: Progress) -> None:
        self._clock, self._progress = clock, progress
        self.silences: list[float] = []

    def frames(self) -> Iterator[Frame]:
        for index in range(2):
            self._clock.now += 7
            self.silences.append(self._progress.silent_s())
            yield Frame(PICTURE, datetime.now(timezone.utc), 0.0, index, 0.0)
        raise CameraError("It broke off.", key="camera.broken_off")

    def close(self) -> None:
        pass


def test_a_source_counts_only_while_a_frame_is_waited_for() -> None:
    clock = Clock()
    progress = Progress("Camera", clock=clock)
    source = SlowSource(clock, progress)
    frames = WatchedSource(source, progress).frames()
    for _ in range(2):
        next(frames)
        clock.now += 1000
        assert progress.silent_s() == 0, "its consumer has the frame"
    with pytest.raises(CameraError):
        next(frames)
    assert source.silences == [7, 7]
    clock.now += 1000
    assert progress.silent_s() == 0, "the pause before the next attempt"


def test_recordings_are_not_watched() -> None:
    clock = Clock()
    source = SlowSource(clock, Progress("x"))
    assert Supervision(None).source("clip", CameraConfig(source="file:a.mp4"), source) is source
    assert isinstance(Supervision(None).source("door", LIVE, source), WatchedSource)


def test_the_status_is_a_sentence_about_cameras_broker_and_answers() -> None:
    assert describe(health(["online", "disabled", "stalled"])) == (
        "1 of 2 cameras online; broker connected; last answer 12 s ago."
    )
    assert describe(health(["offline"], connected=False, age_s=None)) == (
        "0 of 1 camera online; no connection to the broker; no answer yet."
    )


class HungSource:
    """Gives neither a frame nor an error, as a driver does that hangs."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def frames(self) -> Iterator[Frame]:
        self.end.wait(DEADLINE_S)
        return iter(())

    def close(self) -> None:
        pass


def test_a_source_that_gives_neither_frame_nor_error_is_named_and_triggers_the_watchdog(manager: NotifySocket) -> None:
    supervision = Supervision(ServiceManager(str(manager.path), 0.4))
    hung = HungSource()
    frames = supervision.source("gate", LIVE, hung).frames()
    reader = threading.Thread(target=lambda: list(frames), daemon=True)
    supervision.ready(lambda: health(["connecting"]))
    reader.start()
    manager.wait_for("READY", "1")
    message = manager.wait_for("WATCHDOG", "trigger")
    assert message["STATUS"] == "Camera 'gate' has not got on for 0.4 s (WatchdogSec)."
    supervision.stopping()
    hung.end.set()
    reader.join(DEADLINE_S)


def test_a_reload_is_announced_with_the_time_that_systemd_compares(manager: NotifySocket) -> None:
    supervision = Supervision(ServiceManager(str(manager.path), None))
    supervision.reloading()
    message = manager.wait_for("RELOADING", "1")
    assert message["MONOTONIC_USEC"].isdecimal()
    supervision.ready(lambda: health(["online"]))
    assert manager.receive(DEADLINE_S) == {
        "READY": "1",
        "STATUS": "1 of 1 camera online; broker connected; last answer 12 s ago.",
    }
    supervision.stopping()


def test_a_service_says_starting_ready_alive_and_stopping(place: Path, bundle: Path, manager: NotifySocket) -> None:
    config = write_config(place, bundle, free_port(), cameras=CAMERAS, watches=[])
    with service(config, manager) as daemon:
        starting = manager.receive(DEADLINE_S)
        assert starting == {"STATUS": "Checking the bundle and loading the model."}
        manager.wait_for("READY", "1")
        for _ in range(3):
            alive = manager.wait_for("WATCHDOG", "1")
        assert "no connection to the broker" in alive["STATUS"], "a broker that is away is no reason to restart"
        daemon.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING", "1")
        daemon.communicate(timeout=DEADLINE_S)
        assert daemon.returncode == 0


def test_without_a_watchdog_a_service_reports_but_sends_no_pings(
    place: Path, bundle: Path, manager: NotifySocket
) -> None:
    config = write_config(place, bundle, free_port(), cameras=CAMERAS)
    with service(config, manager, limit_s=None) as daemon:
        manager.wait_for("READY", "1")
        daemon.send_signal(signal.SIGTERM)
        while (message := manager.receive(DEADLINE_S)) is not None and "STOPPING" not in message:
            assert "WATCHDOG" not in message
        assert message is not None


def test_a_blocked_engine_stops_the_pings_and_the_stacks_are_in_the_log(
    place: Path, bundle: Path, manager: NotifySocket
) -> None:
    watches = [{"name": "deaf", "camera": "panel", "question": "DEAF to everything", "interval": 1}]
    config = write_config(place, bundle, free_port(), cameras=CAMERAS, watches=watches)
    with service(config, manager) as daemon:
        manager.wait_for("READY", "1")
        message = manager.wait_for("WATCHDOG", "trigger")
        assert message["STATUS"] == "The model has not got on for 1 s (WatchdogSec)."
        assert manager.receive(3 * LIMIT_S) is None, "nothing is told any more"
        daemon.send_signal(signal.SIGABRT)  # what systemd does now
        log = daemon.communicate(timeout=DEADLINE_S)[1]
    assert daemon.returncode == -signal.SIGABRT
    assert "The model has not got on for 1 s (WatchdogSec). This process is ended" in log
    assert "fakes.py" in log.partition("Fatal Python error: Aborted")[2], "where the model hangs"


def test_a_long_answer_that_gives_tokens_keeps_the_pings(place: Path, bundle: Path, manager: NotifySocket) -> None:
    watches = [{"name": "long", "camera": "panel", "question": "HANG until cancelled", "interval": 1}]
    config = write_config(place, bundle, free_port(), cameras=CAMERAS, watches=watches)
    with service(config, manager):
        manager.wait_for("READY", "1")
        for _ in range(12):  # three times the limit, within one answer
            message = manager.receive(DEADLINE_S)
            assert message is not None
            assert message["WATCHDOG"] == "1"


def test_a_camera_that_fails_again_and_again_keeps_the_pings(place: Path, bundle: Path, manager: NotifySocket) -> None:
    silent = {"source": "exec:sleep 1000", "first_frame_timeout": 0.2, "stall_timeout": 0.2}
    watches = [{"name": "number", "camera": "silent", "question": "Which frame?"}]
    config = write_config(place, bundle, free_port(), cameras={"silent": silent}, watches=watches)
    with service(config, manager):
        manager.wait_for("READY", "1")
        for _ in range(8):
            message = manager.receive(DEADLINE_S)
            assert message is not None
            assert message["WATCHDOG"] == "1"
        assert message["STATUS"].startswith("0 of 1 camera online;")
