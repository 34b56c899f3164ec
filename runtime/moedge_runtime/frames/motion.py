"""Notices that something moved, and in which zones, on a small plane of brightness. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from moedge_runtime.frames.polygon import Polygon, covered

ROWS = 90
"""Cells from top to bottom, about: a cell of 1920x1080 is the mean of 12 x 12 pixels, which takes out the noise."""

ADAPT_S = 20.0
"""Time constant with which the background follows: what stands still for a minute belongs to it."""

QUIET_S = 30.0
"""Motion is over after so long without any: somebody who stands still for a moment is not gone. As in Frigate."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601."""


@dataclass(frozen=True)
class MotionSettings:
    """What counts as motion.

    Attributes:
        threshold: Change of a cell's brightness, of 255, after a change of the whole picture was taken out.
        area: Share of the cells of a zone, or of the picture, that have to change.
    """

    threshold: float = 15.0
    area: float = 0.002


@dataclass(frozen=True)
class Motion:
    """Where a frame shows motion.

    Attributes:
        anywhere: In the whole picture.
        zones: Names of the zones in which it does.
        first: There was no background to compare with; it then counts as motion everywhere.
    """

    anywhere: bool
    zones: frozenset[str]
    first: bool = False


@dataclass(frozen=True)
class Moving:
    """Whether there is motion, and in which zones something has moved since it began."""

    on: bool
    zones: frozenset[str] = frozenset()


class MotionState:
    """Follows what the frames of one camera show: motion is on at once, and off after `QUIET_S` without any.

    Attributes:
        now: None until there were two pictures to compare.
    """

    def __init__(self) -> None:
        self.now: Moving | None = None
        self._last_s = 0.0

    def note(self, motion: Motion, at_s: float) -> None:
        """Take what the frame at `at_s` seconds shows."""
        if motion.first:
            return
        if motion.anywhere or motion.zones:
            self._last_s = at_s
            since_it_began = self.now.zones if self.now else frozenset()
            self.now = Moving(True, since_it_began | motion.zones)
        elif self.now is None or at_s - self._last_s >= QUIET_S:
            self.now = Moving(False)

    def restart_time(self) -> None:
        """The camera was opened again and its time begins at 0."""
        self._last_s = 0.0


class MotionDetector:
    """Compares each picture of one camera with a running mean of the earlier ones.

    Args:
        settings: What counts.
        zones: Polygons by name, in fractions of the pictures that `look` gets.
    """

    def __init__(self, settings: MotionSettings, zones: Mapping[str, Polygon]) -> None:
        self._settings, self._polygons = settings, zones
        self._background: npt.NDArray[np.float32] | None = None
        self._cells: dict[str, npt.NDArray[np.bool_]] = {}
        self._last_s = 0.0

    def look(self, image: npt.NDArray[np.uint8], at_s: float) -> Motion:
        """Compare `image`, uint8 [height, width, 3], taken at `at_s` seconds, and take it into the background."""
        plane = brightness(image)
        if self._background is None or self._background.shape != plane.shape:
            self._background, self._last_s = plane, at_s
            self._cells = {name: covered(polygon, *plane.shape) for name, polygon in self._polygons.items()}
            return Motion(True, frozenset(self._cells), first=True)
        difference = plane - self._background
        difference -= np.median(difference)  # a cloud, a lamp, the camera's own exposure
        changed = np.abs(difference) > self._settings.threshold
        weight = 1.0 - math.exp(-max(0.0, at_s - self._last_s) / ADAPT_S)
        self._background += np.float32(weight) * (plane - self._background)
        self._last_s = at_s
        zones = (name for name, cells in self._cells.items() if self._is_motion(changed[cells]))
        return Motion(self._is_motion(changed), frozenset(zones))

    def restart_time(self) -> None:
        """The camera was opened again and its time begins at 0; the background is kept."""
        self._last_s = 0.0

    def _is_motion(self, changed: npt.NDArray[np.bool_]) -> bool:
        count = int(np.count_nonzero(changed))
        return count > 0 and count >= self._settings.area * changed.size


def brightness(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Mean brightness of the cells of `image`, float32 [rows, columns], about ROWS rows."""
    step = max(1, image.shape[0] // ROWS)
    small = Image.fromarray(np.ascontiguousarray(image)).reduce(step)
    return np.asarray(small, np.float32) @ _LUMA
