"""`exec:` source: any program that writes JPEG pictures or raw frames to its standard output."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.child import Child
from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.jpeg_splitter import JpegSplitter
from moedge_runtime.camera.pictures import PictureTaker
from moedge_runtime.camera.raw_video import RawSplitter, RawVideo
from moedge_runtime.camera.timeouts import Patience, Timeouts
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import decode_image

_SHOWN_CHARACTERS = 200
_LOGIN_IN_URL = re.compile(r"(\w+://)[^/\s@]*@")


class ExecSource:
    """A program; it is started by `frames` and ended, with its own children, by `close` or with the iteration.

    Args:
        argv: Program and arguments; no shell sees them.
        raw: The form of raw frames; None for JPEG pictures, one after the other (MJPEG).
        fps: Frames wanted a second; None for every one. All are read, the due ones decoded.
        timeouts: How long to wait for frames.
    """

    def __init__(self, argv: Sequence[str], *, raw: RawVideo | None, fps: float | None, timeouts: Timeouts) -> None:
        self._argv, self._raw, self._fps, self._timeouts = argv, raw, fps, timeouts
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        """Frames as they are written; ends when the program ends with status 0. See FrameSource."""
        program = Path(self._argv[0]).name
        form = f"raw {self._raw.format} of {self._raw.width}x{self._raw.height}" if self._raw else "JPEG pictures"
        patience = Patience(self._timeouts, f"Check that '{program}' writes {form} to its standard output.")
        splitter = RawSplitter(self._raw.frame_bytes) if self._raw else JpegSplitter()
        taker = PictureTaker(self._raw.decode if self._raw else _decode, fps=self._fps, patience=patience)
        with self._lock:
            if self._closed:
                return
            self._child = Child(self._argv)
        with self._child as child:
            while (chunk := child.read(patience.left_s())) != b"":
                frame = taker.take(splitter.feed(chunk or b""))
                if frame is not None:
                    yield frame
                    patience.sign()  # however long that took
                patience.check()
            if self._closed:
                return
            status = child.exit_status()
        if status != 0:
            raise CameraError(_obituary(program, status, child.last_words()), key="camera.exited")

    def close(self) -> None:
        """End `frames` and the program."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.close()


def _decode(picture: bytes) -> npt.NDArray[np.uint8]:
    return decode_image(picture, "a picture")


def _obituary(program: str, status: int, last_words: str) -> str:
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    said = _LOGIN_IN_URL.sub(r"\1", last_words)[:_SHOWN_CHARACTERS].rstrip(".")
    return f"'{program}' {how}" + (f": {said}." if said else " and said nothing.")
