from __future__ import annotations

import base64
import gc
import hashlib
import logging
import re
import threading
import time
from typing import Any

import pytest
from moedge_runtime.camera import Frame, SourceOptions, open_source
from moedge_runtime.camera.credentials import Credentials, Tls
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError
from runtime.camera.conftest import Certificate
from runtime.camera.http_camera import HttpCamera, jpeg
from runtime.camera.videos import number_of

DEADLINE_S = 20.0
PATIENT = Timeouts(DEADLINE_S, DEADLINE_S)
LOGIN = Credentials("us ér", "p@s:w/ö%")


def take(url: str, count: int, *, fps: float | None = 100.0, **options: Any) -> list[Frame]:
    """The first frames; the source is closed then."""
    options.setdefault("timeouts", PATIENT)
    source = open_source(url, SourceOptions(fps=fps, **options))
    frames: list[Frame] = []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == count:
            source.close()
    return frames


def fails(url: str, **options: Any) -> CameraError:
    with pytest.raises(CameraError) as caught:
        take(url, 1000, **options)
    return caught.value


def picture(number: int = 1, **headers: str) -> Any:
    return lambda handler: handler.reply(200, jpeg(number), Content_Type="image/jpeg", **headers)


def test_a_picture_is_asked_for_again_and_again() -> None:
    def answer(handler: Any) -> None:
        picture(len(camera.requests) - 1)(handler)

    with HttpCamera(answer) as camera:
        frames = take(camera.url, 5)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].image.shape == (48, 64, 3)


def test_asking_again_leaves_nothing_that_only_the_garbage_collector_finds() -> None:
    """What it finds waits for it, and with few objects that come and go it looks once in many hours."""
    found = []
    gc.disable()
    try:
        with HttpCamera(picture()) as camera:
            source = open_source(camera.url, SourceOptions(fps=1000.0, timeouts=PATIENT))
            for frame in source.frames():
                if frame.index in (5, 45):
                    found.append(gc.collect())
                if frame.index == 45:
                    source.close()
    finally:
        gc.enable()
    assert found[1] < 40, "less than one object for each request"


def test_it_is_asked_for_at_the_wanted_rate() -> None:
    with HttpCamera(picture()) as camera:
        frames = take(camera.url, 3, fps=10.0)
    assert frames[2].monotonic_s - frames[0].monotonic_s >= 0.2
    assert len(camera.requests) == 3


def test_a_picture_that_has_not_changed_is_confirmed_and_neither_sent_nor_decoded() -> None:
    def answer(handler: Any) -> None:
        if len(camera.requests) in (2, 3):
            handler.reply(304)
        else:
            number = len(camera.requests)
            picture(number, ETag=f'"{number}"', Last_Modified="Wed, 25 Nov 2026 10:00:00 GMT")(handler)

    with HttpCamera(answer) as camera:
        frames = take(camera.url, 5)
    assert [number_of(frame.image) for frame in frames] == [1, 1, 1, 4, 5]
    assert frames[1].image is frames[0].image
    assert frames[1].captured_at > frames[0].captured_at
    asked = [(headers.get("if-none-match"), headers.get("if-modified-since")) for headers in camera.requests]
    same_day = "Wed, 25 Nov 2026 10:00:00 GMT"
    assert asked == [(None, None), ('"1"', same_day), ('"1"', same_day), ('"1"', same_day), ('"4"', same_day)]


def test_the_same_bytes_without_an_etag_are_not_decoded_again() -> None:
    with HttpCamera(picture()) as camera:
        first, second = take(camera.url, 2)
    assert second.image is first.image
    assert second.index == 1


def test_a_refused_or_damaged_picture_now_and_then_does_no_harm() -> None:
    def answer(handler: Any) -> None:
        number = len(camera.requests)
        if number == 2:
            handler.reply(503)
        elif number == 3:
            handler.reply(200, jpeg(3)[:200], Content_Type="image/jpeg", ETag='"3"')
        elif number == 4:
            assert "if-none-match" not in camera.requests[-1]
            handler.send_response(200)
            handler.send_header("Content-Length", "5000")
            handler.end_headers()
            handler.wfile.write(jpeg(4)[:200])
            handler.close_connection = True
        else:
            picture(number)(handler)

    with HttpCamera(answer) as camera:
        assert [number_of(frame.image) for frame in take(camera.url, 2)] == [1, 5]


def test_a_camera_that_only_refuses_has_stalled() -> None:
    def answer(handler: Any) -> None:
        handler.reply(503) if len(camera.requests) > 1 else picture()(handler)

    with HttpCamera(answer) as camera:
        error = fails(camera.url, timeouts=Timeouts(DEADLINE_S, 0.2))
    assert error.key == "camera.stalled"
    assert str(error) == (
        "It stalled: nothing usable came for 0.2 s (stall_timeout). The last try: The camera answers HTTP 503 "
        "(Service Unavailable)."
    )


def digest(handler: Any) -> bool:
    """Whether the request carries the right login (RFC 2617, MD5, qop=auth: what cameras speak)."""
    authorization = handler.headers.get("Authorization", "").encode("latin-1").decode()
    given = dict(re.findall(r'(\w+)="?([^",]+)"?', authorization))
    if not given:
        return False

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    secret = md5(f"{LOGIN.username}:IP Camera:{LOGIN.password}")
    asked = md5(f"GET:{given['uri']}")
    proof = f"{secret}:n1:{given['nc']}:{given['cnonce']}:auth:{asked}"
    return given["username"] == LOGIN.username and given["uri"] == handler.path and given["response"] == md5(proof)


def basic(handler: Any) -> bool:
    wanted = base64.b64encode(f"{LOGIN.username}:{LOGIN.password}".encode()).decode()
    return bool(handler.headers.get("Authorization") == f"Basic {wanted}")


CHALLENGES = {
    "digest": (digest, 'Digest realm="IP Camera", qop="auth", nonce="n1", algorithm=MD5'),
    "basic": (basic, 'Basic realm="IP Camera"'),
}


@pytest.mark.parametrize("kind", CHALLENGES)
def test_a_login_is_answered_as_the_camera_asks(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    right, challenge = CHALLENGES[kind]

    def answer(handler: Any) -> None:
        picture()(handler) if right(handler) else handler.reply(401, WWW_Authenticate=challenge)

    with HttpCamera(answer) as camera:
        assert len(take(camera.url, 3, credentials=LOGIN)) == 3
        assert len(camera.requests) == 4, "it is asked for once"
        wrong = fails(camera.url, credentials=Credentials(LOGIN.username, "wrong"))
        none = fails(camera.url)
    assert str(wrong) == "The camera refuses the login. Check username and password."
    assert str(none) == "The camera refuses the login. Set username and password."
    assert LOGIN.password not in caplog.text + repr(LOGIN)


def test_a_login_does_not_follow_to_another_host() -> None:
    with (
        HttpCamera(lambda handler: handler.reply(401, WWW_Authenticate='Basic realm="x"')) as other,
        HttpCamera(lambda handler: handler.reply(302, Location=other.url)) as camera,
    ):
        assert fails(camera.url, credentials=LOGIN).key == "camera.unauthorized"
    assert all("authorization" not in headers for headers in other.requests)


def test_https_wants_a_certificate_that_is_trusted(certificate: Certificate) -> None:
    with HttpCamera(picture(), certificate.private) as camera:
        assert str(fails(camera.url)) == (
            "The camera's certificate is not trusted: self-signed certificate. Give the file of who signed it, or its "
            "own, as `ca`."
        )
        assert len(take(camera.url, 2, tls=Tls(ca=certificate.public))) == 2
        assert len(take(camera.url, 2, tls=Tls(verify=False))) == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            lambda handler: handler.reply(404),
            "The camera answers, but has nothing at this address (HTTP 404). Check the path after the host.",
        ),
        (
            lambda handler: handler.reply(200, b"<html>", Content_Type="text/html; charset=utf-8"),
            "The address gives 'text/html'; a picture (image/…) or an MJPEG stream (multipart/x-mixed-replace) is "
            "needed. Check the path after the host.",
        ),
        (lambda handler: handler.reply(500), "The camera answers HTTP 500 (Internal Server Error)."),
        (lambda handler: handler.wfile.write(b"SIP/2.0 yes\r\n"), "It cannot be reached: SIP/2.0 yes"),
    ],
)
def test_what_is_no_picture_says_what_it_is(answer: Any, text: str) -> None:
    with HttpCamera(answer) as camera:
        assert str(fails(camera.url)).startswith(text)


def test_a_camera_that_is_switched_off_says_so() -> None:
    assert str(fails("http://127.0.0.1:1/")) == (
        "It cannot be reached: Connection refused. Check address, port and cable, and that it is switched on."
    )


class Stream:
    """An MJPEG stream that sends a picture for each `step`, and ends after `end`."""

    def __init__(self, *, with_length: bool = True) -> None:
        self.steps = threading.Semaphore(0)
        self.ended = False
        self._with_length = with_length
        self._number = 0

    def __call__(self, handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--frame")
        handler.end_headers()
        handler.wfile.write(b"--frame\r\n")
        while self.steps.acquire(timeout=DEADLINE_S) and not self.ended:
            body = jpeg(self._number)
            length = f"Content-Length: {len(body)}\r\n" if self._with_length else ""
            part = f"Content-Type: image/jpeg\r\n{length}\r\n".encode() + body + b"\r\n--frame\r\n"
            handler.wfile.write(part[:150])
            handler.wfile.flush()
            handler.wfile.write(part[150:])
            self._number += 1

    def end(self) -> None:
        self.ended = True
        self.steps.release()


@pytest.mark.parametrize("with_length", [True, False])
def test_an_mjpeg_stream_gives_its_pictures_and_ends_with_it(with_length: bool) -> None:
    stream = Stream(with_length=with_length)
    with HttpCamera(stream) as camera:
        source = open_source(camera.url, SourceOptions(fps=None, timeouts=PATIENT))
        numbers = []
        stream.steps.release()
        for frame in source.frames():
            numbers.append(number_of(frame.image))
            stream.steps.release() if len(numbers) < 10 else stream.end()
    assert numbers == list(range(10))
    assert len(camera.requests) == 1


def test_of_an_mjpeg_stream_only_the_wanted_pictures_are_decoded() -> None:
    stream = Stream()
    stream.steps.release(20)
    with HttpCamera(stream) as camera:
        source = open_source(camera.url, SourceOptions(fps=0.01, timeouts=Timeouts(DEADLINE_S, 0.5)))
        frames = []
        with pytest.raises(CameraError, match="It stalled: nothing usable came"):
            frames += source.frames()
    assert len(frames) <= 1, "the others have come, and were not due"


@pytest.mark.parametrize("where", ["before the response", "in a picture", "between pictures"])
def test_close_from_another_thread_ends_every_wait(where: str) -> None:
    reached = threading.Event()
    release = threading.Event()

    def answer(handler: Any) -> None:
        if where == "in a picture":
            handler.send_response(200)
            handler.send_header("Content-Length", "5000")
            handler.end_headers()
            handler.wfile.write(jpeg(1)[:100])
        if where == "between pictures":
            Stream()(handler) if camera.requests[1:] else None
            handler.send_response(200)
            handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            handler.end_headers()
        reached.set()
        release.wait(DEADLINE_S)

    with HttpCamera(answer) as camera:
        source = open_source(camera.url, SourceOptions(timeouts=PATIENT))
        outcome: list[object] = []
        thread = threading.Thread(target=lambda: outcome.append(list(source.frames())))
        thread.start()
        assert reached.wait(DEADLINE_S)
        began_s = time.monotonic()
        source.close()
        thread.join(DEADLINE_S)
        release.set()
    assert not thread.is_alive()
    assert time.monotonic() - began_s < DEADLINE_S / 2
    assert outcome == [[]], "it ends without an error"
