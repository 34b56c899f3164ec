"""The daemon with live cameras, a real broker and a fake model."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from moedge_runtime.mqtt.address import BrokerAddress
from runtime.camera.http_camera import HttpCamera, jpeg
from runtime.daemon.test_service import health_with, running
from runtime.mqtt.listener import Listener

WRITER = """
import sys, time
while True:
    sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())
    sys.stdout.flush()
    time.sleep(0.02)
"""


def test_live_cameras_are_asked_and_say_how_they_are(tmp_path: Path, bundle: Path, broker: BrokerAddress) -> None:
    (tmp_path / "picture.jpg").write_bytes(jpeg(7))
    command = shlex.join([sys.executable, "-c", WRITER, str(tmp_path / "picture.jpg")])

    def answer(handler: Any) -> None:
        handler.reply(200, jpeg(len(camera.requests) % 30), Content_Type="image/jpeg")

    with HttpCamera(answer) as camera:
        cameras = {
            "gate": {"source": f"{camera.url}&token=geheim", "username": "u", "password": "s3cret", "fps": 20},
            "oven": {"source": f"exec:{command}", "frozen_after": "100ms", "fps": 20},
            "yard": {"source": "rtsp://127.0.0.1:1/s"},
        }
        watches = [{"name": name, "camera": name, "question": "Which frame?", "interval": "100ms"} for name in cameras]
        with Listener(broker, "t/#") as listener, running(tmp_path, bundle, broker, cameras=cameras, watches=watches):
            listener.message("t/d/oven/status", "camera.frozen")
            listener.message("t/d/yard/status", "camera.unreachable")
            listener.wait(lambda _: len(listener.on("t/d/gate/answer")) >= 3, "three answers")
            states = {
                name: [json.loads(item)["state"] for item in listener.on(f"t/d/{name}/status")] for name in cameras
            }
            assert (states["gate"][-1], states["oven"][-1], states["yard"][-1]) == ("online", "frozen", "offline")
            assert json.loads(listener.on("t/d/oven/answer")[-1])["text"] == "fake answer: frame 7"
            said = b"".join(message.payload for message in listener.messages)
            assert b"geheim" not in said
            assert b"s3cret" not in said
            first, later = (
                health_with(listener, lambda health, n=n: health["cameras"]["oven"]["reasons"].get("frozen", 0) >= n)
                for n in (3, 12)
            )
            assert first["watches"]["oven"]["due"] == later["watches"]["oven"]["due"] > 0, "a frozen picture is skipped"
