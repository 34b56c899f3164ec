"""How fast this machine computes the parts of a frame with everything in memory, one part at a time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import numpy as np
import numpy.typing as npt

from moedge_runtime.bench.operations import expert_operations, layer_operations, vision_operations
from moedge_runtime.bundle import Bundle, TextInfo
from moedge_runtime.inference.expert_core.bank import NativeExperts
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers, LayerCall
from moedge_runtime.inference.layer_runner import LayerRunner
from moedge_runtime.inference.memory_plan import CORE_BYTES
from moedge_runtime.inference.onnx_session import open_session
from moedge_runtime.inference.opening import open_vision
from moedge_runtime.inference.request import EngineOptions

Picture = npt.NDArray[np.uint8]

TOKENS = 220
"""Of the prefill that is timed: a picture of 640 × 352."""

RING_RECORDS = 16
"""The most that the core sets apart for the scan of a prefill."""


def expert_rate(
    bundle: Bundle, threads: int, *, tokens: int = TOKENS, rounds: int = 5, isa: str | None = None
) -> float:
    """Operations a second of the expert core in the first layer that has experts, uniform routing, all in memory.

    Args:
        bundle: A paged one; only records of that layer are read.
        threads: That compute.
        tokens: Of one call.
        rounds: Of which the median is taken.
        isa: Instruction set; None for the best.

    Raises:
        BundleError: A record is damaged or cannot be read.
        ConfigError: The core cannot be used.
    """
    manifest = bundle.manifest
    text, info = manifest.model.text, manifest.experts
    assert info is not None, "an inline bundle has no records"
    budget = (text.num_experts + RING_RECORDS) * info.record_bytes + CORE_BYTES
    random = np.random.default_rng(0)
    inputs = random.standard_normal((tokens, text.hidden_size), np.float32)
    logits = random.standard_normal((tokens, text.num_experts), np.float32)
    experts = NativeExperts(bundle, budget, threads=threads, max_tokens=tokens, prefetch=False, isa=isa)
    try:
        layer = text.moe_layers[0]
        seconds = _median_seconds(lambda: experts.compute(layer, inputs, logits), rounds)
    finally:
        experts.close()
    return expert_operations(manifest, tokens) / len(text.moe_layers) / seconds


def layer_rate(bundle: Bundle, threads: int, *, tokens: int = TOKENS, rounds: int = 5) -> float:
    """Operations a second of the first decoder layer without its experts, in the core or, without a table of weights,
    in ONNX Runtime; likewise.
    """
    manifest = bundle.manifest
    moe_layers = [layer for layer in manifest.model.text.moe_layers if layer == 0]
    text = manifest.model.text.model_copy(update={"num_hidden_layers": 1, "moe_layers": moe_layers})
    cache, buffers = KvCache(text, tokens), LayerBuffers.of(text, tokens)
    runner: LayerCall
    if manifest.weights:
        runner = NativeLayers(_first_layer(bundle, text), tokens, threads=threads).call(buffers, cache)
    else:
        session = open_session(bundle.file(manifest.graphs.layers[0]), threads=threads)
        runner = LayerRunner([session], text, buffers, cache)
    buffers.hidden[...] = np.random.default_rng(0).standard_normal(buffers.hidden.shape, np.float32)
    angles = np.zeros((tokens, text.head_dim // 2), np.float32)
    runner.begin(np.cos(angles), np.sin(angles))
    seconds = _median_seconds(lambda: runner.run(0), rounds)
    return layer_operations(manifest, tokens) / manifest.model.text.num_hidden_layers / seconds


def _first_layer(bundle: Bundle, text: TextInfo) -> Bundle:
    """The bundle as if it had one layer only, that of `text`."""
    manifest = bundle.manifest
    model = manifest.model.model_copy(update={"text": text})
    graphs = manifest.graphs.model_copy(update={"layers": manifest.graphs.layers[:1]})
    return Bundle(bundle.path, manifest.model_copy(update={"model": model, "graphs": graphs}))


def vision_rate(bundle: Bundle, threads: int, picture: Picture, *, rounds: int = 3) -> float:
    """Operations a second of the vision tower for `picture`, uint8 [height, width, 3]; likewise."""
    settings = ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json"))
    image = ImageProcessor(settings)(picture)
    encoder = open_vision(bundle, EngineOptions(threads=threads))
    seconds = _median_seconds(lambda: encoder.encode([image]), rounds)
    return vision_operations(bundle.manifest, image.grid_thw[1] * image.grid_thw[2]) / seconds


def _median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Of `rounds` calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return statistics.median(seconds)
