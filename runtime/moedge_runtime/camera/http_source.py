"""`http:` and `https:` sources: a picture that is asked for again and again, or an MJPEG stream."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.http_client import HttpClient
from moedge_runtime.camera.jpeg_splitter import MAX_PICTURE_BYTES
from moedge_runtime.camera.multipart_splitter import MultipartSplitter, boundary_of
from moedge_runtime.camera.pictures import PictureTaker
from moedge_runtime.camera.timeouts import STALLED_KEY, Patience, Timeouts
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import decode_image

CHUNK_BYTES = 1 << 16

GIVEN_UP_AT_ONCE = ("camera.unauthorized", "camera.not_found", "camera.certificate", "camera.no_video")
"""Keys of errors that asking again does not mend; others may last until the stall timeout."""


class HttpSource:
    """Pictures over HTTP.

    A single picture is asked for `fps` times a second, with If-None-Match and If-Modified-Since if the server offers
    them. If it has not changed, the camera has confirmed it: it is given again, undecoded, with the new time.

    Args:
        client: Gets the address.
        fps: Frames wanted a second. None: a single picture is asked for once a second, a stream gives every frame.
        timeouts: How long to wait for frames.
    """

    def __init__(self, client: HttpClient, *, fps: float | None, timeouts: Timeouts) -> None:
        self._client, self._fps, self._timeouts = client, fps, timeouts
        self._closed = threading.Event()

    def frames(self) -> Iterator[Frame]:
        """Frames as they come; ends when the server ends a stream. See FrameSource."""
        patience = Patience(self._timeouts, "Check the address with a browser.")
        try:
            with closing(self._client.get({}, self._timeouts.first_frame_s)) as response:
                boundary = boundary_of(response.headers.get("Content-Type", ""))
                if response.headers.get_content_maintype() == "multipart" and boundary:
                    yield from self._stream(response, boundary, patience)
                    return
                poll = _Poll(self._client, self._timeouts)
                frame = poll.first(response)
            yield frame
            patience.sign()  # however long that took
            yield from self._polled(poll, patience)
        except CameraError:
            if not self._closed.is_set():
                raise

    def close(self) -> None:
        """End `frames`."""
        self._closed.set()
        self._client.close()

    def _polled(self, poll: _Poll, patience: Patience) -> Iterator[Frame]:
        period_s = 1.0 / (self._fps or 1.0)
        next_s = time.monotonic() + period_s
        while not self._closed.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + period_s, time.monotonic())
            try:
                frame = poll.next()
            except CameraError as error:
                if error.key in GIVEN_UP_AT_ONCE:
                    raise
                if patience.left_s() == 0:
                    raise CameraError(f"{patience.error()} The last try: {error}", key=STALLED_KEY) from None
                continue
            yield frame
            patience.sign()  # however long that took

    def _stream(self, response: http.client.HTTPResponse, boundary: bytes, patience: Patience) -> Iterator[Frame]:
        splitter, taker = MultipartSplitter(boundary), PictureTaker(_decode, fps=self._fps, patience=patience)
        self._client.limit(self._timeouts.stall_s)
        while not self._closed.is_set():
            try:
                chunk = response.read1(CHUNK_BYTES)
            except TimeoutError:
                raise patience.error() from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise CameraError(f"The stream broke off: {error}.", key="camera.broken_off") from None
            if not chunk:
                return
            frame = taker.take(splitter.feed(chunk))
            if frame is not None:
                yield frame
                patience.sign()  # however long that took
            patience.check()


class _Poll:
    """One picture, asked for again and again."""

    def __init__(self, client: HttpClient, timeouts: Timeouts) -> None:
        self._client, self._timeouts = client, timeouts
        self._start_s = time.monotonic()
        self._validators: dict[str, str] = {}
        self._content = b""
        self._image: npt.NDArray[np.uint8] | None = None
        self._count = 0

    def next(self) -> Frame:
        """The picture now."""
        with closing(self._client.get(self._validators, self._timeouts.stall_s)) as response:
            return self.first(response)

    def first(self, response: http.client.HTTPResponse) -> Frame:
        """The picture in `response`."""
        came_s, came_at = time.monotonic(), datetime.now(timezone.utc)
        if response.status != http.HTTPStatus.NOT_MODIFIED or self._image is None:
            content = _read(response, came_s + self._timeouts.stall_s)
            if content != self._content or self._image is None:
                self._image = _decode_or_explain(content, response.headers.get_content_type())
                self._content = content
            # Kept only now: a picture that could not be read must be sent again.
            headers = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
            self._validators = {
                name: response.headers[theirs] for name, theirs in headers.items() if response.headers.get(theirs)
            }
        self._count += 1
        return Frame(self._image, came_at, came_s, self._count - 1, came_s - self._start_s)


def _read(response: http.client.HTTPResponse, deadline_s: float) -> bytes:
    """The whole body."""
    content = bytearray()
    try:
        while chunk := response.read1(CHUNK_BYTES):
            content += chunk
            if len(content) > MAX_PICTURE_BYTES:
                raise CameraError(
                    f"The camera's picture has more than {MAX_PICTURE_BYTES:,} bytes. Make it smaller.",
                    key="camera.image_too_large",
                )
            if time.monotonic() > deadline_s:
                raise CameraError("The camera's picture came too slowly.", key="camera.timeout")
        if response.length:
            raise CameraError(
                f"The camera's picture broke off {response.length:,} bytes before its end.", key="camera.broken_off"
            )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise CameraError(f"The camera's picture broke off: {error}.", key="camera.broken_off") from None
    return bytes(content)


def _decode(picture: bytes) -> npt.NDArray[np.uint8]:
    return decode_image(picture, "the camera's picture")


def _decode_or_explain(content: bytes, content_type: str) -> npt.NDArray[np.uint8]:
    try:
        return _decode(content)
    except CameraError:
        if content_type.startswith("image/"):
            raise
    raise CameraError(
        f"The address gives '{content_type}'; a picture (image/…) or an MJPEG stream (multipart/x-mixed-replace) is "
        "needed. Check the path after the host.",
        key="camera.no_video",
    )
