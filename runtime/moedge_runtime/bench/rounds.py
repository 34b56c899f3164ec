"""Cold frame, same scene, scene change, in turn and as often as asked, with the bandwidths measured around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
import numpy.typing as npt

from moedge_runtime.bench.bandwidth import flash_bandwidth, memory_bandwidth
from moedge_runtime.bench.frame import FrameMeasurement, measure_frame
from moedge_runtime.bench.limits import Bandwidths
from moedge_runtime.bundle import Bundle
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference import AskRequest, Engine, EngineOptions
from moedge_runtime.inference.onnx_session import thread_count

FRAMES = ("cold frame", "same scene", "scene change")
"""The first after the model was loaded, the same picture again at once, and another picture at once."""

QUESTION = "Describe everything that can be seen in this picture, from left to right."

PICTURE_SIZE = (352, 640)
"""Height and width of the picture if none is given: 220 image tokens of Qwen3-VL."""

FLASH_RECORDS = 200
"""Records of one measurement of the flash: 0.5 GB at the size of Qwen3-VL-30B-A3B."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Round:
    """One load and its three frames.

    Attributes:
        load_s: From nothing to an engine that can answer.
        frames: In the order of `FRAMES`.
        bandwidths: The flash's is the mean of before and after.
        memory: How the process divided its memory.
    """

    load_s: float
    frames: list[FrameMeasurement]
    bandwidths: Bandwidths
    memory: str


def synthetic_picture(seed: int = 0) -> Picture:
    """Coloured noise of `PICTURE_SIZE`, the same for the same seed: uint8 [height, width, 3]."""
    height, width = PICTURE_SIZE
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def changed_scene(picture: Picture) -> Picture:
    """Another picture of the same size: mirrored, so that every patch differs."""
    return np.ascontiguousarray(picture[:, ::-1])


def run_rounds(
    bundle: Bundle,
    options: EngineOptions,
    *,
    picture: Picture,
    tokens: int,
    rounds: int,
    pause_s: float,
    progress: Callable[[str], None],
) -> list[Round]:
    """Measure `rounds` rounds.

    Args:
        bundle: A paged one.
        options: How the engine runs.
        picture: uint8 [height, width, 3] in RGB.
        tokens: Decoded after the first, whether the model has ended its answer or not.
        rounds: At least one.
        pause_s: Idle before every frame, as between those of a camera: the flash reads ahead meanwhile.
        progress: Told what is being measured.

    Raises:
        ConfigError: The bundle is inline, or an option is out of range.
        StorageError: The flash cannot be measured.
    """
    if bundle.manifest.form != "paged":
        raise ConfigError(
            f"Bundle '{bundle.path}' is inline: it reads nothing from flash while it answers, so there is nothing to "
            f"compare it with. Measure a bundle that was exported with --experts paged.",
            key="bench.inline",
        )
    progress("bandwidth of the memory")
    memory = memory_bandwidth(thread_count(options.threads))
    request = AskRequest(QUESTION, images=[picture], max_new_tokens=tokens + 1, ignore_end=True)
    changed = AskRequest(QUESTION, images=[changed_scene(picture)], max_new_tokens=tokens + 1, ignore_end=True)
    measured = []
    progress("bandwidth of the flash")
    before = flash_bandwidth(bundle, FLASH_RECORDS, options.expert_readers, seed=0)
    for index in range(1, rounds + 1):
        progress(f"round {index} of {rounds}: loading")
        start = perf_counter()
        with Engine.open(bundle, options) as engine:
            load_s = perf_counter() - start
            memory_plan = "" if engine.plan is None else engine.plan.line()
            frames = []
            for name, each in zip(FRAMES, (request, request, changed), strict=True):
                progress(f"round {index} of {rounds}: {name}")
                sleep(pause_s)
                frames.append(measure_frame(engine, each))
        after = flash_bandwidth(bundle, FLASH_RECORDS, options.expert_readers, seed=index)
        measured.append(Round(load_s, frames, Bandwidths(memory, (before + after) / 2), memory_plan))
        before = after
    return measured
