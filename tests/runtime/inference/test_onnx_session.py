import subprocess
import sys

import numpy as np
import onnx
import pytest
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.inference.onnx_session import kv_device, open_session, providers_for, thread_count

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_brings_those_it_falls_back_on_for_single_operators():
    assert providers_for("cpu", ALL) == ["CPUExecutionProvider"]
    assert providers_for("cuda", ALL) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers_for("tensorrt", ALL) == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert (kv_device("cpu"), kv_device("cuda")) == ("cpu", "cuda")


def test_a_provider_that_is_not_installed_is_refused_and_the_installed_ones_are_named():
    with pytest.raises(ConfigError, match=r"provider='cuda' needs CUDAExecutionProvider, .* Available: cpu\."):
        providers_for("cuda", ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=r"provider='npu' is unknown. Use one of: cpu, cuda, tensorrt\."):
        providers_for("npu")


def test_a_file_that_is_no_graph_is_a_bundle_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"rubbish")
    with pytest.raises(BundleError, match=r"cannot load '.*x.onnx'"):
        open_session(tmp_path / "x.onnx")


def test_no_thread_of_a_session_spins_when_its_call_has_ended(tmp_path):
    path = tmp_path / "product.onnx"
    weights = onnx.numpy_helper.from_array(np.ones((1024, 4096), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1024])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4096])],
        [weights],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), path)
    program = f"""
import threading, time
from pathlib import Path
import numpy as np
from moedge_runtime.inference.onnx_session import open_session
session = open_session(Path({str(path)!r}), threads=2)
used = 0.0
for _ in range(20):
    session.run(None, {{"x": np.ones((1, 1024), np.float32)}})
    before = time.process_time()
    threading.Event().wait(0.02)
    used += time.process_time() - before
print(used)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # A spinning thread uses a whole processor in the 0.4 s of rest.
    assert float(result.stdout) < 0.2


def copy_graph(path, rows):
    """A graph that allocates `rows` × 1,024 floats besides its output."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Expand", ["x", "shape"], ["large"]),
            onnx.helper.make_node("ReduceSum", ["large"], ["y"], keepdims=0),
        ],
        "copies",
        [value("x", onnx.TensorProto.FLOAT, [1, 1024])],
        [value("y", onnx.TensorProto.FLOAT, [])],
        [onnx.numpy_helper.from_array(np.array([rows, 1024]), "shape")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_sessions_compute_in_the_same_memory_and_give_it_back_when_told(tmp_path):
    paths = [copy_graph(tmp_path / f"{index}.onnx", 16_384) for index in range(8)]
    program = f"""
import re
from pathlib import Path
import numpy as np
from moedge_runtime.inference.onnx_session import giving_back, open_sessions
def own_mib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
sessions = open_sessions([Path(path) for path in {[str(path) for path in paths]!r}], threads=2)
before = own_mib()
for session in sessions:
    session.run(None, {{"x": np.ones((1, 1024), np.float32)}})
print(own_mib() - before)
sessions[0].run(None, {{"x": np.ones((1, 1024), np.float32)}}, giving_back())
print(own_mib() - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    after_all, given_back = map(float, result.stdout.split())
    assert 60 < after_all < 100  # one graph needs 64 MiB
    assert given_back < 20


def test_no_threads_are_refused():
    with pytest.raises(ConfigError, match="threads=0"):
        thread_count(0)
