"""ONNX Runtime, which has telemetry of its own, is loaded without it."""

import os
import subprocess
import sys

import pytest

IMPORTS = {
    "runtime": "import moedge_runtime.inference.onnx_session",
    "export": "import moedge_export.reference",
    "onnxruntime alone": "import onnxruntime",
}


@pytest.mark.parametrize("what", IMPORTS)
def test_nothing_is_left_behind_for_a_report(what: str, tmp_path) -> None:
    # It is silent in tests and CI by itself, by these names.
    silenced = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    environment = {name: value for name, value in os.environ.items() if name not in silenced}
    use = "; import onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", IMPORTS[what] + use], env=environment | {"HOME": str(tmp_path)}, check=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    if what == "onnxruntime alone":
        if not files:
            pytest.skip("this ONNX Runtime reports nothing by itself, so that the other cases show nothing")
    else:
        assert files == []
