"""Where the patches of a picture lie: their learned positions and their rotary embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.positions import Grid

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PatchPlaces:
    """Row and column, int64 [P], of each patch within its frame.

    Patches come frame by frame, merge block by merge block. Source: transformers 5.23, vision_utils.py,
    get_vision_position_ids and get_vision_interpolation_indices_and_weights.
    """

    rows: Ints
    columns: Ints
    height: int
    width: int

    @classmethod
    def of(cls, grid: Grid, merge_size: int) -> PatchPlaces:
        """Those of a picture.

        Args:
            grid: Patches in time, height and width.
            merge_size: Side of a merge block, which divides height and width.
        """
        frames, height, width = grid
        shape = (frames, height // merge_size, merge_size, width // merge_size, merge_size)
        places = np.arange(height * width).reshape(height, width)
        places = np.broadcast_to(places.reshape(shape[1:]), shape).transpose(0, 1, 3, 2, 4).reshape(-1)
        return cls(places // width, places % width, height, width)

    def corners(self, side: int) -> tuple[npt.NDArray[np.uint32], FloatArray]:
        """Learned positions that those of the patches lie between, bilinear with aligned corners.

        Args:
            side: Of the square grid of learned positions.

        Returns:
            Their indices, uint32 [P, 4], and how much each of them counts, float32 [P, 4].
        """
        (top, bottom), down = _taps(self.rows, self.height, side)
        (left, right), along = _taps(self.columns, self.width, side)
        indices = [row * side + column for row in (top, bottom) for column in (left, right)]
        shares = [row * column for row in (1 - down, down) for column in (1 - along, along)]
        return np.stack(indices, axis=1).astype(np.uint32), np.stack(shares, axis=1)

    def cos_sin(self, head_dim: int, rope_theta: float) -> tuple[FloatArray, FloatArray]:
        """Rotary embedding, float32 [P, head_dim / 2] each: the row's angles, then the column's."""
        axis_size = head_dim // 2
        frequencies = (rope_theta ** -(np.arange(0, axis_size, 2) / axis_size)).astype(np.float32)
        angles = [np.multiply.outer(place.astype(np.float32), frequencies) for place in (self.rows, self.columns)]
        both = np.concatenate(angles, axis=1)
        return np.cos(both), np.sin(both)


def _taps(places: Ints, size: int, side: int) -> tuple[tuple[Ints, Ints], FloatArray]:
    """The two learned positions around each place along one axis, and how much the second counts."""
    source = places.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(source).astype(np.int64)
    return (low, np.minimum(low + 1, side - 1)), source - low.astype(np.float32)
