"""A live stream that FFmpeg opens: packets are read as they come, and as few as possible decoded."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, Protocol

from moedge_runtime.camera.decode_plan import DecodePlan
from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.pyav import import_av, upright
from moedge_runtime.camera.timeouts import Patience, Timeouts
from moedge_runtime.errors import CameraError

SLICED_CODECS = ("h264", "hevc")
"""A sender that repeats the parameter sets before each slice of a key frame (GStreamer's x264enc tune=zerolatency with
rtph264pay config-interval=-1) makes FFmpeg take each slice for a frame; together they are one."""


POLL_S = 0.2
"""How often a silent device is looked at for `close` and its timeout."""


class LiveInput(Protocol):
    """What differs between RTSP and a device."""

    advice: str
    """What to check if there is no first frame; a whole sentence."""

    def open(self, av: Any, timeouts: Timeouts) -> Any:
        """An `av.container.InputContainer`. Raises av.error.FFmpegError, or CameraError."""
        ...

    def descriptor(self) -> int | None:
        """A file descriptor that is readable when there is a packet, once it is open; None if FFmpeg itself keeps to
        the time limits that it was opened with.
        """
        ...

    def explain(self, error: Any) -> CameraError:
        """What an av.error.FFmpegError of `open` means."""
        ...


class StreamSource:
    """The first video stream of a live input.

    While nothing arrives from the network, `close` takes effect when the timeout that runs is over: FFmpeg cannot be
    ended earlier.

    Args:
        source: Opens the stream.
        fps: Frames wanted a second; None for every one. See DecodePlan for what that costs.
        timeouts: How long to wait for frames.
    """

    def __init__(self, source: LiveInput, *, fps: float | None, timeouts: Timeouts) -> None:
        self._input, self._fps, self._timeouts = source, fps, timeouts
        self._closed = threading.Event()

    def frames(self) -> Iterator[Frame]:
        """Frames from the first key frame on, at most `fps` a second; ends when the sender ends. See FrameSource."""
        av = import_av()
        start_s = time.monotonic()
        patience = Patience(self._timeouts, self._input.advice)
        try:
            container = self._input.open(av, self._timeouts)
        except av.error.FFmpegError as error:  # its own text holds the URL with the password
            patience.check()  # FFmpeg has other names for the end of its patience
            raise self._input.explain(error) from None
        with container:
            if not container.streams.video:
                raise CameraError("It sends no video. Give the address of a video stream.", key="camera.no_video")
            stream = container.streams.video[0]
            codec = stream.codec_context
            if codec is None:
                raise CameraError(
                    "FFmpeg cannot decode here what it sends. Set the camera to H.264, H.265 or MJPEG.",
                    key="camera.codec_unknown",
                )
            codec.thread_count = 1  # threads would hold frames back
            with closing(self._pictures(av, container, stream, patience)) as pictures:
                for picture, came_at, came_s, index in pictures:
                    yield Frame(upright(picture), came_at, came_s, index, came_s - start_s)
                    if self._closed.is_set():
                        return

    def close(self) -> None:
        """End `frames`."""
        self._closed.set()

    def _pictures(
        self, av: Any, container: Any, stream: Any, patience: Patience
    ) -> Generator[tuple[Any, datetime, float, int], None, None]:
        """Decoded pictures with the time at which the newest packet of each came, and its number."""
        plan: DecodePlan[Any] = DecodePlan(self._fps)
        with closing(self._packets(av, container, stream, patience)) as packets:
            asked_s = time.monotonic()
            for index, packet in enumerate(packets):
                if self._closed.is_set():
                    return
                now_s, now = time.monotonic(), datetime.now(timezone.utc)
                stamp = packet.dts if packet.dts is not None else packet.pts
                todo = plan.add(
                    packet,
                    key=packet.is_keyframe,
                    size_bytes=packet.size,
                    pts_s=None if stamp is None else float(stamp * packet.time_base),
                    waited_s=now_s - asked_s,
                    now_s=now_s,
                )
                picture = _newest_picture(av, stream.codec_context, todo.packets, plan)
                if picture is not None and todo.give:
                    plan.gave(now_s)
                    yield picture, now, now_s, index
                    patience.sign()  # however long that took
                elif not plan.overdue(now_s):
                    patience.sign()
                patience.check()
                asked_s = time.monotonic()

    def _packets(self, av: Any, container: Any, stream: Any, patience: Patience) -> Generator[Any, None, None]:
        slices, descriptor = stream.codec_context.name in SLICED_CODECS, self._input.descriptor()
        last: Any = None
        while True:
            try:
                for packet in container.demux(stream):
                    if not packet.size:
                        continue
                    if slices and packet.is_keyframe and last is not None and last.pts in (packet.pts, None):
                        packet = _joined(av, last, packet)  # noqa: PLW2901
                    last = packet if packet.is_keyframe else None
                    yield packet
                    if not self._wait_for(descriptor, patience):
                        return
                return
            except av.error.EOFError:
                return
            except av.error.ExitError:  # nothing came for the stall timeout; the first frame may have longer
                patience.check()
            except av.error.FFmpegError as error:
                raise CameraError(f"The stream broke off: {reason(error)}.", key="camera.broken_off") from None

    def _wait_for(self, descriptor: int | None, patience: Patience) -> bool:
        """Wait until `descriptor`, if there is one, can be read; False once closed."""
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(POLL_S * 1000):
            patience.check()
            if self._closed.is_set():
                return False
        return True


def _joined(av: Any, first: Any, second: Any) -> Any:
    """Two packets as one, with the time of the second."""
    packet = av.Packet(bytes(first) + bytes(second))
    packet.pts, packet.dts, packet.time_base, packet.is_keyframe = second.pts, second.dts, second.time_base, True
    return packet


def reason(error: Any) -> str:
    """FFmpeg's words for an error, without the address that PyAV adds to them."""
    return (error.strerror or type(error).__name__).rstrip(".")


def _newest_picture(av: Any, codec: Any, packets: Any, plan: DecodePlan[Any]) -> Any | None:
    """Decode `packets`; the last whole picture that came out."""
    newest = None
    try:
        for packet in packets:
            for picture in codec.decode(packet):
                if picture.is_corrupt:
                    plan.lost()
                    return None
                newest = picture
    except av.error.FFmpegError:  # a damaged packet; what is wrong with the whole stream shows as a stall
        plan.lost()
        codec.flush_buffers()
        return None
    return newest
