"""Takes frames out of a live sequence of encoded pictures: the due ones are decoded, the others only counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.pacing import Thinner
from moedge_runtime.camera.timeouts import Patience
from moedge_runtime.errors import CameraError


class PictureTaker:
    """Decides about pictures as they come.

    Args:
        decode: Makes RGB of a picture; raises CameraError for a damaged one.
        fps: Frames wanted a second; None for every one.
        patience: Is told of each picture, unless a damaged one is overdue.
    """

    def __init__(
        self, decode: Callable[[bytes], npt.NDArray[np.uint8]], *, fps: float | None, patience: Patience
    ) -> None:
        self._decode, self._patience = decode, patience
        self._thinner = Thinner(fps)
        self._start_s = time.monotonic()
        self._count = 0
        self._overdue = False

    def take(self, pictures: Sequence[bytes]) -> Frame | None:
        """The newest of `pictures`, which have just come, if a frame is due and it is whole."""
        if not pictures:
            return None
        self._count += len(pictures)
        came_s, came_at = time.monotonic(), datetime.now(timezone.utc)
        if not self._overdue and not self._thinner.keeps(came_s - self._start_s):
            self._patience.sign()
            return None
        try:
            image = self._decode(pictures[-1])
        except CameraError:
            self._overdue = True
            return None
        self._overdue = False
        self._patience.sign()
        return Frame(image, came_at, came_s, self._count - 1, came_s - self._start_s)
