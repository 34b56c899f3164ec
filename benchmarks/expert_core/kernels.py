"""All experts resident: time and error beside ONNX Runtime's QMoE on the same weights, and the hand-over's cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from moedge_export.inline import QMOE_INPUTS
from moedge_runtime.bench.bandwidth import memory_bandwidth
from moedge_runtime.bundle import Bundle, Precision
from moedge_runtime.inference.expert_core import NativeExperts
from moedge_runtime.inference.numpy_experts import NumpyExperts
from moedge_runtime.inference.onnx_session import open_session
from onnx import TensorProto, helper

from expert_core.records import EXPERTS, HIDDEN, TOP_K, write_records
from expert_core.report import report
from expert_core.routing import Router

THREADS = 2
TIME_BOUNDS = {1: 0.80, 220: 0.65, 1000: 0.65}
"""Most of QMoE's time that the core may take, by tokens."""
ROUNDS = {1: 60, 220: 9, 1000: 5}
HANDOVER_BOUND_US = 60.0
DENSE_GRAPHS = 8
"""In turn: more weights than the processor's cache holds, as in a model of 48 layers."""
ERROR_TOKENS = 64

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def kernels(directory: Path) -> bool:
    """Run all of it; whether every bound was kept."""
    ok = True
    for bits, block in ((4, 32), (4, 128), (8, 32), (8, 128)):
        bundle = write_records(directory / f"layer-int{bits}-{block}", 1, Precision(bits=bits, block_size=block))
        name = f"INT{bits} block {block}"
        qmoe = qmoe_session(bundle, directory / f"qmoe-int{bits}-{block}")
        core = NativeExperts(bundle, threads=THREADS)
        core.compute(0, *_inputs(1000, 1)[0])  # everything is read now
        ok &= errors(name, bundle, core, qmoe)
        if bits == 4:
            ok &= times(name, core, qmoe, bundle.expert_layout.record_bytes)
        if (bits, block) == (4, 32):
            ok &= handover(core, directory)
        core.close()
    return ok


def times(name: str, core: NativeExperts, qmoe: Any, record_bytes: int) -> bool:
    """The two in turn, at each number of tokens."""
    ok = True
    for tokens, bound in TIME_BOUNDS.items():
        inputs = _inputs(tokens, 16 if tokens == 1 else 2)
        ours, theirs = [], []
        for turn in range(ROUNDS[tokens] + 1):
            pair = inputs[turn % len(inputs)]
            ours.append(_ms(partial(core.compute, 0, *pair)))
            theirs.append(_ms(partial(qmoe.run, None, dict(zip(("x", "logits"), pair, strict=True)))))
        ours, theirs = ours[1:], theirs[1:]
        report(f"{name}, {tokens} tokens: core", ours, "ms a layer")
        report(f"{name}, {tokens} tokens: QMoE", theirs, "ms a layer")
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        ok &= report(f"{name}, {tokens} tokens: core over QMoE", ratios, "ratio", bound)
        if tokens == 1:
            limit = memory_bandwidth(THREADS)
            shares = [TOP_K * record_bytes / (ms / 1e3) / limit for ms in ours]
            report(f"{name}, 1 token: share of the memory's read bandwidth", shares, "ratio", limit_gb_s=limit / 1e9)
    return ok


def errors(name: str, bundle: Bundle, core: NativeExperts, qmoe: Any) -> bool:
    """Root mean square error of both against float activations, relative to the result's."""
    x, logits = _inputs(ERROR_TOKENS, 1)[0]
    exact = NumpyExperts(bundle).compute(0, x, logits)

    def error(got: npt.NDArray[np.float32]) -> float:
        return float(np.sqrt(np.mean((got - exact) ** 2) / np.mean(exact**2)))

    theirs = error(qmoe.run(None, {"x": x, "logits": logits})[0])
    return report(f"{name}: error against float activations", [error(core.compute(0, x, logits))], "ratio", theirs)


def handover(core: NativeExperts, directory: Path, turns: int = 200) -> bool:
    """What a graph and the core take in turn beyond what each takes alone, one token, a layer of the decoder's size."""
    graphs = []
    for seed in range(DENSE_GRAPHS):
        path = directory / f"dense-{seed}.onnx"
        _write_dense(path, seed)
        graphs.append(open_session(path, threads=THREADS))
    hidden = np.random.default_rng(0).standard_normal((1, HIDDEN), dtype=np.float32)
    inputs = _inputs(1, 16)

    def run_graph(turn: int) -> None:
        graphs[turn % DENSE_GRAPHS].run(None, {"hidden": hidden})

    def run_core(turn: int) -> None:
        core.compute(0, *inputs[turn % 16])

    def run_both(turn: int) -> None:
        run_graph(turn)
        run_core(turn)

    extra = []
    for _ in range(9):
        alone = _loop_us(run_graph, turns) + _loop_us(run_core, turns)
        extra.append(_loop_us(run_both, turns) - alone)
    return report("hand-over between a layer's graph and the core", extra, "µs a layer", HANDOVER_BOUND_US)


def qmoe_session(bundle: Bundle, path: Path) -> Any:
    """ONNX Runtime's QMoE with int8 activations on the weights of layer 0, as a session on the shared pool."""
    layout = bundle.expert_layout
    records = np.memmap(bundle.file("experts.bin"), np.uint8, "r").reshape(-1, layout.record_bytes)[:EXPERTS]
    experts = [layout.unpack(np.asarray(record)) for record in records]
    operands = ["x", "logits", *[""] * (max(QMOE_INPUTS[name] for name in experts[0]) - 1)]
    weights = []
    for name in experts[0]:
        stacked = np.stack([expert[name] for expert in experts])
        weights.append(onnx.numpy_helper.from_array(stacked, name))
        operands[QMOE_INPUTS[name]] = name
    node = helper.make_node(
        "QMoE", operands, ["y"], domain="com.microsoft", k=TOP_K, activation_type="swiglu", swiglu_fusion=1,
        activation_alpha=1.0, activation_beta=0.0, normalize_routing_weights=1, accuracy_level=4,
        expert_weight_bits=layout.precision.bits, block_size=layout.precision.block_size,
    )  # fmt: skip
    _save(path, [node], {"x": HIDDEN, "logits": EXPERTS}, weights)
    return open_session(path, threads=THREADS)


def _write_dense(path: Path, seed: int) -> None:
    """21 million INT4 weights, a little more than the attention of a layer multiplies a token with."""
    rng = np.random.default_rng(seed)
    weights, nodes, value = [], [], "hidden"
    for index, outputs in enumerate((9216, HIDDEN // 8)):
        inputs = HIDDEN if index == 0 else 9216
        packed = rng.integers(0, 256, (outputs, inputs // 32, 16), dtype=np.uint8)
        scales = np.full(outputs * (inputs // 32), 0.01, np.float32)
        weights.append(onnx.numpy_helper.from_array(packed, f"w{index}"))
        weights.append(onnx.numpy_helper.from_array(scales, f"s{index}"))
        result = "y" if index else "middle"
        attributes = {"K": inputs, "N": outputs, "bits": 4, "block_size": 32, "accuracy_level": 4}
        operands = [value, f"w{index}", f"s{index}"]
        nodes.append(helper.make_node("MatMulNBits", operands, [result], domain="com.microsoft", **attributes))
        value = result
    _save(path, nodes, {"hidden": HIDDEN}, weights)


def _save(path: Path, nodes: list[Any], inputs: dict[str, int], weights: list[Any]) -> None:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["tokens", size]) for name, size in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def _inputs(tokens: int, count: int) -> list[Pair]:
    rng = np.random.default_rng(tokens)
    router = Router(1, 0.0, tokens)
    return [(rng.standard_normal((tokens, HIDDEN), dtype=np.float32), router.logits(tokens)[0]) for _ in range(count)]


def _ms(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return 1e3 * (perf_counter() - start)


def _loop_us(work: Callable[[int], None], turns: int) -> float:
    start = perf_counter()
    for turn in range(turns):
        work(turn)
    return 1e6 * (perf_counter() - start) / turns
