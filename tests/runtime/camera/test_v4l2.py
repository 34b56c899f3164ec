"""How a device is opened and what its errors say. No device is there to be opened: a kernel module would be needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import av
import pytest
from moedge_runtime.camera import SourceOptions, open_source
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.camera.v4l2 import V4l2Input
from moedge_runtime.errors import CameraError

NAME = "usb-046d_HD_Pro_Webcam_C920_8F2D-video-index0"


class Recorder:
    """Takes the place of the module `av`; refuses MJPEG if told so."""

    error = av.error

    def __init__(self, *, has_mjpeg: bool) -> None:
        self.opened: list[tuple[str, str, dict[str, str]]] = []
        self._has_mjpeg = has_mjpeg

    def open(self, path: str, *, format: str, options: dict[str, str], timeout: tuple[float, float]) -> str:
        self.opened.append((path, format, options))
        if "input_format" in options and not self._has_mjpeg:
            raise av.error.ArgumentError(errno.EINVAL, os.strerror(errno.EINVAL))
        return "container"


def device(directory: Path) -> V4l2Input:
    (directory / NAME).touch()
    return V4l2Input(NAME, (1280, 720), by_id=directory)


def test_a_camera_is_found_by_its_stable_name_and_asked_for_mjpeg(tmp_path: Path) -> None:
    recorder: Any = Recorder(has_mjpeg=True)
    assert device(tmp_path).open(recorder, Timeouts()) == "container"
    options = {"video_size": "1280x720", "input_format": "mjpeg"}
    assert recorder.opened == [(str(tmp_path / NAME), "v4l2", options)]


def test_a_camera_without_mjpeg_is_opened_as_it_is(tmp_path: Path) -> None:
    recorder: Any = Recorder(has_mjpeg=False)
    device(tmp_path).open(recorder, Timeouts())
    assert [options for _, _, options in recorder.opened][1] == {"video_size": "1280x720"}


def test_a_camera_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    with pytest.raises(CameraError) as caught:
        V4l2Input("usb-other", by_id=tmp_path).open(av, Timeouts())
    assert str(caught.value) == f"There is no device '{tmp_path}/usb-other'. Connected are: {NAME}."
    with pytest.raises(CameraError) as caught:
        next(iter(open_source("v4l2:/dev/video99", SourceOptions()).frames()))
    assert str(caught.value).startswith("There is no device '/dev/video99'. ")
    assert caught.value.key == "camera.not_found"


def test_a_file_that_is_no_camera_says_so(tmp_path: Path) -> None:
    with pytest.raises(CameraError) as caught:
        next(iter(open_source("v4l2:/dev/null", SourceOptions()).frames()))
    assert str(caught.value).startswith("'/dev/null' cannot be opened as a camera: Inappropriate ioctl for device. ")


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (errno.EBUSY, "camera.busy"),
        (errno.EACCES, "camera.forbidden"),
        (errno.ENOSPC, "camera.bus_full"),
        (errno.EIO, "camera.unreadable"),
    ],
)
def test_what_goes_wrong_with_usb_cameras_has_an_advice(number: int, key: str) -> None:
    explained = V4l2Input("/dev/video0").explain(OSError(number, os.strerror(number)))
    assert explained.key == key
    assert str(explained).count(". ") >= 1


def test_the_device_that_ffmpeg_has_open_is_found_among_the_files_of_this_process(tmp_path: Path) -> None:
    source = device(tmp_path)
    assert source.descriptor() is None
    with (tmp_path / NAME).open() as file:
        assert source.descriptor() == file.fileno()
