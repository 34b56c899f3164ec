"""A frame as a JPEG that is not larger than it may be."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moedge_runtime.mqtt.payloads import SnapshotRef

LEAST_QUALITY = 50
"""Below it blocks are seen before detail is: the picture becomes smaller instead."""

_QUALITY_STEP = 15
_SHRINK_MARGIN = 0.9
_LEAST_EDGE = 8


@dataclass(frozen=True)
class Jpeg:
    """An encoded picture."""

    content: bytes
    width: int
    height: int

    def reference(self, topic: str) -> SnapshotRef:
        """How an answer names it."""
        return SnapshotRef(
            topic=topic,
            bytes=len(self.content),
            width=self.width,
            height=self.height,
            sha256=hashlib.sha256(self.content).hexdigest(),
        )


def encode_jpeg(image: NDArray[np.uint8], *, max_bytes: int, quality: int, comment: str) -> Jpeg:
    """`image`, uint8 [height, width, 3] RGB, as a JPEG of `max_bytes` at most.

    Coarser first, down to LEAST_QUALITY, then smaller, until it fits.

    Args:
        image: The picture.
        max_bytes: A few kilobytes at least: every picture fits then.
        quality: To begin with.
        comment: Goes into the file, for whoever finds it without its answer.
    """
    picture = Image.fromarray(image)
    while True:
        content = _encoded(picture, quality, comment)
        if len(content) <= max_bytes or max(picture.size) <= _LEAST_EDGE:
            return Jpeg(content, *picture.size)
        if quality > LEAST_QUALITY:
            quality = max(LEAST_QUALITY, quality - _QUALITY_STEP)
            continue
        factor = min(_SHRINK_MARGIN, _SHRINK_MARGIN * math.sqrt(max_bytes / len(content)))
        width, height = (max(1, int(edge * factor)) for edge in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _encoded(picture: Image.Image, quality: int, comment: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, comment=comment.encode())
    return file.getvalue()
