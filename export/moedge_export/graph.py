"""Builds ONNX graphs node by node and streams their weights to disk while they are built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
MICROSOFT_OPSET = 1
IR_VERSION = 10
MICROSOFT = "com.microsoft"

INLINE_WEIGHTS_BYTES = 1 << 20
"""Weights up to this size stay inside the ONNX file (docs/bundle-format.md)."""

WEIGHT_ALIGNMENT_BYTES = 4096
"""Weights start on a page, so that ONNX Runtime can map instead of copy them."""

Array = npt.NDArray[Any]
Shape = list[int | str]


class WeightSlot:
    """The place of one weight in the data file, written once or piece by piece along its first axis."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._path = path
        self._offset = offset
        self._row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._dtype = dtype
        self._row_shape = shape[1:]

    def write(self, start: int, rows: Array) -> None:
        """Write `rows` at position `start` of the first axis."""
        assert rows.dtype == self._dtype and rows.shape[1:] == self._row_shape
        with self._path.open("r+b") as file:
            file.seek(self._offset + start * self._row_bytes)
            file.write(np.ascontiguousarray(rows).data)


class GraphBuilder:
    """One ONNX graph in the making; values are named by strings, as in ONNX itself.

    Weights are written to `<path>.data` as they come and never held in memory; `save` moves them into the ONNX file
    if they turn out to be small.

    Attributes:
        path: The ONNX file that `save` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data_path = path.with_name(f"{path.name}.data")
        for file in (path, self._data_path):
            file.unlink(missing_ok=True)  # never written in place: it may be a link to another bundle's file
        self._data_path.touch()
        self._data_bytes = 0
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._scope: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names given inside the block start with `name` and a slash."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def input(self, name: str, dtype: npt.DTypeLike, shape: Shape) -> str:
        """Add a graph input; a string in `shape` names an axis of free length."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Shape) -> None:
        """Make `value` the graph output `name`."""
        if value != name:
            self._nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}/Identity"))
        self._outputs.append(_value_info(name, dtype, shape))

    def op(self, op_type: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name; an input "" is left out."""
        return self.ops(op_type, *inputs, domain=domain, outputs=[output or ""], **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: list[str] | int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs: their number, or their names with "" for one to be made up."""
        names = [""] * outputs if isinstance(outputs, int) else outputs
        node_name = self._name(f"{op_type}_{len(self._nodes)}")
        names = [name or (f"{node_name}:{index}" if index else node_name) for index, name in enumerate(names)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name=node_name, domain=domain, **attributes))
        return names

    def constant(self, value: Any, dtype: npt.DTypeLike = np.int64) -> str:
        """A small constant inside the ONNX file; equal ones are stored once."""
        array = np.asarray(value, dtype)
        digest = array.tobytes().hex() if array.nbytes <= 64 else f"{len(self._initializers)}"
        name = f"constant/{array.dtype}/{'x'.join(map(str, array.shape))}/{digest}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: Array) -> str:
        """A weight that is written to disk now."""
        full_name, slot = self.reserve(name, array.dtype, array.shape)
        if array.ndim == 0:
            raise ValueError(f"weight {name} is a scalar; use constant()")
        slot.write(0, array)
        return full_name

    def reserve(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> tuple[str, WeightSlot]:
        """A weight whose place on disk is kept free; its bytes are zero until written through the slot."""
        dtype = np.dtype(dtype)
        offset = -(-self._data_bytes // WEIGHT_ALIGNMENT_BYTES) * WEIGHT_ALIGNMENT_BYTES
        nbytes = int(np.prod(shape)) * dtype.itemsize
        self._data_bytes = offset + nbytes
        with self._data_path.open("r+b") as file:
            file.truncate(self._data_bytes)
        tensor = TensorProto(name=self._name(name), data_type=helper.np_dtype_to_tensor_dtype(dtype), dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._data_path.name), ("offset", offset), ("length", nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        assert tensor.name not in self._initializers
        self._initializers[tensor.name] = tensor
        return tensor.name, WeightSlot(self._data_path, offset, dtype, shape)

    def save(self) -> None:
        """Write the ONNX file."""
        if sum(_data_bytes(tensor) for tensor in self._initializers.values()) <= INLINE_WEIGHTS_BYTES:
            self._embed_weights()
        graph = helper.make_graph(
            self._nodes, self.path.stem, self._inputs, self._outputs, list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, MICROSOFT_OPSET)],
            ir_version=IR_VERSION,
            producer_name="moedge",
        )
        self.path.write_bytes(model.SerializeToString(deterministic=True))

    def _name(self, name: str) -> str:
        return "/".join([*self._scope, name])

    def _embed_weights(self) -> None:
        with self._data_path.open("rb") as file:
            for tensor in self._initializers.values():
                if tensor.data_location != TensorProto.EXTERNAL:
                    continue
                place = {entry.key: entry.value for entry in tensor.external_data}
                file.seek(int(place["offset"]))
                tensor.raw_data = file.read(int(place["length"]))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
        self._data_path.unlink()


def _value_info(name: str, dtype: npt.DTypeLike, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def _data_bytes(tensor: TensorProto) -> int:
    return next((int(entry.value) for entry in tensor.external_data if entry.key == "length"), 0)
