import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import BundleError, ConfigError
from moedge_runtime.inference import Engine, EngineOptions
from moedge_runtime.inference.decoder import DecoderInput, PagedDecoder
from moedge_runtime.inference.dense_sizes import DenseShape, dense_buffer_bytes, dense_weight_bytes
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.expert_core.library import usable_instruction_sets
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import PIECE_TOKENS, LayerBuffers
from moedge_runtime.inference.layers import OnnxLayers
from moedge_runtime.inference.memory_budget import plan_of

TOKENS = 48


OPTIONS = {
    "fp32": ExportOptions(precision="fp32"),
    "int8": ExportOptions(precision="int8"),
    "int4": ExportOptions(precision="int4", parts={"attention": "int4", "head": "int4"}),
    "int4-asymmetric": ExportOptions(symmetric=False, parts={"attention": "int4", "head": "int4"}),
}


@pytest.fixture(scope="module", params=OPTIONS)
def bundle(request, checkpoint: Path) -> Bundle:
    destination = checkpoint.with_name(f"layers-{request.param}")
    if not destination.exists():
        export_bundle(checkpoint, destination, OPTIONS[request.param])
    return Bundle.open(destination)


def exact(bundle: Bundle, checkpoint: Path) -> Bundle:
    """The same weights in graphs that compute with float activations."""
    if bundle.manifest.quantization.attention.bits == 32:
        return bundle
    destination = bundle.path.with_name(f"{bundle.path.name}-exact")
    if not destination.exists():
        options = OPTIONS[bundle.path.name.removeprefix("layers-")]
        export_bundle(checkpoint, destination, dataclasses.replace(options, activations="fp32"))
    return Bundle.open(destination)


def outputs(layers, bundle: Bundle, tokens: int = TOKENS) -> list[np.ndarray]:
    """What each layer gives for the same random tokens, then the head."""
    text = bundle.manifest.model.text
    random = np.random.default_rng(1)
    angles = random.uniform(-3, 3, (tokens, text.head_dim // 2)).astype(np.float32)
    buffers = LayerBuffers.of(text, tokens)
    call = layers.call(buffers, KvCache(text, tokens))
    call.begin(np.cos(angles), np.sin(angles))
    results = []
    for layer in range(text.num_hidden_layers):
        buffers.hidden[...] = random.standard_normal(buffers.hidden.shape, np.float32)
        if call.run(layer):
            results += [buffers.router_logits.copy(), buffers.moe_input.copy()]
            if call.foresees(layer):
                results.append(call.next_router_logits[:1].copy())  # the graphs make one guess
        results.append(buffers.residual.copy())
    results.append(layers.logits(random.standard_normal(text.hidden_size, np.float32)))
    return results


def test_errors_are_no_larger_than_onnxruntimes(bundle, checkpoint):
    reference = exact(bundle, checkpoint)
    wanted = outputs(OnnxLayers(reference), bundle, 240)
    theirs = outputs(OnnxLayers(bundle), bundle, 240)
    ours = outputs(NativeLayers(bundle, 240), bundle, 240)

    def error(got: list[np.ndarray]) -> float:
        """Root mean square of the relative errors of what has enough values to tell."""
        squares = [np.mean((g - w) ** 2) / np.mean(w**2) for g, w in zip(got, wanted, strict=True) if g.shape[0] == 240]
        return float(np.sqrt(np.mean(squares)))

    # In float32 both differ by rounding alone.
    assert error(ours) <= max(1.02 * error(theirs), 2e-6)


@pytest.mark.parametrize("isa", usable_instruction_sets())
def test_threads_and_instruction_sets_change_no_bit(bundle, isa):
    one = outputs(NativeLayers(bundle, TOKENS, threads=1, isa="scalar"), bundle)
    for threads in (1, 3):
        got = outputs(NativeLayers(bundle, TOKENS, threads=threads, isa=isa), bundle)
        assert all(np.array_equal(a, b) for a, b in zip(got, one, strict=True))


def decoded(bundle: Bundle, pieces: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits after a prompt that is computed in pieces, and the cache."""
    text, total = bundle.manifest.model.text, sum(pieces)
    experts = NativeExperts(bundle)
    cache = KvCache(text, total + 5)
    decoder = PagedDecoder(text, experts, NativeLayers(bundle, cache.capacity, experts), cache)
    hidden = np.random.default_rng(2).standard_normal((total, text.hidden_size), np.float32)
    positions = np.repeat(np.arange(total)[None], 3, axis=0)
    begin = 0
    for count in pieces:
        part = slice(begin, begin + count)
        nothing = np.zeros((0, 0, text.hidden_size), np.float32)
        tokens = DecoderInput(cache, hidden[part], positions[:, part], np.zeros(0, np.int64), nothing)
        [logits] = decoder.forward([tokens])
        begin += count
    kept = cache.copy(total)
    decoder.close()
    return logits, kept


def test_a_prompt_in_pieces_has_the_bits_of_one(bundle):
    total = PIECE_TOKENS + 40
    logits, cache = decoded(bundle, [total])
    for pieces in ([100, 3, 1, 1, total - 105], [total - 2, 1, 1]):
        again, kept = decoded(bundle, pieces)
        assert np.array_equal(again, logits)
        assert all(np.array_equal(a, b) for a, b in zip(kept, cache, strict=True))


@pytest.mark.parametrize("context", [7, 1000])
def test_they_take_the_bytes_that_the_plan_says(bundle, context):
    layers = NativeLayers(bundle, context, threads=3)
    manifest, shape = bundle.manifest, DenseShape.of(bundle.manifest)
    assert layers.bytes() == (
        sum(dense_weight_bytes(manifest, shape)), dense_buffer_bytes(manifest, shape, context, 3),
    )  # fmt: skip


def test_the_plan_of_an_engine_has_their_bytes(bundle):
    ours, theirs = (
        plan_of(bundle, EngineOptions(layers=layers, max_context=300), 1 << 30) for layers in ("auto", "onnxruntime")
    )
    assert (ours.layers, ours.head) == dense_weight_bytes(bundle.manifest, DenseShape.of(bundle.manifest))
    assert ours.layers != theirs.layers
    assert plan_of(bundle, EngineOptions(layers="core", max_context=300), 1 << 30) == ours
    assert plan_of(bundle, EngineOptions(experts="numpy", max_context=300), 1 << 30).layers == theirs.layers


def copied(bundle: Bundle, tmp_path: Path, **weight: object) -> Bundle:
    """A copy of the bundle whose table has another first weight of the first layer."""
    shutil.copytree(bundle.path, tmp_path / "copy")
    weights = {graph: list(places) for graph, places in bundle.manifest.weights.items()}
    places = weights[bundle.manifest.graphs.layers[0]]
    places[0] = places[0].model_copy(update=weight)
    return Bundle(tmp_path / "copy", bundle.manifest.model_copy(update={"weights": weights}))


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        (
            {"name": "another"},
            "Weight 'input_layernorm.weight' of 'layers/00.onnx' .* is missing; float32 .* is needed",
        ),
        ({"shape": [3]}, r"is float32 \[3\]; float32 \[\d+\] is needed"),
        ({"dtype": "uint8"}, "is uint8"),
        ({"offset": 1 << 30}, "ends within weight 'input_layernorm.weight'"),
        ({"file": "layers/none"}, "cannot be read"),
    ],
)
def test_weights_that_are_not_there_are_told(bundle, tmp_path, weight, problem):
    damaged = copied(bundle, tmp_path, **weight)
    with pytest.raises(BundleError, match=problem):
        NativeLayers(damaged, 4)


def test_a_hidden_state_that_is_not_finite_is_an_error_and_the_next_call_works(bundle):
    text = bundle.manifest.model.text
    layers = NativeLayers(bundle, TOKENS)
    buffers = LayerBuffers.of(text, 2)
    call = layers.call(buffers, KvCache(text, TOKENS))
    buffers.hidden[...] = 1
    call.begin(np.ones((2, text.head_dim // 2), np.float32), np.zeros((2, text.head_dim // 2), np.float32))
    buffers.hidden[0, 1, 3] = np.nan
    with pytest.raises(BundleError, match="fails in layer 0: an activation of the attention is not finite") as caught:
        call.run(0)
    assert caught.value.key == "bundle.not_finite"
    buffers.hidden[...] = 1
    call.run(0)
    with pytest.raises(BundleError, match="an activation of the head is not finite"):
        layers.logits(np.full(text.hidden_size, np.inf, np.float32))


def test_closed_layers_refuse_and_close_again(bundle):
    layers = NativeLayers(bundle, 4)
    layers.close()
    layers.close()
    with pytest.raises(RuntimeError, match="closed"):
        layers.logits(np.zeros(bundle.manifest.model.text.hidden_size, np.float32))


def test_layers_outlive_the_experts_whose_threads_they_use(bundle):
    experts = NativeExperts(bundle, threads=3)
    layers = NativeLayers(bundle, TOKENS, experts)
    wanted = outputs(layers, bundle)
    experts.close()
    assert all(np.array_equal(a, b) for a, b in zip(outputs(layers, bundle), wanted, strict=True))


def test_an_engine_computes_its_layers_in_the_core_unless_told_otherwise(bundle, monkeypatch):
    opened = []
    for kind in (NativeLayers, OnnxLayers):

        def noting(*arguments, kind=kind, **options):
            opened.append(kind.__name__)
            return kind(*arguments, **options)

        monkeypatch.setattr(f"moedge_runtime.inference.opening.{kind.__name__}", noting)
    for options in (EngineOptions(), EngineOptions(layers="onnxruntime"), EngineOptions(experts="numpy")):
        Engine.open(bundle, dataclasses.replace(options, max_context=64)).close()
    Engine.open(bundle, EngineOptions(experts="numpy", layers="core", max_context=64)).close()
    old = Bundle(bundle.path, bundle.manifest.model_copy(update={"weights": {}}))
    Engine.open(old, EngineOptions(max_context=64)).close()
    assert opened == ["NativeLayers", "OnnxLayers", "OnnxLayers", "NativeLayers", "OnnxLayers"]


def test_the_core_is_refused_where_it_cannot_compute_the_layers(bundle):
    old = Bundle(bundle.path, bundle.manifest.model_copy(update={"weights": {}}))
    with pytest.raises(ConfigError, match="its manifest does not say where the weights of its graphs lie"):
        plan_of(old, EngineOptions(layers="core"), 1 << 30)
    with pytest.raises(ConfigError, match="provider='cuda' on a GPU"):
        plan_of(bundle, EngineOptions(layers="core", provider="cuda"), 1 << 30)


def test_graphs_that_are_to_compute_with_float_activations_have_no_table(bundle, checkpoint):
    floats = bundle.manifest.quantization.attention.bits == 32
    assert bool(exact(bundle, checkpoint).manifest.weights) == floats
