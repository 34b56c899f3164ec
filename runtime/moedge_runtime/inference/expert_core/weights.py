"""The weights of one graph, read from its file as the manifest's table says."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from moedge_runtime.bundle import Bundle, Precision, WeightPlace
from moedge_runtime.errors import BundleError
from moedge_runtime.inference.dense_sizes import up
from moedge_runtime.inference.expert_core.library import MatrixView
from moedge_runtime.inference.vision_sizes import READ_ALIGNMENT

Bytes = npt.NDArray[np.uint8]


class GraphWeights:
    """Weights as the graph has them; they stay in memory as long as this does, for the core to read.

    Args:
        bundle: Whose manifest has a table of weights.
        graph: Whose weights are wanted.
        memory: What they are read into; None for some of its own that has room for all.
    """

    def __init__(self, bundle: Bundle, graph: str, memory: ReadMemory | None = None) -> None:
        self._bundle = bundle
        self._graph = graph
        self._places: dict[str, WeightPlace] = {place.name: place for place in bundle.manifest.weights[graph]}
        self._memory = memory or ReadMemory(sum(map(_room, self._places.values())))

    def vector(self, name: str, count: int) -> int:
        """Address of float32 [count]."""
        return self.array(name, "float32", [count])

    def matrix(self, name: str, rows: int, inputs: int, precision: Precision, biased: bool = False) -> MatrixView:
        """The parts of a product's weights, `<name>.weight` and so on."""
        bias = self.vector(f"{name}.bias", rows) if biased else None
        if precision.bits == 32:
            return MatrixView(weight=self.array(f"{name}.weight", "float32", [rows, inputs]), bias=bias)
        blocks = -(-inputs // precision.block_size)
        block_bytes = precision.block_size * precision.bits // 8
        points = [rows, -(-blocks * precision.bits // 8)]
        return MatrixView(
            weight=self.array(f"{name}.weight", "uint8", [rows, blocks, block_bytes]),
            scale=self.array(f"{name}.scale", "float32", [rows, blocks]),
            zero_point=None if precision.symmetric else self.array(f"{name}.zero_point", "uint8", points),
            bias=bias,
        )

    def array(self, name: str, dtype: str, shape: list[int]) -> int:
        """Address of a weight in memory.

        Raises:
            BundleError: It is missing, of another shape or cannot be read.
        """
        place = self._places.get(name)
        if place is None or (place.dtype, place.shape) != (dtype, shape):
            found = "missing" if place is None else f"{place.dtype} {place.shape}"
            raise BundleError(
                f"Weight '{name}' of '{self._graph}' in bundle '{self._bundle.path}' is {found}; {dtype} {shape} is "
                f"needed. Export the bundle again, or compute it with ONNX Runtime (--layers onnxruntime).",
                key="bundle.weights_unusable",
            )
        file, values = self._bundle.file(place.file), self._memory.take(_nbytes(place))
        try:
            with file.open("rb", buffering=0) as source:
                source.seek(place.offset)
                complete = _read_into(source, values)
        except OSError as error:
            raise BundleError(
                f"'{file}' cannot be read: {error}. Check the disk.", key="bundle.file_missing"
            ) from error
        if not complete:
            raise BundleError(
                f"'{file}' ends within weight '{name}'. Copy the bundle again.", key="bundle.file_truncated"
            )
        return int(values.ctypes.data)


class ReadMemory:
    """Memory that weights are read into, and others after them: untouched pages cost more than reading does.

    Args:
        nbytes: Room for weights, each of which begins on a multiple of `READ_ALIGNMENT`.
    """

    def __init__(self, nbytes: int) -> None:
        self._block = np.empty(nbytes, np.uint8)
        self.used = 0

    def take(self, nbytes: int) -> Bytes:
        """So many bytes, which are untouched until the next `clear`."""
        begin = up(self.used, READ_ALIGNMENT)
        self.used = begin + nbytes
        assert self.used <= len(self._block)
        return self._block[begin : self.used]

    def clear(self) -> None:
        """Give it all back."""
        self.used = 0


def _nbytes(place: WeightPlace) -> int:
    return int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize


def _room(place: WeightPlace) -> int:
    return up(_nbytes(place), READ_ALIGNMENT)


def _read_into(source: io.FileIO, values: Bytes) -> bool:
    """Fill `values`; False at the end of the file."""
    view = values.data
    while view:
        count = source.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True
