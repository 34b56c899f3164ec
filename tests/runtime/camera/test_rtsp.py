"""A real RTSP server, GStreamer's, in a process of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from moedge_runtime.camera import Frame, SourceOptions, open_source
from moedge_runtime.camera.credentials import Credentials, Tls
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError
from runtime.camera.conftest import Certificate
from runtime.camera.rtsp import GREEN, RED, RtspServer, h264, h265, mjpeg, need_server

pytestmark = pytest.mark.usefixtures("_server")

DEADLINE_S = 30.0
PATIENT = Timeouts(DEADLINE_S, DEADLINE_S)
LOGIN = Credentials("us er", "p@s s:w/ö%rd")


@pytest.fixture(scope="module")
def _server() -> None:
    need_server()


@contextmanager
def playing(url: str, **options: Any) -> Iterator[Iterator[Frame]]:
    """The frames of a source that is closed with the block."""
    options.setdefault("timeouts", PATIENT)
    source = open_source(url, SourceOptions(**options))
    try:
        yield iter(source.frames())
    finally:
        source.close()


def take(url: str, count: int = 1, *, fps: float | None = None, **options: Any) -> list[Frame]:
    with playing(url, fps=fps, **options) as frames:
        return [next(frames) for _ in range(count)]


def fails(url: str, **options: Any) -> CameraError:
    with pytest.raises(CameraError) as caught, playing(url, **options) as frames:
        next(frames)
    return caught.value


def drain(frames: Iterator[Frame]) -> None:
    """Read to the end."""
    deadline_s = time.monotonic() + DEADLINE_S
    for _ in frames:
        assert time.monotonic() < deadline_s, "it goes on for ever"


def shows(frame: Frame, colour: int) -> bool:
    """Whether the whole frame has this colour, as a half decoded one has not."""
    wanted = [colour >> 16 & 255, colour >> 8 & 255, colour & 255]
    return bool((np.abs(frame.image.astype(int) - wanted) < 16).all())


@pytest.mark.parametrize("launch", [h264(), h265(), mjpeg()], ids=["h264", "h265", "mjpeg"])
def test_every_codec_of_cameras_is_played(launch: str) -> None:
    with RtspServer(launch) as server:
        frames = take(server.url, 5)
    assert all(shows(frame, RED) for frame in frames)
    assert frames[0].image.shape == (240, 320, 3)
    assert [frame.index - frames[0].index for frame in frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fps", [None, 2.0])
def test_key_frames_in_slices_with_parameter_sets_before_each_are_whole(fps: float | None) -> None:
    with RtspServer(h264(slices=4, key_interval=12, size="640x480")) as server:
        frames = take(server.url, 4, fps=fps)
    assert all(shows(frame, RED) for frame in frames)
    assert frames[3].monotonic_s - frames[0].monotonic_s < (2.5 if fps else 1.5)


def test_udp_is_played_if_it_is_asked_for() -> None:
    with RtspServer(h264()) as server:
        assert shows(take(server.url, transport="udp")[0], RED)


def test_a_join_in_the_middle_of_a_group_waits_for_the_key_frame_and_shows_nothing_half() -> None:
    with RtspServer(h264(key_interval=40)) as server, playing(server.url) as others:
        for _ in range(10):
            next(others)  # the group has begun, and goes on for whoever comes now
        began_s = time.monotonic()
        frames = take(server.url, 45)
        assert frames[0].monotonic_s - began_s > 0.3, "it has waited"
    assert all(shows(frame, RED) for frame in frames)


def test_at_one_frame_a_second_frames_are_key_frames() -> None:
    with RtspServer(h264(key_interval=25)) as server:
        first, second, third = take(server.url, 3, fps=1.0)
    assert [second.index - first.index, third.index - second.index] == [25, 25]


def test_the_rate_is_kept_where_key_frames_are_rare() -> None:
    with RtspServer(h264(key_interval=250)) as server:
        frames = take(server.url, 4, fps=2.0)
    gaps_s = np.diff([frame.monotonic_s for frame in frames])
    assert (np.abs(gaps_s - 0.5) < 0.3).all()
    assert all(shows(frame, RED) for frame in frames)


def test_the_size_may_change_within_the_stream() -> None:
    with RtspServer(h264(key_interval=10)) as server, playing(server.url) as frames:
        assert next(frames).image.shape == (240, 320, 3)
        server.tell("size 160x120")
        deadline_s = time.monotonic() + DEADLINE_S
        frame = next(frame for frame in frames if frame.image.shape != (240, 320, 3) or time.monotonic() > deadline_s)
        assert frame.image.shape == (120, 160, 3)
        assert shows(frame, RED)


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_a_login_reaches_the_camera_and_nobody_else(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = {"user": LOGIN.username, "password": LOGIN.password, "scheme": scheme}
    with RtspServer(h264(), **login) as server:
        assert shows(take(server.url, credentials=LOGIN)[0], RED)
        wrong, none = fails(server.url, credentials=Credentials("us er", "wro:ng")), fails(server.url)
    assert (wrong.key, str(wrong)) == (
        "camera.unauthorized",
        "The camera refuses the login. Check username and password.",
    )
    assert str(none) == "The camera refuses the login. Set username and password."
    assert wrong.__cause__ is None, "FFmpeg's error names the URL with its password"
    assert "wro" not in caplog.text
    assert "p@s" not in caplog.text + repr(LOGIN)


def test_rtsps_wants_a_certificate_that_is_trusted(certificate: Certificate) -> None:
    with RtspServer(h264(), certificate=str(certificate.private)) as server:
        refused = fails(server.url)
        assert refused.key == "camera.unreachable"
        assert str(refused).endswith("Its certificate must be signed by `ca`.")
        assert shows(take(server.url, tls=Tls(ca=certificate.public))[0], RED)
        assert shows(take(server.url, tls=Tls(verify=False))[0], RED)


def test_what_does_not_play_says_why() -> None:
    with RtspServer(h264()) as server:
        assert str(fails(server.url + "x")) == (
            "The camera answers, but has no stream at this address. Check the path after the host."
        )
        gone = server.url
    refused = fails(gone)
    assert refused.key == "camera.unreachable"
    assert str(refused) == (
        "It cannot be reached: Connection refused. Check address, port and cable, and that it is switched on."
    )


def test_a_camera_that_says_nothing_is_given_up_after_the_first_frame_timeout() -> None:
    with RtspServer(h264()) as server:
        server.pause()
        error = fails(server.url, timeouts=Timeouts(0.7, DEADLINE_S))
    assert error.key == "camera.timeout"
    assert str(error).startswith("No first frame came within 0.7 s (first_frame_timeout). Check ")


def test_a_stream_without_key_frames_is_given_up_with_an_advice() -> None:
    with RtspServer(h264(key_interval=100_000)) as server, playing(server.url) as others:
        for _ in range(3):
            next(others)
        error = fails(server.url, timeouts=Timeouts(1.5, DEADLINE_S))
    assert error.key == "camera.timeout"
    assert "key frame interval (I-frame, GOP)" in str(error)


def test_a_camera_that_falls_silent_has_stalled() -> None:
    with RtspServer(h264()) as server, playing(server.url, fps=1.0, timeouts=Timeouts(DEADLINE_S, 1.0)) as frames:
        next(frames)
        server.pause()
        with pytest.raises(CameraError) as caught:
            drain(frames)
    assert caught.value.key == "camera.stalled"


def test_a_short_silence_is_waited_for() -> None:
    with RtspServer(h264()) as server, playing(server.url, fps=None) as frames:
        last = next(frames)
        server.pause()
        threading.Timer(1.0, server.resume).start()
        began_s = time.monotonic()
        while last.monotonic_s < began_s + 1.0:
            last = next(frames)
        assert all(shows(next(frames), RED) for _ in range(30))


def test_a_camera_that_closes_the_connection_has_ended() -> None:
    with RtspServer(h264()) as server, playing(server.url) as frames:
        next(frames)
        server.tell("drop")
        try:
            drain(frames)
        except CameraError as error:
            assert error.key == "camera.broken_off"


def test_a_camera_comes_back_with_another_codec_size_and_picture() -> None:
    with RtspServer(h264()) as server:
        port = server.port
        assert shows(take(server.url)[0], RED)
    with RtspServer(h265(size="160x120", colour=GREEN), port=port) as server:
        frame = take(server.url)[0]
    assert frame.image.shape == (120, 160, 3)
    assert shows(frame, GREEN)


def test_close_from_another_thread_ends_a_stream_that_plays() -> None:
    with RtspServer(h264()) as server:
        source = open_source(server.url, SourceOptions(fps=0.01, timeouts=PATIENT))
        first = threading.Event()
        thread = threading.Thread(target=lambda: [first.set() for _ in source.frames()])
        thread.start()
        assert first.wait(DEADLINE_S)
        source.close()
        thread.join(2.0)
        assert not thread.is_alive()
