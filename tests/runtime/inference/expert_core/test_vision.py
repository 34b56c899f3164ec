import dataclasses
from pathlib import Path

import numpy as np
import pytest
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.inference import Engine, EngineOptions
from moedge_runtime.inference.decoder import Cancelled
from moedge_runtime.inference.expert_core import vision as native
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.library import usable_instruction_sets
from moedge_runtime.inference.expert_core.vision import NativeVision
from moedge_runtime.inference.image_processor import ProcessedImage
from moedge_runtime.inference.memory_budget import native_vision, plan_of
from moedge_runtime.inference.opening import open_vision
from moedge_runtime.inference.vision import OnnxVision
from moedge_runtime.inference.vision_sizes import (
    vision_buffer_bytes,
    vision_memory_bytes,
    vision_patch_bytes,
    vision_read_bytes,
    vision_weight_bytes,
)

GRIDS = ((1, 20, 16), (1, 2, 2), (2, 6, 8))

OPTIONS = {
    "fp32": ExportOptions(precision="fp32"),
    "int8": ExportOptions(precision="int8"),
    "int4": ExportOptions(parts={"vision": "int4"}),
    "int4-asymmetric": ExportOptions(symmetric=False, parts={"vision": "int4"}),
}


@pytest.fixture(scope="module", params=OPTIONS)
def bundle(request, checkpoint: Path) -> Bundle:
    destination = checkpoint.with_name(f"vision-{request.param}")
    if not destination.exists():
        export_bundle(checkpoint, destination, OPTIONS[request.param])
    return Bundle.open(destination)


def exact(bundle: Bundle, checkpoint: Path) -> Bundle:
    """The same weights in a graph that computes with float activations."""
    if bundle.manifest.quantization.vision.bits == 32:
        return bundle
    destination = bundle.path.with_name(f"{bundle.path.name}-exact")
    if not destination.exists():
        options = OPTIONS[bundle.path.name.removeprefix("vision-")]
        export_bundle(checkpoint, destination, dataclasses.replace(options, activations="fp32"))
    return Bundle.open(destination)


def pictures(bundle: Bundle) -> list[ProcessedImage]:
    vision, random = bundle.manifest.model.vision, np.random.default_rng(1)
    values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return [ProcessedImage(random.standard_normal((int(np.prod(grid)), values), np.float32), grid) for grid in GRIDS]


def outputs(encoder, bundle: Bundle) -> np.ndarray:
    """What it says of the pictures, float32 [taps + 1, N, H]."""
    features = encoder.encode(pictures(bundle))
    return np.concatenate([features.deepstack, features.image[None]])


def sizes(bundle: Bundle) -> int:
    tower = bundle.manifest.vision_tower
    assert tower is not None
    return tower.intermediate_size


def test_errors_are_no_larger_than_onnxruntimes(bundle, checkpoint):
    wanted = outputs(OnnxVision(exact(bundle, checkpoint)), bundle)

    def error(encoder) -> float:
        return float(np.sqrt(np.mean((outputs(encoder, bundle) - wanted) ** 2) / np.mean(wanted**2)))

    # In float32 both differ by rounding alone.
    assert error(NativeVision(bundle)) <= max(1.1 * error(OnnxVision(bundle)), 1e-5)


@pytest.mark.parametrize("isa", usable_instruction_sets())
def test_threads_and_instruction_sets_change_no_bit(bundle, isa):
    one = outputs(NativeVision(bundle, threads=1, isa="scalar"), bundle)
    for threads in (1, 3):
        assert np.array_equal(outputs(NativeVision(bundle, threads=threads, isa=isa), bundle), one)


def test_weights_that_come_for_each_picture_change_no_bit_and_leave(bundle, monkeypatch):
    closed = []
    real = native._Tower

    def counted(*arguments, **options):
        tower = real(*arguments, **options)
        close, tower.close = tower.close, lambda: (close(), closed.append(tower))
        return tower

    wanted = outputs(NativeVision(bundle), bundle)
    monkeypatch.setattr(native, "_Tower", counted)
    encoder = NativeVision(bundle, resident=False)
    assert closed == []
    for count in (1, 2):
        assert np.array_equal(outputs(encoder, bundle), wanted)
        assert len(closed) == count


def test_pictures_together_have_the_bits_of_each_alone(bundle):
    encoder = NativeVision(bundle)
    together = encoder.encode(pictures(bundle))
    alone = [encoder.encode([picture]) for picture in pictures(bundle)]
    np.testing.assert_array_equal(together.image, np.concatenate([each.image for each in alone]))
    np.testing.assert_array_equal(together.deepstack, np.concatenate([each.deepstack for each in alone], axis=1))


@pytest.mark.parametrize("patches", [4, 320])
def test_it_takes_the_bytes_that_the_plan_says(bundle, patches):
    manifest, size = bundle.manifest, sizes(bundle)
    for resident in (True, False):
        assert NativeVision(bundle, threads=3, resident=resident).bytes(patches) == (
            vision_weight_bytes(manifest, size, resident=resident),
            vision_buffer_bytes(manifest, 3),
            vision_memory_bytes(manifest, size, patches),
        )
    # What is planned for each patch is that, its place, and what the tower says of it.
    vision = manifest.model.vision
    merge, taps = vision.spatial_merge_size**2, len(vision.deepstack_visual_indexes)
    beside = (
        vision.hidden_size + vision.hidden_size // vision.num_heads + 8 + (1 + taps) * vision.out_hidden_size // merge
    )
    assert patches * vision_patch_bytes(manifest, size) == pytest.approx(
        vision_memory_bytes(manifest, size, patches) + 4 * patches * beside, abs=2 * 4096 + 4 * patches
    )


def test_the_largest_part_is_read_into_what_the_plan_says(bundle, monkeypatch):
    taken = []
    real = native.ReadMemory.clear

    def clear(self):
        taken.append(self.used)
        real(self)

    monkeypatch.setattr(native.ReadMemory, "clear", clear)
    NativeVision(bundle, resident=False).encode(pictures(bundle))
    assert 0 < max(taken) <= vision_read_bytes(bundle.manifest, sizes(bundle))


def test_the_plan_of_an_engine_has_its_bytes(bundle):
    ours, theirs = (
        plan_of(bundle, EngineOptions(layers=layers, max_context=300), 1 << 30) for layers in ("auto", "onnxruntime")
    )
    manifest, size = bundle.manifest, sizes(bundle)
    assert ours.vision == vision_weight_bytes(manifest, size) + vision_buffer_bytes(manifest, 64)
    assert ours.vision != theirs.vision
    assert plan_of(bundle, EngineOptions(experts="numpy", max_context=300), 1 << 30).vision == theirs.vision


def changed(bundle: Bundle, **weight: object) -> Bundle:
    """The bundle with another place for a weight of its vision tower."""
    graph = bundle.manifest.graphs.vision
    places = [
        place.model_copy(update=weight) if place.name == "blocks.0.norm1.bias" else place
        for place in bundle.manifest.weights[graph]
    ]
    weights = dict(bundle.manifest.weights) | {graph: places}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"weights": weights}))


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        ({"name": "another"}, "Weight 'blocks.0.norm1.bias' of 'vision.onnx' .* is missing; float32 .* is needed"),
        ({"shape": [3]}, r"is float32 \[3\]; float32 \[\d+\] is needed"),
        ({"offset": 1 << 30}, "ends within weight 'blocks.0.norm1.bias'"),
        ({"file": "none"}, "cannot be read"),
    ],
)
@pytest.mark.parametrize("resident", [True, False])
def test_weights_that_are_not_there_are_told(bundle, weight, problem, resident):
    damaged = changed(bundle, **weight)
    with pytest.raises(BundleError, match=problem):
        NativeVision(damaged, resident=resident).encode(pictures(bundle))


@pytest.mark.parametrize("resident", [True, False])
def test_a_picture_that_is_not_finite_is_an_error_and_the_next_one_works(bundle, resident):
    encoder = NativeVision(bundle, resident=resident)
    wanted = outputs(encoder, bundle)
    [picture, *_] = pictures(bundle)
    picture.pixel_values[3, 2] = np.nan
    with pytest.raises(BundleError, match="an activation of the vision tower is not finite") as caught:
        encoder.encode([picture])
    assert caught.value.key == "bundle.not_finite"
    assert np.array_equal(outputs(encoder, bundle), wanted)


@pytest.mark.parametrize("resident", [True, False])
def test_a_picture_can_be_stopped_before_every_part(bundle, resident):
    encoder = NativeVision(bundle, resident=resident)
    wanted = outputs(encoder, bundle)
    vision = bundle.manifest.model.vision
    parts = 1 + vision.depth + len(vision.deepstack_visual_indexes) + 1
    for before in range(parts):
        answers = iter([False] * before + [True])
        with pytest.raises(Cancelled):
            encoder.encode(pictures(bundle), lambda: next(answers))  # noqa: B023  called at once
    asked = []
    encoder.encode(pictures(bundle), lambda: asked.append(1))
    assert len(asked) == parts
    assert np.array_equal(outputs(encoder, bundle), wanted)


def test_it_outlives_the_experts_whose_threads_it_uses(bundle):
    experts = NativeExperts(bundle, threads=3)
    encoder = NativeVision(bundle, experts)
    wanted = outputs(encoder, bundle)
    experts.close()
    assert np.array_equal(outputs(encoder, bundle), wanted)


def without_tower(bundle: Bundle) -> Bundle:
    """As an earlier version wrote it: the table has the layers only."""
    manifest = bundle.manifest
    weights = {graph: places for graph, places in manifest.weights.items() if graph != manifest.graphs.vision}
    return Bundle(bundle.path, manifest.model_copy(update={"weights": weights, "vision_tower": None}))


def test_the_core_computes_the_vision_tower_with_the_layers_unless_there_is_no_table(bundle, inline):
    old = without_tower(bundle)
    cases = [
        (bundle, EngineOptions(), True),
        (bundle, EngineOptions(layers="core", experts="numpy"), True),
        (bundle, EngineOptions(layers="onnxruntime"), False),
        (bundle, EngineOptions(experts="numpy"), False),
        (old, EngineOptions(), False),
        (old, EngineOptions(layers="core"), False),
        (Bundle.open(inline), EngineOptions(), False),
    ]
    for each, options, expected in cases:
        assert native_vision(each, options) is expected
        assert isinstance(open_vision(each, options), NativeVision if expected else OnnxVision)
    with pytest.raises(ConfigError, match="provider='cuda' on a GPU"):
        native_vision(bundle, EngineOptions(layers="core", provider="cuda"))


def test_an_engine_opens_bundles_with_and_without_the_table(bundle, monkeypatch):
    opened = []
    for kind in (NativeVision, OnnxVision):

        def noting(*arguments, kind=kind, **options):
            opened.append(kind.__name__)
            return kind(*arguments, **options)

        monkeypatch.setattr(f"moedge_runtime.inference.opening.{kind.__name__}", noting)
    for each in (bundle, without_tower(bundle)):
        Engine.open(each, EngineOptions(max_context=64)).close()
    assert opened == ["NativeVision", "OnnxVision"]


def test_a_graph_that_is_to_compute_with_float_activations_has_no_table(bundle, checkpoint):
    manifest = exact(bundle, checkpoint).manifest
    floats = bundle.manifest.quantization.vision.bits == 32
    assert (manifest.vision_tower is not None) == floats
    assert (manifest.graphs.vision in manifest.weights) == floats
