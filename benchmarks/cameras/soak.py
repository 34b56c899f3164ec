"""Runs examples/four_cameras on a real model for a while: do the frames add up, is anything lost, does memory grow?

PYTHONPATH=benchmarks:tests python benchmarks/cameras/soak.py BUNDLE [--minutes 60]

BUNDLE is one of the demo model (`make soak` exports it). Needs mosquitto and GStreamer's RTSP server
(tests/README.md). Prints one JSON object a line, how it is after every five minutes among them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
from figures import report
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

LOOK_S = 5.0
SAY_S = 300.0

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


def main() -> int:
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
            config = write_config(place)
            held = run([*MOEDGE, "run", "--config", str(config)], environment, address, arguments.minutes * 60)
        broker.close()
    return 0 if held else 1


def write_config(place: Path) -> Path:
    """The documented configuration, its monitoring on a free port: the usual one may be another moedge's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = place / CONFIG.name
    config.write_text(f"{CONFIG.read_text(encoding='utf-8')}metrics:\n  port: {port}\n", encoding="utf-8")
    return config


class Heard:
    """What the daemon has said on MQTT so far."""

    def __init__(self) -> None:
        self.health: dict[str, Any] = {}
        self.counts = self.wrong = 0
        self.statuses: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    def note(self, topic: str, payload: bytes) -> bool:
        """Take a message in; whether it was a new `health`."""
        name = topic.removeprefix(f"{ROOT_TOPIC}/")
        if name.endswith("/event"):
            event = json.loads(payload)
            self.statuses[event["status"]] += 1
            (self.asked if event["type"] == "new" else self.ended)[event["id"]] += 1
        elif name.endswith("/answer"):
            self.answers[json.loads(payload)["id"]] += 1
        elif name.endswith("/status") and "/" in name:
            self.states[json.loads(payload)["state"]] += 1
        elif name == "health":
            self.health = json.loads(payload)
            self.counts += len(self.health["cameras"])
            self.wrong += sum(not adds_up(counts) for counts in self.health["cameras"].values())
            return True
        return False

    def lost(self) -> int:
        """Questions that never ended, and answers that events promise and nobody has heard."""
        answered = self.statuses["answered"] + self.statuses["late"] + self.statuses["failed"]
        return len(self.asked.keys() - self.ended.keys()) + answered - len(self.answers)

    def twice(self) -> int:
        """Messages that came again."""
        return sum(count - 1 for heard in (self.asked, self.ended, self.answers) for count in heard.values())


def run(command: list[str], environment: dict[str, str], address: Any, seconds: float) -> bool:
    """Run the daemon and report; whether all bounds are kept."""
    heard, memory = Heard(), Memory(WARM_UP * seconds)
    with (
        tempfile.TemporaryFile("w+") as log,
        Listener(address, f"{ROOT_TOPIC}/#") as listener,
        subprocess.Popen(command, env=environment, stderr=log) as daemon,
    ):
        listener.wait(lambda messages: bool(listener.on(f"{ROOT_TOPIC}/gate/answer")), "the first answer")
        began_s = said_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < seconds and daemon.poll() is None:
            time.sleep(min(LOOK_S, seconds - now_s + 0.1))
            if sum(heard.note(message.topic, message.payload) for message in taken(listener)):
                memory.look(daemon.pid, now_s)
            if time.monotonic() - said_s > SAY_S:
                said_s = time.monotonic()
                report("resident_memory", memory.resident[-1], "bytes", at_s=round(now_s), under_way=heard.lost())
        died = daemon.poll() is not None
        daemon.terminate()
        code = daemon.wait()
        listener.message(f"{ROOT_TOPIC}/status", "stopped")
        for message in taken(listener):
            heard.note(message.topic, message.payload)
        log.seek(0)
        errors = [line for line in log if " ERROR " in line or " CRITICAL " in line]
    sys.stderr.writelines(errors)
    held = [
        report("soak_time", now_s, "s", seconds - 2 * LOOK_S, least=True),
        report("daemon_died", int(died), "times", 0),
        report("exit_code", abs(code), "of the daemon", 0),
        report("errors_in_the_log", len(errors), "lines", 0),
        report("counts_that_do_not_add_up", heard.wrong, f"of {heard.counts}", 0),
        report("failed_answers", heard.statuses["failed"], "events", 0),
        report("camera_failures", heard.states["offline"] + heard.states["stalled"], "states", 0),
        report("messages_lost", heard.lost(), f"of {heard.statuses.total() + len(heard.answers)}", 0),
        report("messages_twice", heard.twice(), "messages", 0),
        report("questions_answered", heard.statuses["answered"], "events", **heard.statuses),
    ]
    for kind, sizes in (("resident", memory.resident), ("anonymous", memory.anonymous)):
        curve = sizes[:: max(1, len(sizes) // 12)]
        held.append(report(f"{kind}_memory_growth", max(sizes) / sizes[0] - 1, "share", MAX_GROWTH, bytes=curve))
    for name, counts in heard.health["cameras"].items():
        missing = counts["frames"] - counts["skipped"] - counts["answered"] - counts["dropped"]
        held.append(
            report(f"{name}_frames_unaccounted_for", abs(missing), f"of {counts['frames']} frames", 0, **counts)
        )
    return all(held)


class Memory:
    """The daemon's memory from `warm_s` seconds on, in bytes."""

    def __init__(self, warm_s: float) -> None:
        self._warm_s = warm_s
        self.resident: list[int] = []
        self.anonymous: list[int] = []
        """Without pages of files, which the kernel takes away and brings back as other processes need memory."""

    def look(self, pid: int, at_s: float) -> None:
        """Note what the kernel says now."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines[1:])}
        if at_s < self._warm_s:
            self.resident.clear()
            self.anonymous.clear()
        self.resident.append(sizes["Rss"])
        self.anonymous.append(sizes["Anonymous"])


def adds_up(counts: dict[str, Any]) -> bool:
    """Whether every frame is in one place, and every one that was not answered has a reason."""
    ended = counts["skipped"] + counts["dropped"]
    return counts["frames"] == ended + counts["answered"] + counts["waiting"] and ended == sum(
        counts["reasons"].values()
    )


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
    sys.exit(main())
