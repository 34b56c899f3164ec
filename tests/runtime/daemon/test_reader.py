"""A camera's thread with real cameras: GStreamer's RTSP server, an HTTP server, a program."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moedge_runtime.config import CameraConfig
from moedge_runtime.daemon import reader as reader_module
from moedge_runtime.daemon.cameras import check_of, open_camera, policy_of, preparation_of
from moedge_runtime.daemon.reader import CameraReader
from moedge_runtime.errors import CameraError
from moedge_runtime.mqtt.backoff import Backoff
from runtime.camera.http_camera import HttpCamera, jpeg
from runtime.camera.rtsp import GREEN, RtspServer, h264, h265, need_server

DEADLINE_S = 30.0


class Diary:
    """What a reader says about its camera."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.states: list[tuple[str, CameraError | None]] = []

    def note(self, camera: str, state: str, reason: CameraError | None) -> None:
        with self._changed:
            self.states.append((state, reason))
            self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S), self.states

    def wait(self, state: str, after: int = 0) -> CameraError | None:
        """Wait for `state` among the entries from `after` on; its reason."""
        with self._changed:
            assert self._changed.wait_for(lambda: state in self._names(after), DEADLINE_S), self.states
            return self.states[after + self._names(after).index(state)][1]

    def _names(self, after: int) -> list[str]:
        return [name for name, _ in self.states[after:]]


class Nobody:
    """Takes frames and asks nothing."""

    def reopened(self) -> None:
        pass

    def take(self, frame: object, condition: str | None) -> bool:
        return True

    def drain(self) -> None:
        pass


@contextmanager
def reading(
    source: str, *, gives_up: bool = False, backoff: Backoff | None = None, on: bool = True, **keys: Any
) -> Iterator[tuple[CameraReader, Diary]]:
    """A reader without watches that runs until the block ends."""
    diary = Diary()
    camera = CameraConfig.model_validate({"source": source, **keys})
    preparation = preparation_of(camera)
    reader = CameraReader(
        "gate",
        source,
        lambda: open_camera(camera, [], preparation),
        Nobody(),
        policy=policy_of(camera, gives_up=gives_up),
        on_state=diary.note,
        on_end=diary.wake,
        check=check_of(camera, preparation),
        backoff=backoff or Backoff(0.01, 0.1),
        enabled=on,
    )
    reader.start()
    try:
        yield reader, diary
    finally:
        reader.stop()
        reader.join(DEADLINE_S)


def test_an_rtsp_camera_that_goes_away_comes_back_with_another_codec_and_size() -> None:
    need_server()
    with RtspServer(h264()) as server:
        port, url = server.port, server.url
        with reading(url) as (reader, diary):
            assert reader.state == "connecting" or diary.states
            diary.wait("online")
            server.kill()
            gone = diary.wait("offline")
            assert gone is not None
            assert str(gone).startswith(f"Camera 'gate' ({url}) failed: ")
            assert str(gone).endswith(" Retrying within 10 s.")
            seen = len(diary.states)
            with RtspServer(h265(size="160x120", colour=GREEN), port=port):
                diary.wait("online", seen)
                assert reader.latest is not None
                assert reader.latest.image.shape == (120, 160, 3)


def test_an_rtsp_camera_that_hangs_is_stalled_and_opened_again() -> None:
    need_server()
    with RtspServer(h264()) as server, reading(server.url, stall_timeout=1, first_frame_timeout=1) as (_, diary):
        diary.wait("online")
        server.pause()
        reason = diary.wait("stalled")
        assert reason is not None
        assert reason.key == "camera.stalled"
        assert "It stalled: nothing usable came for 1 s (stall_timeout). Retrying" in str(reason)
        diary.wait("offline")
        seen = len(diary.states)
        server.resume()
        diary.wait("online", seen)


def test_frozen_and_black_pictures_are_states_with_their_numbers() -> None:
    shown = {"number": 0, "moves": True}

    def answer(handler: Any) -> None:
        if shown["moves"]:
            shown["number"] += 1
        body = jpeg(shown["number"]) if shown["number"] >= 0 else b""
        handler.reply(200, body, Content_Type="image/jpeg")

    with (
        HttpCamera(answer) as camera,
        reading(camera.url, fps=50, frozen_after="300ms", black_after="200ms") as (reader, diary),
    ):
        diary.wait("online")
        shown["moves"] = False
        reason = diary.wait("frozen")
        assert reason is not None
        assert reason.key == "camera.frozen"
        assert str(reason).startswith(f"Camera 'gate' ({camera.url}): The picture has not changed for ")
        seen = len(diary.states)
        shown["moves"] = True
        assert diary.wait("online", seen) is None
        black = jpeg(0, (64, 64))
        camera.answer = lambda handler: handler.reply(200, _black(), Content_Type="image/jpeg")
        reason = diary.wait("black")
        assert reason is not None
        assert "100.0% of the pixels are at most 25 of 255" in str(reason)
        assert reader.state == "black"
        assert black != _black()


def _black() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "JPEG")
    return file.getvalue()


def test_a_program_that_ends_is_started_again(tmp_path: Any) -> None:
    (tmp_path / "picture.jpg").write_bytes(jpeg(5))
    code = f"import sys; sys.stdout.buffer.write(open({str(tmp_path / 'picture.jpg')!r}, 'rb').read())"
    with reading(f'exec:{sys.executable} -c "{code}"') as (_, diary):
        diary.wait("online")
        reason = diary.wait("offline")
        assert reason is not None
        assert reason.key == "camera.ended"
        diary.wait("online", 2)


class Delays(Backoff):
    """Short delays that note how often they began anew."""

    def __init__(self) -> None:
        super().__init__(0.01, 0.02)
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1
        super().reset()


@pytest.mark.parametrize(("ran_for_s", "resets"), [(1e-9, True), (60.0, False)])
def test_only_a_camera_that_ran_for_a_while_is_opened_again_at_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, ran_for_s: float, resets: bool
) -> None:
    monkeypatch.setattr(reader_module, "LAST_RETRY_S", ran_for_s)
    (tmp_path / "picture.jpg").write_bytes(jpeg(5))
    code = f"import sys; sys.stdout.buffer.write(open({str(tmp_path / 'picture.jpg')!r}, 'rb').read())"
    delays = Delays()
    with reading(f'exec:{sys.executable} -c "{code}"', backoff=delays) as (_, diary):
        diary.wait("online")
        diary.wait("online", 2)
    assert (delays.resets > 0) is resets


def test_a_program_that_ends_has_ended_if_the_daemon_is_to_end_with_it(tmp_path: Any) -> None:
    with reading(f"exec:{sys.executable} -c pass", gives_up=True) as (reader, diary):
        reason = diary.wait("offline")
        assert str(reason) == "Camera 'gate' has come to its end."
        diary.until(lambda: reader.finished)
        assert not reader.failed


def test_the_same_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    attempts = threading.Semaphore(0)

    def answer(handler: Any) -> None:
        handler.reply(500)
        attempts.release()

    with HttpCamera(answer) as camera, reading(camera.url) as (_, diary):
        for _ in range(4):
            assert attempts.acquire(timeout=DEADLINE_S)
    assert [name for name, _ in diary.states] == ["offline"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_a_camera_that_is_switched_off_is_closed_and_has_no_picture_until_it_is_switched_on() -> None:
    numbers = itertools.count()

    def answer(handler: Any) -> None:
        handler.reply(200, jpeg(next(numbers) % 30), Content_Type="image/jpeg")

    with HttpCamera(answer) as camera, reading(camera.url, fps=50) as (reader, diary):
        diary.wait("online")
        reader.enable(False)
        assert reader.latest is None and reader.last_frame_age_s() is None
        assert diary.wait("disabled") is None
        assert reader.latest is None, "a frame that was under way is not taken"
        seen = len(diary.states)
        reader.enable(True)
        reason = diary.wait("connecting", seen)
        assert reason is not None and reason.key == "camera.starting"
        diary.wait("online", seen)
    assert [name for name, _ in diary.states] == ["online", "disabled", "connecting", "online"], "and no failure"


def test_a_camera_that_begins_switched_off_is_not_opened() -> None:
    with HttpCamera(lambda handler: handler.reply(500)) as camera, reading(camera.url, on=False) as (reader, diary):
        assert reader.state == "disabled"
        reader.enable(True)
        diary.wait("offline")
        assert diary.states[0][0] == "connecting", "nothing was tried before"
        assert camera.requests


def test_a_camera_that_waits_to_be_opened_again_can_be_switched_off() -> None:
    delays = Backoff(1e6, 1e6)
    with (
        HttpCamera(lambda handler: handler.reply(500)) as camera,
        reading(camera.url, backoff=delays) as (reader, diary),
    ):
        diary.wait("offline")
        reader.enable(False)
        diary.wait("disabled")
        seen = len(diary.states)
        reader.enable(True)
        diary.wait("offline", seen)


def test_a_recording_that_has_ended_plays_again_when_it_is_switched_off_and_on(tmp_path: Any) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(5))
    with reading(f"folder:{tmp_path}") as (reader, diary):
        diary.until(lambda: reader.finished)
        reader.enable(False)
        assert diary.wait("disabled") is None
        assert not reader.finished
        frames, seen = reader.frames, len(diary.states)
        reader.enable(True)
        diary.wait("online", seen)
        diary.until(lambda: reader.finished)
        assert reader.frames == 2 * frames
