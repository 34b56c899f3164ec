"""Random polygons that do not cross themselves, and which pixels they touch, told without the code under test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from moedge_runtime.frames.polygon import Polygon, parse_polygon

SAMPLES = (np.arange(5) + 0.5) / 5
"""Points a pixel, along each axis, that are looked at."""


def random_polygon(rng: np.random.Generator) -> Polygon:
    """A star-shaped polygon: corners by growing angle around a point, so that no two sides meet; sometimes a sliver."""
    while True:
        corners = int(rng.integers(3, 12))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() >= np.pi:
            continue  # the centre would be outside
        centre, scale = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.9, 2)
        radii = rng.uniform(0.1, 1, corners)
        points = centre + scale * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        try:
            return parse_polygon(np.clip(points, 0, 1).tolist())
        except ValueError:
            continue  # clipping has made it flat or let two sides touch


def touched(polygon: Polygon, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of which one of 25 points is inside of `polygon` (crossing number) or that a side passes through, bool
    [height, width].
    """
    xs = ((np.arange(width)[:, None] + SAMPLES) / width).ravel()
    ys = ((np.arange(height)[:, None] + SAMPLES) / height).ravel()
    inside = np.zeros((ys.size, xs.size), bool)
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        rows = (y0 <= ys) != (y1 <= ys)
        if y1 != y0:
            at = x0 + (ys - y0) / (y1 - y0) * (x1 - x0)
            inside ^= rows[:, None] & (xs[None, :] < at[:, None])
    points = len(SAMPLES)
    pixels: npt.NDArray[np.bool_] = inside.reshape(height, points, width, points).any(axis=(1, 3))
    steps = np.linspace(0, 1, 8 * max(height, width))[:, None]
    for begin, end in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        along = (1 - steps) * begin + steps * end
        columns, rows = (np.minimum(along * (width, height), (width - 1, height - 1))).astype(int).T
        pixels[rows, columns] = True
    return pixels
