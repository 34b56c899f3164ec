import subprocess
import sys

import pytest
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.inference.onnx_session import configure_threads, kv_device, open_session, providers_for

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


def test_the_pool_of_a_process_is_sized_once():
    program = """
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.onnx_session import configure_threads
assert configure_threads(1) == configure_threads(None) == configure_threads(1) == 1
try:
    configure_threads(3)
except ConfigError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "threads=3 differs from the 1 threads" in result.stdout


def test_no_threads_are_refused():
    with pytest.raises(ConfigError, match="threads=0"):
        configure_threads(0)
