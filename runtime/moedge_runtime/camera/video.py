"""`file:` source: a video file, decoded with PyAV."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.pacing import Pacer, Thinner
from moedge_runtime.camera.pyav import import_av, upright
from moedge_runtime.counted import counted
from moedge_runtime.errors import CameraError


class VideoFileSource:
    """The first video stream of a file that FFmpeg can read, turned upright as its display matrix says.

    Args:
        path: The file.
        fps: At most so many frames a second of video are given; None for all.
        loop: Begin again at the end; time and index grow on.
        realtime: Give each frame when it is due, from the first frame on.
    """

    def __init__(self, path: Path, *, fps: float | None = None, loop: bool = False, realtime: bool = False) -> None:
        self._path = path
        self._loop = loop
        self._closed = threading.Event()
        self._thinner = Thinner(fps)
        self._pacer = Pacer(realtime=realtime, closed=self._closed)

    def frames(self) -> Iterator[Frame]:
        """All frames; see FrameSource."""
        index, offset_s = 0, 0.0
        while True:
            end_s = 0.0
            with closing(self._decode()) as pictures:
                for picture, pts_s, duration_s in pictures:
                    end_s = pts_s + duration_s
                    position_s = offset_s + pts_s
                    if self._thinner.keeps(position_s) and self._pacer.due(position_s):
                        yield Frame(upright(picture), datetime.now(timezone.utc), time.monotonic(), index, position_s)
                    if self._closed.is_set():
                        return
                    index += 1
            offset_s += end_s
            if not self._loop:
                return

    def close(self) -> None:
        """End `frames`."""
        self._closed.set()

    def _decode(self) -> Generator[tuple[Any, float, float], None, None]:
        """Pictures of one pass with position and duration in seconds; the first picture is at 0."""
        av = import_av()
        if not self._path.is_file():
            raise CameraError(
                f"Video '{self._path}' does not exist. Check the path; it is relative to the configuration file.",
                key="camera.not_found",
            )
        count = 0
        try:
            with av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise CameraError(
                        f"'{self._path}' has no video stream. Give a video file.", key="camera.unreadable"
                    )
                stream = container.streams.video[0]
                rate = float(stream.average_rate or 25)
                start_s: float | None = None
                for picture in container.decode(stream):
                    time_s = picture.time if picture.time is not None else count / rate
                    start_s = time_s if start_s is None else start_s
                    count += 1
                    yield picture, time_s - start_s, 1.0 / rate
                indexed_bytes = _indexed_bytes(stream)
        except av.error.FFmpegError as error:
            raise self._failure(error.strerror or str(error), count) from error
        if count == 0:
            raise self._failure("no frame could be decoded", count)
        file_bytes = self._path.stat().st_size
        if file_bytes < indexed_bytes:
            raise CameraError(
                f"Video '{self._path}' is truncated: it ended after {counted(count, 'frame')}; its index goes to byte "
                f"{indexed_bytes:,}, the file has {file_bytes:,}. Copy it again, or give a whole file.",
                key="camera.truncated",
            )

    def _failure(self, reason: str, count: int) -> CameraError:
        if count:
            return CameraError(
                f"Video '{self._path}' is damaged after {counted(count, 'frame')}: {reason}. "
                f"Copy it again, or give a whole file.",
                key="camera.damaged",
            )
        return CameraError(
            f"Video '{self._path}' cannot be opened: {reason}. Give a file that FFmpeg can read.",
            key="camera.unreadable",
        )


def _indexed_bytes(stream: Any) -> int:
    """Where the last frame ends that the file's own index names; 0 if the format has no index up front.

    The number of frames would not do: an edit list leaves some out of a whole file.
    """
    entries = getattr(stream, "index_entries", ())
    return max((entry.pos + entry.size for entry in entries), default=0)
