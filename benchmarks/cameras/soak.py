"""Runs examples/four_cameras on a real model for a while: do the frames add up, does anything fail, does memory grow?

PYTHONPATH=tests python benchmarks/cameras/soak.py BUNDLE [--minutes 60]

BUNDLE is one of the demo model (`make demo` writes out/demo/bundle). Needs mosquitto and GStreamer's RTSP server
(tests/README.md). Prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from runtime.camera.http_camera import HttpCamera
from runtime.camera.rtsp import RtspServer
from runtime.mqtt.brokers import running_mosquitto
from runtime.mqtt.listener import Listener

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "examples/four_cameras/moedge.yaml"
VIDEO = ROOT / "examples/panel/video/panel.mp4"
ROOT_TOPIC = "moedge/yard-01"

WARM_UP = 0.2
"""Share of the time after which memory is looked at: by then every part has been used."""

MAX_GROWTH = 0.02

MOEDGE = [sys.executable, "-c", "from moedge_runtime.cli.main import main; main()"]
PLAYER = """
import glob, sys, time
pictures = [open(path, "rb").read() for path in sorted(glob.glob(sys.argv[1] + "/*.jpg"))]
while True:
    for picture in pictures:
        sys.stdout.buffer.write(picture)
        sys.stdout.flush()
        time.sleep(0.5)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_pictures(place)
        pictures = [path.read_bytes() for path in sorted(place.glob("*.jpg"))]
        shown = itertools.cycle(pictures)
        broker = running_mosquitto(place)
        address = next(broker)
        launch = (
            f"( multifilesrc location={place}/%04d.jpg index=0 loop=true caps=image/jpeg,framerate=2/1 ! jpegdec "
            "! videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=2 ! rtph264pay name=pay0 )"
        )
        with RtspServer(launch) as rtsp, HttpCamera(lambda handler: reply(handler, next(shown))) as http:
            environment = os.environ | {
                "BUNDLE": str(arguments.bundle.resolve()),
                "BROKER_URL": f"mqtt://127.0.0.1:{address.port}",
                "RTSP_URL": rtsp.url,
                "HTTP_URL": http.url,
                "VIDEO": str(VIDEO),
                "COMMAND": shlex.join([sys.executable, "-c", PLAYER, str(place)]),
            }
            run([*MOEDGE, "run", "--config", str(CONFIG)], environment, address, arguments.minutes * 60)
        broker.close()


def run(command: list[str], environment: dict[str, str], address: Any, seconds: float) -> None:
    """Run the daemon and report."""
    statuses: Counter[str] = Counter()
    states: Counter[str] = Counter()
    health: dict[str, Any] = {}
    memory: list[tuple[float, int]] = []
    wrong = checked = 0
    with Listener(address, f"{ROOT_TOPIC}/#") as listener, subprocess.Popen(command, env=environment) as daemon:
        listener.wait(lambda messages: bool(listener.on(f"{ROOT_TOPIC}/gate/answer")), "the first answer")
        began_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < seconds and daemon.poll() is None:
            time.sleep(min(5.0, seconds - now_s + 0.1))
            for message in taken(listener):
                name = message.topic.removeprefix(f"{ROOT_TOPIC}/")
                if name.endswith("/event"):
                    statuses[json.loads(message.payload)["status"]] += 1
                elif name.endswith("/status") and "/" in name:
                    states[json.loads(message.payload)["state"]] += 1
                elif name == "health":
                    health = json.loads(message.payload)
                    memory.append((now_s, health["rss_bytes"]))
                    checked += len(health["cameras"])
                    wrong += sum(not adds_up(counts) for counts in health["cameras"].values())
        died = daemon.poll() is not None
        daemon.terminate()
    say("soak_time", round(now_s), "s", seconds - 10, lambda value, bound: value >= bound)
    say("daemon_died", int(died), "times", 0)
    say("counts_that_do_not_add_up", wrong, f"of {checked}", 0)
    say("failed_answers", statuses["failed"], "events", 0)
    say("camera_failures", states["offline"] + states["stalled"], "states", 0)
    warm = next((size for at_s, size in memory if at_s >= WARM_UP * seconds), memory[-1][1])
    growth = max(size for at_s, size in memory if at_s >= WARM_UP * seconds) / warm - 1
    curve = [size for _, size in memory[:: max(1, len(memory) // 10)]]
    say("resident_memory_growth", round(growth, 4), "share", MAX_GROWTH, rss_bytes=curve)
    for name, counts in health["cameras"].items():
        print(json.dumps({"name": f"camera_{name}", "value": counts["frames"], "unit": "frames", **counts}))
    print(json.dumps({"name": "events", "value": statuses.total(), "unit": "events", **statuses}), flush=True)


def adds_up(counts: dict[str, Any]) -> bool:
    """Whether every frame is in one place, and every one that was not answered has a reason."""
    ended = counts["skipped"] + counts["dropped"]
    return counts["frames"] == ended + counts["answered"] + counts["waiting"] and ended == sum(
        counts["reasons"].values()
    )


def say(
    name: str,
    value: float,
    unit: str,
    bound: float,
    holds: Callable[[float, float], bool] = lambda value, bound: value <= bound,
    **more: Any,
) -> None:
    print(json.dumps({"name": name, "value": value, "unit": unit, "bound": bound, "ok": holds(value, bound), **more}))


def taken(listener: Listener) -> list[Any]:
    """What came since the last time."""
    messages = list(listener.messages)
    del listener.messages[: len(messages)]
    return messages


def write_pictures(directory: Path) -> None:
    """A frame of the demo's video each half second, 40 of them, in the order of their names."""
    with av.open(str(VIDEO)) as container:
        stream = container.streams.video[0]
        step = max(1, round(float(stream.average_rate or 25) / 2))
        chosen = itertools.islice(container.decode(stream), 0, 40 * step, step)
        for number, frame in enumerate(chosen):
            frame.to_image().save(directory / f"{number:04}.jpg", quality=92)


def reply(handler: Any, picture: bytes) -> None:
    handler.reply(200, picture, Content_Type="image/jpeg")


if __name__ == "__main__":
    main()
