"""One decoder layer without its experts at the size of Qwen3-VL-30B-A3B: the native core beside ONNX Runtime.

    PYTHONPATH=benchmarks python -m dense_layers out/bench-dense

Both compute the same graphs of random weights in turn: several layers one after the other, so that weights come from
memory and not from the processor's cache, for one token with a cache of different lengths and for prompts; then the
head. Prints one JSON object a line (`name`, `value`, `unit`, `spread`). Writes 250 MB and needs 1.5 GB of memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from expert_core.report import report
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers, LayerCall
from moedge_runtime.inference.layers import Layers, OnnxLayers
from moedge_runtime.inference.positions import RotaryTable

from dense_layers.bundle import write_layers

LAYERS = 6
"""In turn: 60 MB of weights at 4 bits, more than the caches of most processors."""
CASES = [(1, 0), (1, 300), (1, 1000), (1, 4000), (220, 0), (1000, 0)]
"""Tokens of a call, and tokens in the cache before it."""
CAPACITY = 4096


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the graphs are written once and kept")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--block-size", type=int, choices=(32, 64, 128), default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25, help="of one token; prompts take fewer")
    arguments = parser.parse_args()
    bits, block = arguments.bits, arguments.block_size
    bundle = write_layers(arguments.directory / f"layers-int{bits}-{block}", LAYERS, bits, block)
    text = bundle.manifest.model.text
    name = f"INT{bits} block {block}"
    cache = KvCache(text, CAPACITY)
    random = np.random.default_rng(0)
    for layer in range(LAYERS):
        for array in cache.memory(layer):
            array[...] = random.standard_normal(array.shape, np.float32)
    ours: Layers = NativeLayers(bundle, CAPACITY, threads=arguments.threads)
    theirs: Layers = OnnxLayers(bundle, threads=arguments.threads)
    rotary = RotaryTable(text.head_dim, text.rope_theta, text.mrope_section)
    for tokens, past in CASES:
        rounds = arguments.rounds if tokens == 1 else max(3, arguments.rounds // 6)
        positions = np.repeat(np.arange(past, past + tokens)[None], 3, axis=0)
        calls = []
        for layers in (ours, theirs):
            buffers = LayerBuffers.of(text, tokens)
            buffers.hidden[...] = random.standard_normal(buffers.hidden.shape, np.float32)
            cache.length = past
            call = layers.call(buffers, cache)
            call.begin(*rotary.cos_sin(positions))
            calls.append(partial(_pass, call))
        compare(f"{name}, {tokens} tokens after {past:,}", *calls, rounds, LAYERS)
    hidden = random.standard_normal(text.hidden_size, np.float32)
    compare(f"{name}, head", partial(ours.logits, hidden), partial(theirs.logits, hidden), arguments.rounds, 1)


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int) -> None:
    """Run both in turn; each round is `calls` calls."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for own, run in zip(times, (ours, theirs), strict=True):
            start = perf_counter()
            run()
            if turn:
                own.append((perf_counter() - start) * 1e3 / calls)
    report(f"{name}: core", times[0], "ms")
    report(f"{name}: ONNX Runtime", times[1], "ms")
    report(f"{name}: core over ONNX Runtime", _ratios(*times), "ratio", fastest=round(min(times[0]) / min(times[1]), 3))


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _pass(call: LayerCall) -> None:
    for layer in range(LAYERS):
        call.run(layer)


if __name__ == "__main__":
    main()
