"""The record of one expert in experts.bin: where each section lies, how it is filled and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle.manifest import ExpertsInfo, Precision, SectionInfo
from moedge_runtime.bundle.packing import Array, ExpertArray, ExpertMatrix

ALIGNMENT_BYTES = 4096
"""Every section starts on this boundary, the largest logical block size of the flash we ship to: O_DIRECT needs it."""


@dataclass(frozen=True)
class Section(ExpertArray):
    """One packed array of a record, at `offset` bytes from its start; `nbytes` leaves out the padding behind it."""

    offset: int


@dataclass(frozen=True)
class ExpertLayout:
    """Layout of the records of one experts.bin, and of the row-major arrays that hold the same numbers.

    fc1 has 2 * `intermediate_size` rows of `hidden_size` inputs, gate and up rows interleaved (gate 0, up 0, …). fc2
    has `hidden_size` rows of `intermediate_size` inputs. The row-major arrays are those of com.microsoft.QMoE with
    swiglu_fusion=1 (onnxruntime 1.32, contrib_ops moe_quantization), which an inline bundle stores as they are.
    """

    hidden_size: int
    intermediate_size: int
    precision: Precision

    @property
    def matrices(self) -> tuple[ExpertMatrix, ExpertMatrix]:
        """The matrices fc1 and fc2."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return (
            ExpertMatrix("fc1", 2 * inner, hidden, interleaved=True, precision=self.precision),
            ExpertMatrix("fc2", hidden, inner, interleaved=False, precision=self.precision),
        )

    @property
    def row_major(self) -> tuple[ExpertArray, ...]:
        """The row-major arrays, in the order of the sections of the same names."""
        return tuple(array for matrix in self.matrices for array in matrix.row_major())

    @property
    def sections(self) -> tuple[Section, ...]:
        """All sections of a record in file order; a quantized record has scales, an asymmetric one zero points too."""
        sections: list[Section] = []
        offset = 0
        for array in (array for matrix in self.matrices for array in matrix.packed()):
            sections.append(Section(array.name, array.dtype, array.shape, offset))
            offset += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return tuple(sections)

    @property
    def record_bytes(self) -> int:
        """Length of a record, a multiple of `ALIGNMENT_BYTES`."""
        last = self.sections[-1]
        return last.offset + -(-last.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def view(self, record: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """Packed arrays of one record by section name, without copying.

        Args:
            record: uint8 [record_bytes].
        """
        return {
            section.name: record[section.offset : section.offset + section.nbytes]
            .view(section.dtype)
            .reshape(section.shape)
            for section in self.sections
        }

    def pack(self, arrays: Mapping[str, Array], record: npt.NDArray[np.uint8]) -> None:
        """Write the whole of `record`, padding included.

        Args:
            arrays: By name, exactly those that `row_major` lists.
            record: uint8 [record_bytes].
        """
        given = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        wanted = {array.name: (array.dtype, array.shape) for array in self.row_major}
        assert given == wanted, f"an expert has the arrays {wanted}, not {given}"
        record[...] = 0
        views = self.view(record)
        for matrix in self.matrices:
            matrix.pack(arrays, views)

    def unpack(self, record: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """Copies of the row-major arrays by name, as `pack` took them.

        Args:
            record: uint8 [record_bytes].
        """
        views = self.view(record)
        return {name: array for matrix in self.matrices for name, array in matrix.unpack(views).items()}

    def section_infos(self) -> list[SectionInfo]:
        """The sections as the manifest lists them."""
        return [
            SectionInfo.model_validate({"name": s.name, "offset": s.offset, "nbytes": s.nbytes}) for s in self.sections
        ]

    def matches(self, info: ExpertsInfo) -> bool:
        """Whether the manifest describes records of exactly this layout."""
        return info.record_bytes == self.record_bytes and info.sections == self.section_infos()
