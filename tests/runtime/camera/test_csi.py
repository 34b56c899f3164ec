"""The boards' tools are imitated by programs on the PATH; no board has run this."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from moedge_runtime.camera import SourceOptions, open_source
from moedge_runtime.camera.csi import csi_command
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError
from runtime.camera.rtsp import PYTHON, need_server

TIMEOUTS = Timeouts(30.0, 30.0)

RPICAM = """#!{python}
# Imitates rpicam-vid: knows the options of rpicam-apps 1.5 that are used here, and writes MJPEG of the wanted size.
import argparse, io, sys, time
from PIL import Image
parser = argparse.ArgumentParser()
for option in ("camera", "width", "height", "framerate", "timeout"):
    parser.add_argument("--" + option, type=int, required=True)
parser.add_argument("--codec", choices=["mjpeg"], required=True)
parser.add_argument("--output", choices=["-"], required=True)
parser.add_argument("--nopreview", action="store_true", required=True)
parser.add_argument("--flush", action="store_true", required=True)
options = parser.parse_args()
if options.camera != 1:
    sys.exit("ERROR: *** no cameras available ***")
assert options.timeout == 0, "0 is for ever"
file = io.BytesIO()
Image.new("RGB", (options.width, options.height), (200, options.framerate, 0)).save(file, "JPEG")
sys.stderr.write("Mode selection for 1640:1232:12:P\\n")
while True:
    sys.stdout.buffer.write(file.getvalue())
    sys.stdout.buffer.flush()
    time.sleep(1 / options.framerate)
"""

GST_LAUNCH = """#!{python}
# Imitates gst-launch-1.0 on a Jetson: runs the pipeline in the real GStreamer, with a test picture for the camera and
# the CPU's JPEG encoder for the chip's; writes what NVIDIA's camera library writes to standard output in between.
import os, sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
assert sys.argv[1] == "--quiet"
text = " ".join(sys.argv[2:])
board = (("nvarguscamerasrc sensor-id=0", "videotestsrc is-live=true"), ("(memory:NVMM)", ""), ("nvjpegenc", "jpegenc"))
for theirs, ours in board:
    assert theirs in text, theirs
    text = text.replace(theirs, ours)
os.write(1, b"GST_ARGUS: Creating output stream\\nCONSUMER: Waiting until producer is connected...\\n")
Gst.init(None)
pipeline = Gst.parse_launch(text)
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.ERROR | Gst.MessageType.EOS)
sys.exit(message.parse_error()[1])
"""


def tool(directory: Path, name: str, text: str, python: str) -> None:
    path = directory / name
    path.write_text(text.format(python=python))
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["rpicam-vid", "libcamera-vid"])
def test_on_a_raspberry_pi_frames_come_through_its_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tool(tmp_path, name, RPICAM, sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = open_source("csi:1", SourceOptions(fps=2.0, size=(640, 360), timeouts=TIMEOUTS))
    frame = next(iter(source.frames()))
    assert frame.image.shape == (360, 640, 3)
    assert abs(int(frame.image[0, 0, 0]) - 200) < 4
    assert abs(int(frame.image[0, 0, 1]) - 5) < 4, "pictures a second: no fewer than exposure control needs"
    with pytest.raises(CameraError) as caught:
        list(open_source("csi:0", SourceOptions(timeouts=TIMEOUTS)).frames())
    assert str(caught.value) == f"'{name}' ended with status 1: ERROR: *** no cameras available ***."


def test_on_a_jetson_frames_come_through_gstreamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_server()
    tool(tmp_path, "gst-launch-1.0", GST_LAUNCH, PYTHON)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = open_source("csi:0", SourceOptions(fps=5.0, size=(640, 360), timeouts=TIMEOUTS))
    frames = []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == 3:
            break
    assert frames[0].image.shape == (360, 640, 3)
    assert frames[2].index <= 3, "GStreamer drops what is not wanted before it is encoded"


def test_the_raspberry_pi_s_tool_goes_first_and_a_board_with_none_says_so() -> None:
    command = csi_command(0, size=None, fps=None, which=lambda name: name)
    assert command[0] == "rpicam-vid"
    assert command[command.index("--framerate") + 1] == "30"
    with pytest.raises(CameraError) as caught:
        csi_command(0, size=None, fps=None, which=lambda name: None)
    assert str(caught.value) == (
        "A CSI camera needs rpicam-vid or libcamera-vid (Raspberry Pi) or gst-launch-1.0 with nvarguscamerasrc "
        "(Jetson); none is on the PATH. Install rpicam-apps or the board's GStreamer packages."
    )


def test_a_camera_is_named_by_its_number() -> None:
    with pytest.raises(CameraError, match=r"'csi:front' names no camera\. Write its number, for example csi:0\."):
        open_source("csi:front", SourceOptions())
