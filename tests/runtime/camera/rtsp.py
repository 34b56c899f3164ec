"""Starts and ends the RTSP server of rtsp_server.py, and says what it plays."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = "/usr/bin/python3"
"""Debian's own: its package python3-gi is for no other."""

SERVER = Path(__file__).with_name("rtsp_server.py")

RED, GREEN = 0xFFC02020, 0xFF20A020


def h264(*, size: str = "320x240", fps: int = 25, key_interval: int = 25, colour: int = RED, slices: int = 1) -> str:
    """A GStreamer pipeline that encodes a live test picture as cameras do, without B-frames."""
    threads = f"sliced-threads={str(slices > 1).lower()} threads={slices}"
    encoder = f"x264enc tune=zerolatency {threads} speed-preset=ultrafast key-int-max={key_interval}"
    return _pipeline(size, fps, colour, f"{encoder} ! h264parse ! rtph264pay name=pay0 config-interval=-1")


def h265(*, size: str = "320x240", fps: int = 25, key_interval: int = 25, colour: int = RED) -> str:
    """The same in H.265."""
    encoder = f"x265enc tune=zerolatency speed-preset=ultrafast key-int-max={key_interval} option-string=pools=1"
    return _pipeline(size, fps, colour, f"{encoder} ! h265parse ! rtph265pay name=pay0 config-interval=-1")


def mjpeg(*, size: str = "320x240", fps: int = 25, colour: int = RED) -> str:
    """The same as MJPEG, the other codec that RTSP cameras speak."""
    return _pipeline(size, fps, colour, "jpegenc ! rtpjpegpay name=pay0")


def _pipeline(size: str, fps: int, colour: int, rest: str) -> str:
    width, height = size.split("x")
    return (
        f"( videotestsrc is-live=true pattern=solid-color foreground-color={colour} ! video/x-raw,framerate={fps}/1 "
        f"! videoscale ! capsfilter name=size caps=video/x-raw,width={width},height={height},format=I420 "
        f"! videoconvert ! {rest} )"
    )


def need_server() -> None:
    """Skip the test where Debian's packages are not installed."""
    probe = 'import gi; gi.require_version("GstRtspServer", "1.0")'
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", probe], check=False, capture_output=True).returncode:
        pytest.skip("apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly")


class RtspServer:
    """One server process; use as a context manager."""

    def __init__(self, launch: str, **settings: Any) -> None:
        self._process = subprocess.Popen(
            [PYTHON, str(SERVER), json.dumps({"launch": launch, **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip().isdigit(), "the RTSP server did not start"
        self.port = int(line)
        self.scheme = "rtsps" if "certificate" in settings else "rtsp"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def tell(self, command: str) -> None:
        """Send a command; returns when it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def pause(self) -> None:
        """Keep every connection and say nothing any more, as a camera that hangs."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut, but that the kernel closes the connections."""
        self._process.kill()
        self._process.wait()
