"""Rates are operations over seconds, of the part that they name."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures_checkpoint import save_checkpoint
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bench import compute
from moedge_runtime.bench.operations import expert_operations, layer_operations, vision_operations
from moedge_runtime.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("compute")
    save_checkpoint(folder / "checkpoint")
    export_bundle(folder / "checkpoint", folder / "bundle", ExportOptions(precision="int4"))
    return Bundle.open(folder / "bundle")


def test_rates_are_the_operations_of_one_layer_or_picture_over_its_seconds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_a_second(call: object, rounds: int) -> float:
        assert callable(call)
        call()  # the part runs for real
        return 0.5

    monkeypatch.setattr(compute, "_median_seconds", half_a_second)
    manifest = bundle.manifest
    text = manifest.model.text
    assert compute.expert_rate(bundle, 1, tokens=12) == expert_operations(manifest, 12) / len(text.moe_layers) / 0.5
    assert compute.layer_rate(bundle, 1, tokens=12) == layer_operations(manifest, 12) / text.num_hidden_layers / 0.5
    old = Bundle(bundle.path, manifest.model_copy(update={"weights": {}}))  # its layers run in ONNX Runtime
    assert compute.layer_rate(old, 1, tokens=12) == compute.layer_rate(bundle, 1, tokens=12)
    picture = np.zeros((64, 64, 3), np.uint8)
    rate = compute.vision_rate(bundle, 1, picture)
    patches = round(64 / manifest.model.vision.patch_size) ** 2
    assert rate >= vision_operations(manifest, patches) / 0.5 * 0.99


def test_the_first_call_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 20.0, 22.0, 30.0, 39.0])
    monkeypatch.setattr(compute, "perf_counter", lambda: next(clock))
    calls = []
    assert compute._median_seconds(lambda: calls.append(1), 3) == 2.0
    assert len(calls) == 4
