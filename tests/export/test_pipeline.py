"""Exports are deterministic, bounded in memory, whole or absent, and as the golden files describe them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from export.conftest import Exporter
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import CheckpointError, StorageError

GOLDEN = Path(__file__).parent / "golden"
"""Rewritten by: pytest tests/export/test_pipeline.py --update-golden."""


@pytest.mark.parametrize("form", ["paged", "inline"])
def test_a_second_export_is_identical_byte_for_byte(form: str, checkpoint: tuple[Path, Any], export: Exporter) -> None:
    first, second = (export(checkpoint[0], precision="int4", form=form).path for _ in range(2))
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


@pytest.mark.parametrize("form", ["paged", "inline"])
def test_manifest_and_graphs_are_as_the_golden_files_say(
    form: str, checkpoint: tuple[Path, Any], export: Exporter, update_golden: bool
) -> None:
    bundle = export(checkpoint[0], precision="int4", form=form)
    path = GOLDEN / f"{form}-int4.json"
    text = json.dumps({"manifest": contract_of(bundle), "graphs": graphs_of(bundle)}, indent=1) + "\n"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Peak memory of a process that exports 6 million weights, then 57 million: 226 MB of float32 more."""
    script = Path(__file__).with_name("measure_memory.py")
    output = subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True, text=True).stdout
    small, large = map(int, output.split())
    assert large - small < 64e6


def test_weights_that_are_not_numbers_are_refused(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moedge_export.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint[0])
    read = opened.weights.rows
    monkeypatch.setattr(
        opened.weights, "rows", lambda *place: read(*place) / (0.0 if "experts.down_proj" in place[0] else 1.0)
    )
    with pytest.raises(
        CheckpointError, match=r"Tensor '.*layers.0.mlp.experts.down_proj\[0\]' has weights that are infinite"
    ):
        export_bundle(opened, tmp_path / "bundle", ExportOptions(precision="int4"))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_on_request(checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    export_bundle(checkpoint[0], destination, ExportOptions(precision="fp32"))
    with pytest.raises(StorageError, match="exists already"):
        export_bundle(checkpoint[0], destination, ExportOptions(precision="int8"))
    export_bundle(checkpoint[0], destination, ExportOptions(precision="int8", overwrite=True))
    assert Bundle.open(destination).manifest.quantization.experts.bits == 8


def contract_of(bundle: Bundle) -> dict[str, Any]:
    """The manifest without what differs between processors and library versions in the last bit."""
    manifest: dict[str, Any] = json.loads(bundle.manifest.model_dump_json())
    manifest["model"]["source"]["created_by"] = "moedge"
    if manifest["experts"]:
        manifest["experts"]["crc32c"] = [len(layer) for layer in manifest["experts"]["crc32c"]]
    for report in manifest["quality"].values():
        report |= {name: round(report[name], 3) for name in ("relative_error", "relative_error_absmax")}
    manifest["files"] = [entry["path"] for entry in manifest["files"]]
    manifest["parts"] = sorted(manifest["parts"])
    return manifest


def graphs_of(bundle: Bundle) -> dict[str, Any]:
    """Inputs, outputs and number of operators of every graph."""
    graphs = bundle.manifest.graphs
    description = {}
    for path in [graphs.vision, *graphs.layers[:2], *filter(None, (graphs.head, graphs.model))]:
        graph = onnx.load(bundle.file(path), load_external_data=False).graph
        description[path] = {
            "inputs": [signature(value) for value in graph.input],
            "outputs": [signature(value) for value in graph.output],
            "operators": dict(
                sorted(Counter(f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in graph.node).items())
            ),
        }
    return description


def signature(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    axes = ", ".join(axis.dim_param or str(axis.dim_value) for axis in tensor.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type)} [{axes}]"


def test_room_and_place_are_checked_before_the_weights_are_there(
    checkpoint: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Hugging Face id 62 GB would be downloaded before."""
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        export_bundle(without_weights(checkpoint[0], tmp_path), tmp_path / "there", ExportOptions())
    monkeypatch.setattr("moedge_export.pipeline.bundle_bytes", lambda *_: 10**15)
    with pytest.raises(StorageError, match="needs up to 1,000,000,000 MB"):
        export_bundle(tmp_path / "config only", tmp_path / "out", ExportOptions())


def without_weights(folder: Path, parent: Path) -> Path:
    (parent / "config only").mkdir()
    shutil.copyfile(folder / "config.json", parent / "config only" / "config.json")
    return parent / "config only"
