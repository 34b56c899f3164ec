"""`csi:` source: a camera on the board's ribbon connector, through the board's own tool.

Raspberry Pi: rpicam-vid (libcamera-vid before Debian 12). Jetson: gst-launch-1.0 with nvarguscamerasrc. Neither has
been run on a board yet; tests run programs that imitate them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

from moedge_runtime.errors import CameraError

RASPBERRY_TOOLS = ("rpicam-vid", "libcamera-vid")
JETSON_TOOL = "gst-launch-1.0"

DEFAULT_SIZE = (1280, 720)
MIN_RATE = 5
"""Pictures a second that the camera makes at least: exposure and white balance settle over about ten of them."""

SENSOR_RATE = 30
"""Pictures a second of the sensor mode on Jetson; most have one."""


def csi_command(
    number: int, *, size: tuple[int, int] | None, fps: float | None, which: Callable[[str], str | None] = shutil.which
) -> list[str]:
    """The command that writes camera `number` as MJPEG to its standard output.

    Args:
        number: The camera's number, from 0.
        size: Width and height; None for `DEFAULT_SIZE`.
        fps: Frames wanted a second; None for `SENSOR_RATE`.
        which: Finds a program.

    Raises:
        CameraError: This board has neither tool.
    """
    width, height = size or DEFAULT_SIZE
    rate = SENSOR_RATE if fps is None else min(SENSOR_RATE, max(MIN_RATE, math.ceil(fps)))
    for tool in RASPBERRY_TOOLS:
        if which(tool):
            return [
                *(tool, "--camera", str(number), "--timeout", "0", "--nopreview", "--flush", "--codec", "mjpeg"),
                *("--width", str(width), "--height", str(height), "--framerate", str(rate), "--output", "-"),
            ]
    if which(JETSON_TOOL):
        stages = (
            f"nvarguscamerasrc sensor-id={number}",
            f"video/x-raw(memory:NVMM),width={width},height={height},framerate={SENSOR_RATE}/1",
            f"videorate drop-only=true max-rate={rate}",
            "nvjpegenc",
            "fdsink fd=1",
        )
        return [JETSON_TOOL, "--quiet", *" ! ".join(stages).split(" ")]
    raise CameraError(
        f"A CSI camera needs {' or '.join(RASPBERRY_TOOLS)} (Raspberry Pi) or {JETSON_TOOL} with nvarguscamerasrc "
        "(Jetson); none is on the PATH. Install rpicam-apps or the board's GStreamer packages.",
        key="camera.tool_missing",
    )
