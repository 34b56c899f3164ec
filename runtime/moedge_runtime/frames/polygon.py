"""Polygons and rectangles in a picture, as fractions of its width and height, and the pixels they cover. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Point = tuple[float, float]
Polygon = tuple[Point, ...]
"""Corners in order, x to the right and y downwards, each 0 to 1; it does not cross itself."""

MAX_CORNERS = 64
MIN_AREA = 1e-6
"""Of the picture: a third of a pixel of 640x480."""

_FORM = "write corners as [[x, y], [x, y], ...] or 'x,y,x,y,...', fractions of width and height from 0 to 1"


@dataclass(frozen=True)
class Box:
    """A rectangle in fractions of a picture."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a picture that it covers, one at least."""
        return _span(self.top, self.bottom, height), _span(self.left, self.right, width)


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def parse_polygon(value: Any) -> Polygon:
    """A polygon from pairs of numbers or a text of numbers.

    Raises:
        ValueError: It is none, has fewer than 3 or more than MAX_CORNERS corners, leaves the picture, covers nothing or
            crosses itself.
    """
    points = _points(value)
    if not 3 <= len(points) <= MAX_CORNERS:
        raise ValueError(f"a polygon has 3 to {MAX_CORNERS} corners, this one has {len(points)}; {_FORM}")
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError(f"the corner ({x:g}, {y:g}) is outside the picture; {_FORM}")
    if sum(abs(_turn(points[0], a, b)) for a, b in pairwise(points[1:])) / 2 < MIN_AREA:
        raise ValueError("the polygon covers nothing; its corners are on one line")
    crossing = _crossing(points)
    if crossing is not None:
        raise ValueError(
            f"the sides that begin at corners {crossing[0] + 1} and {crossing[1] + 1} meet: a polygon that crosses or "
            "touches itself leaves open what is inside; list the corners in order around it, or write two polygons"
        )
    return points


def parse_box(value: Any) -> Box:
    """A rectangle from [left, top, right, bottom] or such a text.

    Raises:
        ValueError: It is none, leaves the picture, or covers nothing.
    """
    form = "write [left, top, right, bottom], fractions of width and height from 0 to 1"
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 4:
        raise ValueError(form)
    left, top, right, bottom = numbers
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"left must be less than right and top less than bottom; {form}")
    return Box(left, top, right, bottom)


def bounds(polygons: Sequence[Polygon]) -> Box:
    """The smallest rectangle around `polygons`."""
    xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def within(polygon: Polygon, box: Box) -> Polygon:
    """`polygon` in fractions of the part of the picture that `box` is; corners may lie outside of 0 to 1."""
    width, height = box.right - box.left, box.bottom - box.top
    return tuple(((x - box.left) / width, (y - box.top) / height) for x, y in polygon)


def overlaps(polygon: Polygon, box: Box) -> bool:
    """Whether the rectangle around `polygon` and `box` have an area in common."""
    around = bounds([polygon])
    return min(around.right, box.right) > max(around.left, box.left) and min(around.bottom, box.bottom) > max(
        around.top, box.top
    )


def covered(polygon: Polygon, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Which pixels of a picture `polygon` touches, bool [height, width].

    Never too few: every pixel that it covers in part is among them, and so are their neighbours, into which a video
    codec's coarser planes of colour may have carried what is inside.
    """
    corners = np.array(polygon) * (width, height)
    pixels = np.zeros((height, width + 1), bool)
    for begin, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        _toggle_behind(pixels, begin, end)
    pixels = np.logical_xor.accumulate(pixels, axis=1)[:, :width]
    for begin, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        _mark_passed(pixels, begin, end)
    grown = Image.fromarray(pixels.view(np.uint8)).filter(ImageFilter.MaxFilter(3))
    return np.asarray(grown).astype(bool)


def _toggle_behind(pixels: npt.NDArray[np.bool_], begin: npt.NDArray[Any], end: npt.NDArray[Any]) -> None:
    """Toggle in each row the first pixel whose centre has the side on its left: even-odd rule, at the centres."""
    (x0, y0), (x1, y1) = begin, end
    height, width = pixels.shape[0], pixels.shape[1] - 1
    centres = np.arange(height) + 0.5
    rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
    at = x0 + (centres[rows] - y0) / (y1 - y0) * (x1 - x0) if rows.size else centres[rows]
    columns = np.clip(np.ceil(at - 0.5), 0, width).astype(np.intp)
    pixels[rows, columns] ^= True


def _mark_passed(pixels: npt.NDArray[np.bool_], begin: npt.NDArray[Any], end: npt.NDArray[Any]) -> None:
    """Mark the pixels that the side passes through: between two lines of the grid it is in one pixel."""
    cuts = [np.array([0.0, 1.0])]
    for first, last in zip(begin, end, strict=True):
        low, high = sorted((first, last))
        lines = np.arange(np.ceil(low), np.floor(high) + 1)
        if first != last:
            cuts.append((lines - first) / (last - first))
    steps = np.unique(np.concatenate(cuts))
    middles = (steps[:-1] + steps[1:])[:, None] / 2
    columns, rows = (begin + middles * (end - begin)).astype(np.intp).T
    pixels[rows.clip(0, pixels.shape[0] - 1), columns.clip(0, pixels.shape[1] - 1)] = True


def _span(begin: float, end: float, length: int) -> slice:
    first = min(int(begin * length + 1e-9), length - 1)
    return slice(first, max(first + 1, min(length, int(np.ceil(end * length - 1e-9)))))


def _points(value: Any) -> Polygon:
    if isinstance(value, str):
        numbers = _numbers(value)
        if numbers is None or len(numbers) % 2:
            raise ValueError(_FORM)
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if not isinstance(value, Sequence):
        raise ValueError(_FORM)
    points = []
    for pair in value:
        numbers = None if isinstance(pair, str) else _numbers(pair)
        if numbers is None or len(numbers) != 2:
            raise ValueError(_FORM)
        points.append((numbers[0], numbers[1]))
    return tuple(points)


def _numbers(value: Any) -> list[float] | None:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        return None
    numbers = []
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | float | str):
            return None
        try:
            number = float(part)
        except (ValueError, OverflowError):
            return None
        if not np.isfinite(number):
            return None
        numbers.append(number)
    return numbers


def _crossing(points: Polygon) -> tuple[int, int] | None:
    """Two sides that meet where they should not, by the numbers of their first corners from 0."""
    count = len(points)
    sides = [(points[index], points[(index + 1) % count]) for index in range(count)]
    for one, other in combinations(range(count), 2):
        if other == one + 1 or (one == 0 and other == count - 1):
            shared = 1 if other == one + 1 else 0
            tip_one, tip_other = (sides[one][0], sides[other][1]) if shared else (sides[one][1], sides[other][0])
            joint = sides[one][shared]
            if _turn(tip_one, joint, tip_other) == 0 and _same_way(joint, tip_one, tip_other):
                return one, other  # the second side runs back over the first
        elif _meet(*sides[one], *sides[other]):
            return one, other
    return None


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _same_way(joint: Point, a: Point, b: Point) -> bool:
    return (a[0] - joint[0]) * (b[0] - joint[0]) + (a[1] - joint[1]) * (b[1] - joint[1]) >= 0


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments ab and cd have a point in common."""
    turns = (_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b))
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(turn == 0 and _between(*end) for turn, end in zip(turns, ends, strict=True))


def _between(a: Point, b: Point, point: Point) -> bool:
    return min(a[0], b[0]) <= point[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= point[1] <= max(a[1], b[1])
