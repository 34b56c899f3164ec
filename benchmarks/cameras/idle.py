"""What one gated 1080p RTSP camera costs while nothing happens: CPU and memory of a process that reads it alone.

PYTHONPATH=benchmarks:tests python benchmarks/cameras/idle.py [--seconds 20] [--fps 1]

The stream is H.264, 1920x1080, 25 frames a second, encoded beforehand from a moving picture with noise. All that the
daemon does with a frame that is not asked about is measured: decoding, two masks, the check for black and frozen
pictures, motion in two zones, a schedule, the counters. Prints one JSON object a line for each distance of key frames:
with one a second they are all that is decoded, with one in ten seconds the frames in between are, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from figures import report
from moedge_runtime.config import CameraConfig, TimeConfig, WatchConfig
from moedge_runtime.daemon.cameras import check_of, gate_of, open_camera, preparation_of
from moedge_runtime.daemon.clock import clock_synced, rss_bytes
from moedge_runtime.frames.gate import frame_reason
from moedge_runtime.frames.ledger import FrameLedger
from runtime.camera.rtsp import RtspServer

BOUND_CORES = 0.08
"""For a camera at one frame a second."""

WIDTH, HEIGHT, RATE = 1920, 1080, 25
KEY_INTERVALS = (25, 50, 250)
CAMERA = {
    "first_frame_timeout": 60,
    "stall_timeout": 60,
    "masks": ["0,0,0.3,0,0.3,0.3,0,0.3", [[0.7, 0.6], [1, 0.6], [1, 1], [0.8, 1]]],
    "zones": {"door": "0,0.6,0.3,0.6,0.3,1,0,1", "drive": "0.3,0.7,0.6,0.7,0.6,1,0.3,1"},
    "motion": True,  # the square of the video moves above the zones
    "schedule": ["00:00-24:00"],
}
WATCH = {"name": "w", "camera": "c", "question": "?", "interval": 1, "zones": ["door", "drive"]}

START_S = 3.0
"""Of the stream, for joining it and for its first frame."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fps", type=float, default=1.0)
    arguments = parser.parse_args()
    held = []
    with tempfile.TemporaryDirectory() as directory:
        for key_interval in KEY_INTERVALS:
            video = Path(directory) / f"{key_interval}.mp4"
            encode(video, arguments.seconds + START_S, key_interval)
            launch = f"( filesrc location={video} ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=-1 )"
            size = video.stat().st_size
            # A process of its own: else the memory of one would be there already for the next.
            with RtspServer(launch) as server, ProcessPoolExecutor(1, get_context("spawn")) as process:
                measured = process.submit(measure, server.url, key_interval, size, arguments.seconds, arguments.fps)
                held.append(measured.result())
    return 0 if all(held) else 1


def encode(path: Path, seconds: float, key_interval: int) -> None:
    """Write a video: a bright square that moves over noise that changes."""
    noise = np.random.default_rng(0).integers(90, 120, (HEIGHT + RATE, WIDTH + RATE), np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(key_interval), "crf": "28", "slices": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(round(seconds * RATE)):
            at = index % RATE
            grey = noise[at : at + HEIGHT, -WIDTH - at : -at or None].copy()
            grey[400:600, 8 * index % 1700 :][:, :200] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def measure(url: str, key_interval: int, file_bytes: int, seconds: float, fps: float) -> bool:
    """Play `url` for `seconds` after its first frame and report the cost; whether the bound is kept."""
    camera = CameraConfig.model_validate(CAMERA | {"source": url, "fps": fps})
    watch = WatchConfig.model_validate(WATCH)
    preparation = preparation_of(camera)
    check, gate, ledger = check_of(camera, preparation), gate_of(camera, [watch], TimeConfig()), FrameLedger()
    assert check is not None
    frames, before_bytes = 0, rss_bytes() or 0
    began_s = cpu_s = last_s = 0.0
    for frame in open_camera(camera, [watch.interval], preparation).frames():
        finding = check.look(frame)
        verdicts = gate.decide(frame, finding.kind if finding else None, clock_synced())
        ledger.skipped(frame_reason(verdicts) or "asked")
        frames, last_s = frames + 1, frame.monotonic_s
        if frames == 1:
            began_s, cpu_s, last_index = time.monotonic(), time.process_time(), frame.index
        elif last_s - began_s < seconds:
            load = (time.process_time() - cpu_s) / (last_s - began_s)
            sent = (frame.index - last_index) / (last_s - began_s)
            given = (frames - 1) / (last_s - began_s)
    return report(
        f"rtsp_1080p_cpu_key_frame_every_{key_interval}",
        load,
        "cores",
        BOUND_CORES,
        frames_given_per_s=round(given, 2),
        frames_sent_per_s=round(sent, 1),
        stream_mbit_per_s=round(file_bytes * 8e-6 / (seconds + START_S), 1),
        memory_bytes=(rss_bytes() or 0) - before_bytes,
        frames_by_reason=ledger.counts().reasons,
    )


if __name__ == "__main__":
    sys.exit(main())
