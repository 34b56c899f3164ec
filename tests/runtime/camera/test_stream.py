"""Damaged streams: real H.264, cut by hand, in the place of what a camera sends."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from moedge_runtime.camera.stream import StreamSource
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError
from runtime.camera.videos import HEIGHT, WIDTH, brightness, number_of

GROUP = 10


class FileInput:
    """A file, opened as a stream would be."""

    advice = "Check the file."

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self._path, self._descriptor = path, descriptor

    def open(self, av: Any, timeouts: Timeouts) -> Any:
        return av.open(str(self._path))

    def descriptor(self) -> int | None:
        return self._descriptor

    def explain(self, error: Any) -> CameraError:
        return CameraError(str(error))


def packets(frames: int) -> list[bytes]:
    """H.264 with a key frame every `GROUP` frames, two slices a frame, as bright as their numbers."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = WIDTH, HEIGHT, "yuv420p", 25
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "10", "g": str(GROUP), "slices": "2"}
    found = []
    for index in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), brightness(index), np.uint8)
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        picture.pts = index
        found += [bytes(packet) for packet in encoder.encode(picture)]
    return found


def play(path: Path, content: list[bytes]) -> list[int]:
    path.write_bytes(b"".join(content))
    source = StreamSource(FileInput(path), fps=None, timeouts=Timeouts())
    return [number_of(frame.image) for frame in source.frames()]


def test_a_damaged_frame_is_not_shown_and_neither_is_what_builds_on_it(tmp_path: Path) -> None:
    content = packets(3 * GROUP)
    assert play(tmp_path / "whole.h264", content) == list(range(3 * GROUP))
    second_slice = content[GROUP].rindex(b"\x00\x00\x01")
    content[GROUP] = content[GROUP][:second_slice]
    assert play(tmp_path / "cut.h264", content) == [*range(GROUP), *range(2 * GROUP, 3 * GROUP)]


def test_noise_between_groups_ends_nothing(tmp_path: Path) -> None:
    content = packets(3 * GROUP)
    content[GROUP + 5] = content[GROUP + 5][:5] + b"\xff" * 40
    numbers = play(tmp_path / "noise.h264", content)
    assert numbers[: GROUP + 5] == list(range(GROUP + 5))
    assert numbers[-GROUP:] == list(range(2 * GROUP, 3 * GROUP))


def test_what_has_no_video_says_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(CameraError, match="It sends no video"):
        list(StreamSource(FileInput(tmp_path / "a.wav"), fps=None, timeouts=Timeouts()).frames())


def test_a_device_is_read_when_it_has_something_and_stalls_when_it_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "v.h264").write_bytes(b"".join(packets(5)))
    ready, signal = os.pipe()
    source = StreamSource(FileInput(tmp_path / "v.h264", ready), fps=None, timeouts=Timeouts(20.0, 0.5))
    numbers = []
    with pytest.raises(CameraError) as caught:
        for frame in source.frames():
            numbers.append(number_of(frame.image))
            if len(numbers) == 1:
                os.write(signal, b"x")
            elif len(numbers) == 3:
                os.read(ready, 1)
    assert numbers == [0, 1, 2]
    assert caught.value.key == "camera.stalled"


def test_close_ends_the_wait_for_a_device(tmp_path: Path) -> None:
    (tmp_path / "v.h264").write_bytes(b"".join(packets(5)))
    ready, _ = os.pipe()
    source = StreamSource(FileInput(tmp_path / "v.h264", ready), fps=None, timeouts=Timeouts(60.0, 60.0))
    frames = source.frames()
    next(frames)
    threading.Timer(0.05, source.close).start()
    assert list(frames) == []
