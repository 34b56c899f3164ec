"""Sizes of models that are not exported, beside those that export computes and writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from export.random_checkpoint import SHAPES, save_random_checkpoint
from fixtures_checkpoint import save_checkpoint
from moedge_devices.plan.models import (
    Counts,
    ModelShape,
    find_model,
    known_models,
    planned_manifest,
    with_expert_precision,
)
from moedge_export.architecture import Architecture, read_architecture
from moedge_export.checkpoint import config_architecture
from moedge_export.estimate import ASSETS_BYTES, GRAPH_BYTES, part_bytes
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.weights import vision_tower_info
from moedge_runtime.bench.limits import token_bytes
from moedge_runtime.bench.operations import stored_bytes
from moedge_runtime.bundle import Bundle, Precision
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference import Engine, EngineOptions
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.memory_plan import plan_memory
from transformers import Qwen3VLMoeConfig


def architecture_of(shape: ModelShape) -> Architecture:
    """What export would read from the config of `shape`."""
    text, vision = shape.text, shape.vision
    config = Qwen3VLMoeConfig(
        text_config={
            **text.model_dump(exclude={"moe_layers", "rope_theta", "mrope_section", "tie_word_embeddings"}),
            "rope_parameters": {
                "rope_type": "default", "rope_theta": text.rope_theta, "mrope_section": list(text.mrope_section),
            },
        },
        vision_config=vision.model_dump(),
    )  # fmt: skip
    return read_architecture(config)


@pytest.mark.parametrize("name", ["qwen3-vl-30b-a3b", "qwen3-vl-235b-a22b"])
@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_sizes_are_those_that_export_estimates(name: str, precision: str) -> None:
    shape = known_models()[name]
    options = ExportOptions(precision=precision)  # type: ignore[arg-type]
    parts = part_bytes(architecture_of(shape), options.quantization(), "paged")
    manifest = planned_manifest(shape, precision)
    assert manifest.quantization == options.quantization()
    sizes = {entry.path: entry.nbytes for entry in manifest.files}
    assert sizes["experts.bin"] == parts["experts"]
    planned = {
        "attention": stored_bytes(manifest, manifest.graphs.layers),
        "head": sizes["head.onnx"],
        "vision": sizes["vision.onnx"],
        "embedding": sizes["embedding.bin"],
    }
    for part, nbytes in planned.items():
        assert nbytes == pytest.approx(parts[part], rel=0.01), part  # rows that end within a block


def test_the_text_numbers_are_those_of_the_checkpoint() -> None:
    shape = known_models()["qwen3-vl-30b-a3b"]
    assert architecture_of(shape).text == shape.text
    assert architecture_of(shape).vision == shape.vision
    assert vision_tower_info(architecture_of(shape)) == shape.vision_tower


@pytest.mark.parametrize("precision", ["int4", "fp32"])
@pytest.mark.parametrize("name", [name for name in SHAPES if "dense" in name])
def test_a_plan_has_the_bytes_of_layers_that_the_engine_takes(name: str, precision: str, tmp_path: Path) -> None:
    """The same shape, planned by its numbers, and exported and opened."""
    save_random_checkpoint(tmp_path / "checkpoint", SHAPES[name])
    options = ExportOptions(precision=precision)  # type: ignore[arg-type]
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle", options)
    architecture = config_architecture(tmp_path / "checkpoint")
    any_counts = Counts(attention=1, head=1, embedding=1 << 20, vision=1)
    shape = ModelShape(
        version=1,
        name="tiny",
        source="this test",
        max_pixels=4096,
        text=architecture.text,
        intermediate_size=architecture.intermediate_size,
        attention_bias=architecture.attention_bias,
        vision=architecture.vision,
        vision_tower=vision_tower_info(architecture),
        weights=any_counts,
        float32=any_counts,
    )
    planned = plan_memory(
        planned_manifest(shape, precision),
        1 << 30,
        max_context=300,
        wanted_pixels=4096,
        dense=shape.dense,
        tower=shape.vision_tower,
    )
    with Engine.open(Bundle.open(tmp_path / "bundle"), EngineOptions(memory_bytes=1 << 30, max_context=300)) as engine:
        taken = engine.plan
        assert taken is not None
        for part in ("layers", "head", "vision", "patch_bytes", "buffers", "kv_cache"):
            assert getattr(planned, part) == getattr(taken, part), part
    bundle = Bundle.open(tmp_path / "bundle")
    layers = NativeLayers(bundle, 300, threads=1)
    assert layers.bytes()[0] == planned.layers + planned.head
    layers.close()


def test_other_bits_for_the_experts_leave_the_rest_of_a_bundle_as_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle", ExportOptions(precision="int4"))
    bundle = Bundle.open(tmp_path / "bundle")
    written = bundle.manifest
    smaller = with_expert_precision(written, Precision(bits=8))
    back = with_expert_precision(smaller, written.quantization.experts)
    assert written.experts is not None and back.experts is not None and smaller.experts is not None
    assert back.experts.record_bytes == written.experts.record_bytes
    assert back.experts.sections == written.experts.sections
    assert sum(entry.nbytes for entry in back.files) == sum(entry.nbytes for entry in written.files)
    assert token_bytes(back) == token_bytes(written)
    plans = [plan_memory(each, 1 << 30, max_context=256, wanted_pixels=4096) for each in (written, back)]
    assert plans[0] == plans[1]


def test_the_large_model_takes_the_memory_that_was_measured_in_onnxruntime() -> None:
    """docs/memory.md, measured on the real graphs: 21.9 MiB a layer, 324 MiB of head, 540 MiB of vision tower."""
    plan = plan_memory(
        planned_manifest(known_models()["qwen3-vl-30b-a3b"], "int4"), 8 << 30, max_context=4096, wanted_pixels=1 << 24
    )
    mib = 1 << 20
    assert plan.layers / 48 / mib == pytest.approx(21.9, rel=0.035)
    assert plan.head / mib == pytest.approx(324, rel=0.035)
    assert plan.vision / mib == pytest.approx(540, rel=0.035)
    assert plan.experts / (1 << 30) == pytest.approx(4.43, rel=0.02)


def test_room_for_graphs_and_assets_is_all_that_export_adds() -> None:
    shape = known_models()["qwen3-vl-30b-a3b"]
    parts = part_bytes(architecture_of(shape), ExportOptions(precision="int4").quantization(), "paged")
    assert parts["assets"] == ASSETS_BYTES
    assert parts["graphs"] == GRAPH_BYTES * (48 + 27)


def test_int4_is_what_a_name_without_a_precision_means() -> None:
    assert find_model("qwen3-vl-30b-a3b")[1] == "int4"


def test_unknown_models_and_precisions_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'qwen3-vl-30b-a3b'\? .*with @int4, @int8, @fp32 behind it"):
        find_model("qwen3-vl-30b-a3@int4")
    with pytest.raises(ConfigError, match="asks for the precision 'int2'; there are int4, int8, fp32"):
        find_model("qwen3-vl-30b-a3b@int2")
