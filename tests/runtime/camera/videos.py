"""Real H.264 files whose every frame tells its own number by its brightness."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 64, 48
STEP = 6
"""Brightness between two frames; H.264 keeps flat grey to within 2."""


def write_video(path: Path, frames: int = 30, fps: int = 10, *, faststart: bool = False) -> Path:
    """`frames` frames of flat grey, frame i as bright as `brightness(i)`, left upper corner white."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, fps)
        for index in range(frames):
            image = np.full((HEIGHT, WIDTH, 3), brightness(index), np.uint8)
            image[:16, :16] = 255
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def brightness(index: int) -> int:
    """Grey of frame `index`."""
    return 20 + index % 36 * STEP


def number_of(image: np.ndarray) -> int:
    """Number (modulo 36) of the frame that `image` shows."""
    return round((float(np.median(image)) - 20) / STEP)


def set_rotation(path: Path, quarter_turns_clockwise: int) -> None:
    """Write a display matrix into the track header (ISO 14496-12, 8.3.2), as a phone held sideways does."""
    a, b, c, d = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns_clockwise]
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
