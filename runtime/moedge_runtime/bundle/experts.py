"""The record of one expert in experts.bin: where each section lies and what shape it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle.manifest import ExpertsInfo, Precision, SectionInfo

ALIGNMENT_BYTES = 4096
"""Every section starts on this boundary, the largest logical block size of the flash we ship to: O_DIRECT needs it."""


@dataclass(frozen=True)
class Section:
    """One array of a record, at `offset` bytes from its start."""

    name: str
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length of the data, without the padding up to the next section."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class ExpertLayout:
    """Layout of the records of one experts.bin.

    fc1 has 2 * `intermediate_size` rows of `hidden_size` inputs, gate and up rows interleaved (gate 0, up 0, …). fc2
    has `hidden_size` rows of `intermediate_size` inputs. This is the order of com.microsoft.QMoE with swiglu_fusion=1
    (onnxruntime 1.32, contrib_ops moe_quantization), so both bundle forms store the same numbers.
    Four-bit weights are packed two a byte along the inputs, the first one in the low nibble.
    """

    hidden_size: int
    intermediate_size: int
    precision: Precision

    @property
    def sections(self) -> tuple[Section, ...]:
        """All sections of a record in file order; a quantized record has scales, an asymmetric one zero points too."""
        sections: list[Section] = []
        offset = 0
        for name, dtype, shape in self._arrays():
            section = Section(name, offset, dtype, shape)
            sections.append(section)
            offset += -(-section.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return tuple(sections)

    @property
    def record_bytes(self) -> int:
        """Length of a record, a multiple of `ALIGNMENT_BYTES`."""
        last = self.sections[-1]
        return last.offset + -(-last.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    def view(self, record: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
        """Arrays of one record by section name, without copying.

        Args:
            record: uint8 [record_bytes].
        """
        return {
            section.name: record[section.offset : section.offset + section.nbytes]
            .view(section.dtype)
            .reshape(section.shape)
            for section in self.sections
        }

    def section_infos(self) -> list[SectionInfo]:
        """The sections as the manifest lists them."""
        return [
            SectionInfo.model_validate({"name": s.name, "offset": s.offset, "nbytes": s.nbytes}) for s in self.sections
        ]

    def matches(self, info: ExpertsInfo) -> bool:
        """Whether the manifest describes records of exactly this layout."""
        return info.record_bytes == self.record_bytes and info.sections == self.section_infos()

    def _arrays(self) -> list[tuple[str, np.dtype[np.generic], tuple[int, ...]]]:
        arrays: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = []
        for name, rows, inputs in (
            ("fc1", 2 * self.intermediate_size, self.hidden_size),
            ("fc2", self.hidden_size, self.intermediate_size),
        ):
            precision = self.precision
            if precision.bits == 32:
                arrays.append((f"{name}.weight", np.dtype(np.float32), (rows, inputs)))
                continue
            blocks = -(-inputs // precision.block_size)
            per_byte = 8 // precision.bits
            arrays.append((f"{name}.weight", np.dtype(np.uint8), (rows, inputs // per_byte)))
            arrays.append((f"{name}.scale", np.dtype(np.float16), (rows, blocks)))
            if not precision.symmetric:
                arrays.append((f"{name}.zero_point", np.dtype(np.uint8), (rows, -(-blocks // per_byte))))
        return arrays
