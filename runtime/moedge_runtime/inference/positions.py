"""Positions of interleaved MRoPE: three axes a token, and their rotary cosines and sines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from moedge_runtime.inference.dequantize import FloatArray

Grid = tuple[int, int, int]
"""Patches of one image in time, height and width."""


def image_tokens(grid: Grid, merge_size: int) -> int:
    """Tokens that an image takes in the prompt: patches merged `merge_size` × `merge_size`."""
    return grid[0] * grid[1] * grid[2] // merge_size**2


def mrope_positions(
    tokens: Sequence[int], image_token: int, grids: Sequence[Grid], merge_size: int
) -> npt.NDArray[np.int64]:
    """Position of every token of a prompt.

    Text counts up on all three axes together. An image's tokens start at the next position p and lie at (p, p + row,
    p + column); the text after it goes on from p + the longer side of its merged grid.
    Source: transformers 5.23, Qwen3VLMoeModel.get_rope_index.

    Args:
        tokens: The prompt, with `image_token` repeated for every merged patch.
        image_token: Id of `<|image_pad|>`.
        grids: The images' grids in the prompt's order.
        merge_size: Patches merged along each side.

    Returns:
        int64 [3, len(tokens)]: temporal, height, width. A decoded token's position, on all axes, is the largest of
        these + 1, then + 2, and so on.
    """
    positions = np.empty((3, len(tokens)), np.int64)
    remaining = iter(grids)
    index, position = 0, 0
    while index < len(tokens):
        if tokens[index] != image_token:
            positions[:, index] = position
            index, position = index + 1, position + 1
            continue
        frames, rows, columns = next(remaining)
        rows, columns = rows // merge_size, columns // merge_size
        lattice = np.indices((frames, rows, columns)).reshape(3, -1) + position
        positions[:, index : index + lattice.shape[1]] = lattice
        index, position = index + lattice.shape[1], position + max(rows, columns)
    return positions


class RotaryTable:
    """Cosines and sines of the rotary embedding at any positions."""

    def __init__(self, head_dim: int, rope_theta: float, mrope_section: tuple[int, int, int]) -> None:
        exponents = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
        self._frequencies = (rope_theta**-exponents).astype(np.float32)
        axes = np.zeros(head_dim // 2, np.int64)
        for axis in (1, 2):
            axes[axis : 3 * mrope_section[axis] : 3] = axis
        self._axes = axes

    def cos_sin(self, positions: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Rotary embedding of some tokens, frequencies interleaved over the axes (docs/bundle-format.md, "Graphs").

        Args:
            positions: int64 [3, tokens].

        Returns:
            Two arrays float32 [tokens, head_dim / 2].
        """
        angles = positions[self._axes].T.astype(np.float32) * self._frequencies
        return np.cos(angles), np.sin(angles)
