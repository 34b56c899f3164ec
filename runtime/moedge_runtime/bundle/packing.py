"""The two forms of one expert matrix: row-major as com.microsoft.QMoE takes it, and packed as experts.bin has it.

docs/bundle-format.md, "experts.bin", gives the packed form value by value. At every precision packing is a
transposition of words of four bytes, which hold eight inputs of a row at 4 bits, four at 8 bits, one at 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle.manifest import Precision

HALF_ROWS = 16
"""Rows of half a tile: one 64-byte load holds four bytes of each."""

TILE_ROWS = 2 * HALF_ROWS

WORD = np.dtype("<u4")

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class ExpertArray:
    """Name, type and shape of one array of an expert."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length of the data."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class ExpertMatrix:
    """One matrix [`rows`, `inputs`] of an expert.

    Attributes:
        name: `fc1` or `fc2`.
        rows: Outputs.
        inputs: Length of a row; even at 4 bits.
        interleaved: Whether the halves of a tile are its even and its odd rows, not its first and its last sixteen.
        precision: How the weights are stored.
    """

    name: str
    rows: int
    inputs: int
    interleaved: bool
    precision: Precision

    @property
    def tiles(self) -> int:
        """Tiles of 32 rows; the last one may be padded."""
        return -(-self.rows // TILE_ROWS)

    @property
    def blocks(self) -> int:
        """Blocks of a row, the last one maybe padded; at 32 bits each input is one."""
        return self.inputs if self.precision.bits == 32 else -(-self.inputs // self.precision.block_size)

    @property
    def block_words(self) -> int:
        """Words of a row's block."""
        return 1 if self.precision.bits == 32 else self.precision.block_size * self.precision.bits // 32

    def row_major(self) -> list[ExpertArray]:
        """The arrays as QMoE takes them: values two a byte along the row at 4 bits, the first in the low nibble."""
        if self.precision.bits == 32:
            return [ExpertArray(f"{self.name}.weight", np.dtype(np.float32), (self.rows, self.inputs))]
        per_byte = 8 // self.precision.bits
        return self._quantized(
            (self.rows, self.inputs // per_byte), (self.rows, self.blocks), (self.rows, -(-self.blocks // per_byte))
        )

    def packed(self) -> list[ExpertArray]:
        """The arrays as they lie in a record."""
        halves = (self.tiles, self.blocks, 2, HALF_ROWS)
        if self.precision.bits == 32:
            return [ExpertArray(f"{self.name}.weight", np.dtype(np.float32), halves)]
        weight = (self.tiles, self.blocks, self.block_words, 2, HALF_ROWS, WORD.itemsize)
        return self._quantized(weight, halves, (self.tiles, self.blocks, HALF_ROWS) if self._is_4_bit else halves)

    def pack(self, arrays: Mapping[str, Array], views: Mapping[str, Array]) -> None:
        """Write all of the packed arrays `views`, padding included, from the row-major `arrays`."""
        weight = self._whole_tiles(arrays[f"{self.name}.weight"], self.blocks * self.block_words * WORD.itemsize)
        words: Words = weight.view(WORD)
        if self._is_4_bit:
            words = _exchange(_exchange(words, *MIDDLE_BYTES), *MIDDLE_NIBBLES)
        self._words_of(views[f"{self.name}.weight"])[...] = self._tiled(words)
        if self.precision.bits == 32:
            return
        scale = self._whole_tiles(arrays[f"{self.name}.scale"], self.blocks * 2)
        views[f"{self.name}.scale"][...] = self._tiled(scale)[..., 0, :]
        if self.precision.symmetric:
            return
        zeros = arrays[f"{self.name}.zero_point"].view(np.uint8)
        if self._is_4_bit:
            zeros = _nibbles(zeros, axis=-1).reshape(self.rows, -1)[:, : self.blocks]
        zeros = self._tiled(self._whole_tiles(zeros, self.blocks))[..., 0, :]
        views[f"{self.name}.zero_point"][...] = zeros[:, :, 0] | zeros[:, :, 1] << 4 if self._is_4_bit else zeros

    def unpack(self, views: Mapping[str, Array]) -> dict[str, Array]:
        """The row-major arrays, copied out of the packed arrays `views`."""
        weight = self.row_major()[0]
        words: Words = self._untiled(self._words_of(views[weight.name]))
        if self._is_4_bit:
            words = _exchange(_exchange(words, *MIDDLE_NIBBLES), *MIDDLE_BYTES)
        arrays: dict[str, Array] = {weight.name: np.ascontiguousarray(words.view(weight.dtype)[:, : weight.shape[1]])}
        if self.precision.bits == 32:
            return arrays
        arrays[f"{self.name}.scale"] = self._untiled(views[f"{self.name}.scale"][..., None, :])
        if self.precision.symmetric:
            return arrays
        zeros = views[f"{self.name}.zero_point"].view(np.uint8)
        if self._is_4_bit:
            zeros = self._untiled(_nibbles(zeros, axis=2)[..., None, :])
            zeros = np.pad(zeros, ((0, 0), (0, self.blocks % 2)))
            arrays[f"{self.name}.zero_point"] = zeros[:, 0::2] | zeros[:, 1::2] << 4
        else:
            arrays[f"{self.name}.zero_point"] = self._untiled(zeros[..., None, :])
        return arrays

    @property
    def _is_4_bit(self) -> bool:
        return self.precision.bits == 4

    def _quantized(
        self, weight: tuple[int, ...], scale: tuple[int, ...], zero_point: tuple[int, ...]
    ) -> list[ExpertArray]:
        arrays = [
            ExpertArray(f"{self.name}.weight", np.dtype(np.uint8), weight),
            ExpertArray(f"{self.name}.scale", np.dtype(np.float16), scale),
        ]
        if not self.precision.symmetric:
            arrays.append(ExpertArray(f"{self.name}.zero_point", np.dtype(np.uint8), zero_point))
        return arrays

    def _words_of(self, weight: Array) -> Words:
        """A view of the packed weights as words [tiles, blocks, 2, block_words, 16]."""
        words = weight.view(WORD).reshape(self.tiles, self.blocks, self.block_words, 2, HALF_ROWS)
        halves: Words = words.swapaxes(2, 3)
        return halves

    def _whole_tiles(self, array: Array, row_bytes: int) -> npt.NDArray[Any]:
        """The array [rows, …] with zeros up to whole tiles of rows of `row_bytes`."""
        rows, columns = self.tiles * TILE_ROWS, row_bytes // array.dtype.itemsize
        if array.shape == (rows, columns):
            return np.ascontiguousarray(array)
        return np.pad(array, ((0, rows - array.shape[0]), (0, columns - array.shape[1])))

    def _tiled(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Row-major values [tiles × 32, blocks × n] as [tiles, blocks, 2, n, 16], not copied."""
        if self.interleaved:
            rows = values.reshape(self.tiles, HALF_ROWS, 2, self.blocks, -1).swapaxes(1, 2)
        else:
            rows = values.reshape(self.tiles, 2, HALF_ROWS, self.blocks, -1)
        return np.transpose(rows, (0, 3, 1, 4, 2))

    def _untiled(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Row-major values [rows, blocks × n] of [tiles, blocks, 2, n, 16], copied."""
        rows = np.transpose(values, (0, 2, 4, 1, 3))
        if self.interleaved:
            rows = rows.swapaxes(1, 2)
        row_major: npt.NDArray[Any] = rows.copy().reshape(self.tiles * TILE_ROWS, -1)
        return row_major[: self.rows]


MIDDLE_BYTES = (np.uint32(0x0000FF00), np.uint32(8))
MIDDLE_NIBBLES = (np.uint32(0x00F000F0), np.uint32(4))
"""Arguments of `_exchange`. Bytes first, then nibbles turns the inputs 01234567 of a word, from its lowest nibble on,
into 04152637, so that the low nibbles are the inputs 0 to 3; the reverse order turns them back."""


def _exchange(words: Words, mask: np.uint32, shift: np.uint32) -> Words:
    """Exchange the bits under `mask` with those `shift` places above (Warren, Hacker's Delight, 7-1)."""
    different: Words = np.bitwise_and(words ^ (words >> shift), mask)
    exchanged: Words = words ^ different ^ (different << shift)
    return exchanged


def _nibbles(values: Bytes, axis: int) -> Bytes:
    """Low and high nibbles of each byte along a new axis of two."""
    return np.stack((values & 0x0F, values >> 4), axis=axis)
