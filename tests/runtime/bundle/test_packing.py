"""Records hold, value by value, what docs/bundle-format.md says, and give the row-major arrays back unchanged."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from moedge_runtime.bundle import ExpertLayout, Precision

PRECISIONS = [
    Precision.model_validate({"bits": bits, "block_size": block_size, "symmetric": symmetric})
    for bits in (4, 8)
    for block_size in (32, 64, 128)
    for symmetric in (True, False)
] + [Precision(bits=32)]

SHAPES = [(256, 128), (64, 32), (48, 20), (2, 2), (34, 130), (96, 18)]
"""Hidden and intermediate sizes: whole tiles and blocks, then everything that may be left over."""


def name_of(precision: Precision) -> str:
    return f"{precision.bits}-{precision.block_size}-{'symmetric' if precision.symmetric else 'asymmetric'}"


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def shape(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=PRECISIONS, ids=name_of)
def layout(request: pytest.FixtureRequest, shape: tuple[int, int]) -> ExpertLayout:
    return ExpertLayout(*shape, request.param)


def random_arrays(layout: ExpertLayout) -> dict[str, np.ndarray]:
    """Row-major arrays of random integers and scales; where zero points are odd in number, the spare nibble is 0."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for array in layout.row_major:
        if array.dtype == np.uint8:
            arrays[array.name] = rng.integers(0, 256, array.shape, np.uint8)
        else:
            arrays[array.name] = rng.normal(0, 1, array.shape).astype(array.dtype)
    if layout.precision.bits == 4 and not layout.precision.symmetric:
        for matrix in ("fc1", "fc2"):
            if arrays[f"{matrix}.scale"].shape[1] % 2:
                arrays[f"{matrix}.zero_point"][:, -1] &= 0x0F
    return arrays


def packed(layout: ExpertLayout) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A record that held something else before, and the arrays that were packed into it."""
    record, arrays = np.full(layout.record_bytes, 0xA5, np.uint8), random_arrays(layout)
    layout.pack(arrays, record)
    return record, arrays


def test_unpack_gives_back_what_was_packed(layout: ExpertLayout) -> None:
    record, arrays = packed(layout)
    unpacked = layout.unpack(record)
    assert list(unpacked) == [section.name for section in layout.sections] == list(arrays)
    for name, array in arrays.items():
        assert unpacked[name].dtype == array.dtype, name
        assert unpacked[name].flags.c_contiguous, name
        np.testing.assert_array_equal(unpacked[name], array, err_msg=name)


def test_a_record_that_cannot_be_written_unpacks_and_the_result_is_a_copy(layout: ExpertLayout) -> None:
    record, arrays = packed(layout)
    unpacked = layout.unpack(np.frombuffer(record.tobytes(), np.uint8))
    for name, array in unpacked.items():
        assert array.flags.writeable, name
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    for array in layout.unpack(record).values():
        array[...] = 0
    np.testing.assert_array_equal(layout.unpack(record)["fc2.weight"], arrays["fc2.weight"])


def test_a_record_has_nothing_but_its_arrays(layout: ExpertLayout) -> None:
    record, _ = packed(layout)
    for section in layout.sections:
        record[section.offset : section.offset + section.nbytes] = 0
    assert not record.any()


@pytest.mark.parametrize("wrong", ["missing", "extra", "shape", "dtype"])
def test_other_arrays_than_the_layouts_are_refused(wrong: str) -> None:
    layout = ExpertLayout(64, 32, Precision(bits=4, block_size=32))
    arrays = random_arrays(layout)
    if wrong == "missing":
        del arrays["fc2.scale"]
    elif wrong == "extra":
        arrays["fc1.zero_point"] = np.zeros((64, 1), np.uint8)
    elif wrong == "shape":
        arrays["fc1.weight"] = arrays["fc1.weight"][:1]
    else:
        arrays["fc1.scale"] = arrays["fc1.scale"].astype(np.float32)
    with pytest.raises(AssertionError, match="an expert has the arrays"):
        layout.pack(arrays, np.zeros(layout.record_bytes, np.uint8))


class Documented:
    """The format's page again, one value at a time and sharing no code with the packing: raw bytes against formulas."""

    def __init__(self, layout: ExpertLayout, matrix: str, record: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        self.matrix, self.arrays, self.bits = matrix, arrays, layout.precision.bits
        hidden, inner = layout.hidden_size, layout.intermediate_size
        self.gated = matrix == "fc1"
        self.outputs = inner if self.gated else hidden
        self.inputs = hidden if self.gated else inner
        self.tiles = -(-inner // 16) if self.gated else -(-hidden // 32)
        self.block = layout.precision.block_size
        self.blocks = -(-self.inputs // self.block)
        offsets = {section.name: (section.offset, section.nbytes) for section in layout.sections}
        self.bytes = {
            name.removeprefix(f"{matrix}."): record[start : start + count].tobytes()
            for name, (start, count) in offsets.items()
            if name.startswith(matrix)
        }

    def rows(self) -> Iterator[tuple[int, int, int, int | None]]:
        """Tile, half, row in the half, and the row-major row that lies there."""
        for t, h, r in product(range(self.tiles), range(2), range(16)):
            output = 16 * t + r if self.gated else 32 * t + 16 * h + r
            row = None if output >= self.outputs else 2 * output + h if self.gated else output
            yield t, h, r, row

    def integer(self, kind: str, row: int | None, place: int, count: int) -> int:
        """Integer `place` of `count` of a row-major row; 0 where there is none."""
        if row is None or place >= count:
            return 0
        array = self.arrays[f"{self.matrix}.{kind}"]
        if self.bits == 8:
            return int(array[row, place])
        return int(array[row, place // 2]) >> 4 * (place % 2) & 15

    def weights(self) -> bytes:
        """The bytes of the section `weight`."""
        per_chunk = 8 if self.bits == 4 else 4
        chunks = self.block // per_chunk
        content = bytearray(self.tiles * self.blocks * 2 * chunks * 16 * 4)
        for (t, h, r, row), k, c, j in product(self.rows(), range(self.blocks), range(chunks), range(4)):
            place = ((((t * self.blocks + k) * chunks + c) * 2 + h) * 16 + r) * 4 + j
            first = k * self.block + per_chunk * c + j
            content[place] = self.integer("weight", row, first, self.inputs)
            if self.bits == 4:
                content[place] |= self.integer("weight", row, first + 4, self.inputs) << 4
        return bytes(content)

    def scales(self) -> bytes:
        """The bytes of the section `scale`."""
        content = np.zeros(self.tiles * self.blocks * 2 * 16, np.float16)
        for (t, h, r, row), k in product(self.rows(), range(self.blocks)):
            if row is not None:
                content[((t * self.blocks + k) * 2 + h) * 16 + r] = self.arrays[f"{self.matrix}.scale"][row, k]
        return content.tobytes()

    def zero_points(self) -> bytes:
        """The bytes of the section `zero_point`."""
        content = bytearray(self.tiles * self.blocks * 16 * (1 if self.bits == 4 else 2))
        for (t, h, r, row), k in product(self.rows(), range(self.blocks)):
            value = self.integer("zero_point", row, k, self.blocks)
            if self.bits == 4:
                content[(t * self.blocks + k) * 16 + r] |= value << 4 * h
            else:
                content[((t * self.blocks + k) * 2 + h) * 16 + r] = value
        return bytes(content)

    def floats(self) -> bytes:
        """The bytes of the section `weight` at 32 bits."""
        content = np.zeros(self.tiles * self.inputs * 2 * 16, np.float32)
        for (t, h, r, row), i in product(self.rows(), range(self.inputs)):
            if row is not None:
                content[((t * self.inputs + i) * 2 + h) * 16 + r] = self.arrays[f"{self.matrix}.weight"][row, i]
        return content.tobytes()


@pytest.mark.parametrize("shape", [(64, 48), (34, 20)], indirect=True, ids=["even", "odd"])
@pytest.mark.parametrize("matrix", ["fc1", "fc2"])
def test_every_value_lies_where_the_documentation_says(layout: ExpertLayout, matrix: str) -> None:
    documented = Documented(layout, matrix, *packed(layout))
    if layout.precision.bits == 32:
        wanted = {"weight": documented.floats()}
    else:
        wanted = {"weight": documented.weights(), "scale": documented.scales()}
        if not layout.precision.symmetric:
            wanted["zero_point"] = documented.zero_points()
    assert list(documented.bytes) == list(wanted)
    for kind, content in wanted.items():
        assert documented.bytes[kind] == content, kind
