"""A frame, and the port that gives frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        image: uint8 [height, width, 3], RGB, upright. Nobody writes into it.
        captured_at: UTC; when the frame left its source. For a file: when it was decoded.
        monotonic_s: `time.monotonic()` at the same moment.
        index: Counts the frames of the source from 0, dropped ones included.
        pts_s: Position in the source's own time, seconds from its start; grows on over a loop.
    """

    image: NDArray[np.uint8]
    captured_at: datetime
    monotonic_s: float
    index: int
    pts_s: float


class FrameSource(Protocol):
    """Where frames come from.

    `frames` is consumed by one thread. It opens the source and gives its frames in order. A recording waits for its
    consumer; one that plays in real time gives each frame when it is due and leaves out those that are overdue. A live
    source gives the newest frame there is, at most as often as it was asked to. `close` may be called from any thread,
    at any time and more than once: `frames` then ends within one frame, or, while nothing comes from a network, within
    its timeout, without an error.

    `frames` raises CameraError when the source cannot be opened, or is damaged, breaks off or stalls at some point; the
    frames before that point have been given.
    """

    def frames(self) -> Iterator[Frame]:
        """All frames of the source, once."""
        ...

    def close(self) -> None:
        """End `frames`."""
        ...
