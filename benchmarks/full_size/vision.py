"""The vision tower for one picture: ours in ONNX Runtime and the same one under torch, in processes of their own.

python -m full_size.vision ours BUNDLE
python -m full_size.vision torch CONFIG_JSON
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

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


def _ours(bundle_path: str) -> float:
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415  torch's process does without
    from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings  # noqa: PLC0415
    from moedge_runtime.inference.vision import VisionEncoder  # noqa: PLC0415

    bundle = Bundle.open(bundle_path)
    processor = ImageProcessor(ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json")), None)
    image = processor(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    encoder = VisionEncoder(bundle)
    return _median_seconds(lambda: encoder.encode([image]))


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
    print(_ours(*arguments) if kind == "ours" else _torch(*arguments))
