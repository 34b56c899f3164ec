"""The arm64 package in a Debian arm64 userland, run by qemu."""

from __future__ import annotations

import json
from pathlib import Path

import moedge_runtime
import pytest
from wheels.installed import ROOT, Installed

pytestmark = pytest.mark.slow

OLDER_ONNXRUNTIME = ROOT / "build" / "arm64" / "packages"
"""ONNX Runtime 1.30 and later crash in qemu-user 7.2; the tests of the wheels hold an older one there."""

WITH_OLDER_ONNXRUNTIME = (
    "import sys, importlib.util\n"
    f"folder = '{OLDER_ONNXRUNTIME}/onnxruntime'\n"
    "spec = importlib.util.spec_from_file_location(\n"
    "    'onnxruntime', folder + '/__init__.py', submodule_search_locations=[folder])\n"
    "sys.modules['onnxruntime'] = module = importlib.util.module_from_spec(spec)\n"
    "spec.loader.exec_module(module)\n"
    "from moedge_runtime.cli.main import main\n"
    "main(sys.argv[1:])\n"
)


def test_the_arm64_package_starts(arm64: Installed) -> None:
    assert arm64.run("-I", "-m", "moedge_runtime", "--version") == f"moedge, version {moedge_runtime.__version__}\n"


def test_the_arm64_package_holds_libraries_of_its_processor(arm64: Installed) -> None:
    root = arm64.python.with_name("root")
    files = (root / "usr/lib/moedge").rglob("*.so*")
    libraries = [path for path in files if path.suffix != ".socket"]
    assert len(libraries) > 20
    for library in libraries:
        assert int.from_bytes(library.read_bytes()[18:20], "little") == 183, library  # elf.h: EM_AARCH64


def test_all_that_the_daemon_imports_loads_on_arm64(arm64: Installed) -> None:
    names = "av google_crc32c iotcore jinja2 llguidance numpy paho.mqtt.client PIL.Image pydantic tokenizers yaml"
    program = (
        f"import importlib, json; print(json.dumps([importlib.import_module(n).__file__ for n in {names.split()}]))"
    )
    files = json.loads(arm64.run("-I", "-c", program))
    assert all("/usr/lib/moedge/lib/python3.11/site-packages/" in file for file in files)


def test_a_configuration_is_checked_on_arm64(arm64: Installed, bundle: Path, tmp_path: Path) -> None:
    config = tmp_path / "moedge.yaml"
    config.write_text(
        f"version: 1\ndevice: board\nmodel: {{bundle: {bundle}, memory: 1G}}\nmqtt: {{url: mqtt://127.0.0.1:1883}}\n"
        "cameras: {panel: {source: 'exec:true'}}\n"
        "watches: [{name: reading, camera: panel, question: 'What is the reading?'}]\n"
    )
    checked = arm64.run("-I", "-c", WITH_OLDER_ONNXRUNTIME, "run", "--check", "--config", config)
    assert checked.startswith(f"{config} is valid: device 'board', 1 camera, 1 watch")
