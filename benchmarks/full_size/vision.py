"""The vision tower for one picture: ours beside the same one under torch, and the native core beside ONNX Runtime.

python -m full_size.vision ours BUNDLE
python -m full_size.vision torch CONFIG_JSON DTYPE
python -m full_size.vision beside BUNDLE: the native core and ONNX Runtime in turn, JSON lines of medians of the wall's
and of processor time, with weights that are resident and with weights that are loaded for the picture
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

FORWARDS = 5
HEIGHT, WIDTH = 352, 640


def vision_seconds(bundle: Path, rounds: int) -> dict[str, list[float]]:
    """Median seconds of a forward of each round: `ours`, `torch float32`, `torch bfloat16`."""
    result: dict[str, list[float]] = {"ours": [], "torch float32": [], "torch bfloat16": []}
    commands = {"ours": ["ours", str(bundle)]} | {
        f"torch {dtype}": ["torch", str(bundle / "config.json"), dtype] for dtype in ("float32", "bfloat16")
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _ in range(rounds):
        for name, arguments in commands.items():
            command = [sys.executable, "-m", "full_size.vision", *arguments]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            result[name].append(float(done.stdout))
    return result


def _forward(bundle_path: str, layers: str = "auto", *, resident: bool = True) -> Callable[[], object]:
    """Encodes a picture; `layers` as in EngineOptions."""
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415  torch's process does without
    from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings  # noqa: PLC0415
    from moedge_runtime.inference.opening import open_vision  # noqa: PLC0415
    from moedge_runtime.inference.request import EngineOptions  # noqa: PLC0415

    bundle = Bundle.open(bundle_path)
    processor = ImageProcessor(ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json")), None)
    image = processor(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    encoder = open_vision(bundle, EngineOptions(layers=layers), resident=resident)  # type: ignore[arg-type]
    return lambda: encoder.encode([image])


def _beside(bundle_path: str) -> None:
    for resident in (True, False):
        forwards = {layers: _forward(bundle_path, layers, resident=resident) for layers in ("core", "onnxruntime")}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in forwards}
        for turn in range(1 + FORWARDS):
            for name, forward in forwards.items():
                start = perf_counter(), process_time()
                forward()
                if turn > 0:
                    times[name].append((perf_counter() - start[0], process_time() - start[1]))
        for name, both in times.items():
            for value, kind in zip(zip(*both, strict=True), ("wall", "processor"), strict=True):
                report = {"name": f"vision {name} {'resident' if resident else 'loaded'} {kind}", "unit": "s"}
                print(json.dumps(report | {"value": round(statistics.median(value), 3), "spread": _spread(value)}))


def _spread(values: tuple[float, ...]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def _torch(config_path: str, dtype: str) -> float:
    import torch  # noqa: PLC0415  ours does without
    from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as modeling  # noqa: PLC0415
    from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeVisionConfig  # noqa: PLC0415

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    content = json.loads(Path(config_path).read_text(encoding="utf-8"))["vision_config"]
    config = Qwen3VLMoeVisionConfig(**content)
    config._attn_implementation = "sdpa"
    model = modeling.Qwen3VLMoeVisionModel(config).to(getattr(torch, dtype)).eval()
    side = config.patch_size
    grid = torch.tensor([[1, HEIGHT // side, WIDTH // side]])
    values = 3 * config.temporal_patch_size * side * side
    patches = torch.randn(int(grid.prod()), values).to(getattr(torch, dtype))
    with torch.inference_mode():
        return _median_seconds(lambda: model(patches, grid_thw=grid))


def _median_seconds(forward: Callable[[], object]) -> float:
    forward()
    times = []
    for _ in range(FORWARDS):
        start = perf_counter()
        forward()
        times.append(perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "beside":
        _beside(*arguments)
    else:
        print(_median_seconds(_forward(*arguments)) if kind == "ours" else _torch(*arguments))
