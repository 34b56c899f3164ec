"""Raw frames, as a program writes them one after the other. Pure, but for PyAV's colour conversion."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.pyav import import_av

RawFormat = Literal["rgb24", "bgr24", "gray", "yuv420p", "nv12", "yuyv422"]
"""FFmpeg's names of what is understood."""

RAW_FORMATS: tuple[str, ...] = get_args(RawFormat)

_BYTES_PER_PIXEL = {
    "rgb24": Fraction(3),
    "bgr24": Fraction(3),
    "gray": Fraction(1),
    "yuv420p": Fraction(3, 2),
    "nv12": Fraction(3, 2),
    "yuyv422": Fraction(2),
}


@dataclass(frozen=True)
class RawVideo:
    """The form of raw frames without padding between lines.

    Attributes:
        format: FFmpeg's name of the pixel format.
        width: In pixels; even, but for rgb24, bgr24 and gray.
        height: In pixels; even, but for rgb24, bgr24 and gray.
    """

    format: RawFormat
    width: int
    height: int

    @property
    def frame_bytes(self) -> int:
        """Size of a frame."""
        return int(self.width * self.height * _BYTES_PER_PIXEL[self.format])

    def decode(self, frame: bytes) -> npt.NDArray[np.uint8]:
        """One frame as uint8 [height, width, 3], RGB. YUV is taken as BT.601 of limited range, as FFmpeg does."""
        pixels = np.frombuffer(frame, np.uint8)
        if self.format == "rgb24":
            return pixels.reshape(self.height, self.width, 3)
        if self.format == "bgr24":
            return np.ascontiguousarray(pixels.reshape(self.height, self.width, 3)[..., ::-1])
        if self.format == "gray":
            return np.repeat(pixels.reshape(self.height, self.width, 1), 3, axis=2)
        shape = (self.height, self.width, 2) if self.format == "yuyv422" else (self.height * 3 // 2, self.width)
        picture = import_av().VideoFrame.from_ndarray(pixels.reshape(shape), format=self.format)
        image: npt.NDArray[np.uint8] = picture.to_ndarray(format="rgb24")
        return image


class RawSplitter:
    """Cuts chunks of any size into frames of one size."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that `chunk` completes."""
        self._buffer += chunk
        size = self._frame_bytes
        whole = len(self._buffer) // size
        frames = [bytes(self._buffer[index * size : (index + 1) * size]) for index in range(whole)]
        del self._buffer[: whole * size]
        return frames
