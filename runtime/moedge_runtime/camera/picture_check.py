"""Notices pictures that show nothing: always the same one, or black. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.frame import Frame

GRID = (90, 160)
"""Rows and columns of the pixels that are looked at. A camera's noise shows on some of them in any two pictures."""

BLACK_LEVEL = 25
"""A pixel is black up to this of 255: pixel_black_th=0.10 of FFmpeg's blackdetect."""

BLACK_SHARE = 0.98
"""A picture is black if so many pixels are: picture_black_ratio_th of blackdetect."""

Kind = Literal["frozen", "black"]


@dataclass(frozen=True)
class Finding:
    """What is wrong with the pictures, as a whole sentence with its numbers."""

    kind: Kind
    text: str


class PictureCheck:
    """Looks at every frame of one live camera.

    Args:
        frozen_after_s: The same picture for so long is frozen; None to leave that out. Every pixel of a grid must be
            equal: a sensor's noise alone makes two pictures of an unmoved scene differ.
        black_after_s: Black pictures for so long are reported; None to leave that out.
        hidden: Which pixels of the picture that is looked at were painted over, bool [height, width], or None if none
            were; they say nothing about the camera.
    """

    def __init__(
        self,
        frozen_after_s: float | None,
        black_after_s: float | None,
        hidden: Callable[[], npt.NDArray[np.bool_] | None] = lambda: None,
    ) -> None:
        self._hidden = hidden
        self._frozen_after_s, self._black_after_s = frozen_after_s, black_after_s
        self._last: npt.NDArray[np.uint8] | None
        self.restart()

    def restart(self) -> None:
        """The next frame is the first one: nothing was seen in between."""
        self._last, self._same, self._black = None, _Run(), _Run()

    def look(self, frame: Frame) -> Finding | None:
        """What is wrong as of `frame`; None if nothing is, or not for long enough."""
        sample = _sample(frame.image, self._hidden())
        changed = self._last is None or not np.array_equal(sample, self._last)
        self._last = sample
        if not sample.size:
            return None  # all of it is masked
        dark_share = float((sample.max(axis=-1) <= BLACK_LEVEL).mean())
        # The picture that a frozen run begins with belongs to it.
        same_s = self._same.note(True, frame.monotonic_s, anew=changed)
        black_s = self._black.note(dark_share >= BLACK_SHARE, frame.monotonic_s)
        if self._black_after_s is not None and black_s is not None and black_s >= self._black_after_s:
            return Finding(
                "black",
                f"The picture has been black for {black_s:.0f} s ({self._black.frames:,} frames): {dark_share:.1%} of "
                f"the pixels are at most {BLACK_LEVEL} of 255, the brightest is {int(sample.max())}. "
                "Check lens, cover and light; if it may be dark there, set black_after: never.",
            )
        if self._frozen_after_s is not None and same_s is not None and same_s >= self._frozen_after_s:
            return Finding(
                "frozen",
                f"The picture has not changed for {same_s:.0f} s ({self._same.frames:,} frames): all of the "
                f"{sample.shape[0]:,} pixels that are compared are equal. Restart the camera; if nothing "
                "has to change there, set frozen_after: never.",
            )
        return None


class _Run:
    """Frames in a row for which something holds."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self.frames = 0

    def note(self, holds: bool, now_s: float, *, anew: bool = False) -> float | None:
        """How long it has held, as of this frame; None if it does not. `anew` begins a new run with this frame."""
        if not holds:
            self._since_s, self.frames = None, 0
            return None
        if self._since_s is None or anew:
            self._since_s, self.frames = now_s, 0
        self.frames += 1
        return now_s - self._since_s


def _sample(image: npt.NDArray[np.uint8], hidden: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint8]:
    """Pixels [count, 3] on a grid over the whole picture, as they are, without those that are hidden."""
    rows, columns = (
        np.linspace(0, length - 1, min(length, wanted)).astype(np.intp)
        for length, wanted in zip(image.shape[:2], GRID, strict=True)
    )
    pixels = image[rows[:, None], columns]
    if hidden is None:
        return pixels.reshape(-1, 3)
    shown: npt.NDArray[np.uint8] = pixels[~hidden[rows[:, None], columns]]
    return shown
