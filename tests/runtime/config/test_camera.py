from pathlib import Path
from typing import Any

import pytest
from moedge_runtime.config import CameraConfig
from moedge_runtime.config.camera import SCHEMES, camera_problems, without_credentials
from pydantic import ValidationError


def camera(source: str, base: str = "/etc/moedge", **keys: Any) -> CameraConfig:
    return CameraConfig.model_validate({"source": source, **keys}, context={"base_dir": base})


def refusal(source: str, **keys: Any) -> str:
    """What is wrong with a value, or else between keys."""
    try:
        camera(source, **keys)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return "; ".join(f"{key}: {text}" for key, text in camera_problems({"source": source, **keys}))


def test_paths_are_absolute_and_addresses_stay() -> None:
    assert camera("file:panel.mp4").source == "file:/etc/moedge/panel.mp4"
    assert camera("folder:///srv/frames").source == "folder:/srv/frames"
    for source in (
        "rtsp://10.0.0.7:8554/s1?channel=1",
        "https://[fe80::1]/snap.jpg",
        "v4l2:usb-c-index0",
        "exec:cat 'a b'",
    ):
        assert camera(source).source == source


def test_every_key_is_typed(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    keys = {
        "username": "u",
        "password": "p",
        "transport": "udp",
        "fps": 2,
        "stall_timeout": "30s",
        "first_frame_timeout": 5,
    }
    rtsp = camera("rtsps://10.0.0.7/s1", str(tmp_path), ca="ca.pem", tls_verify=True, frozen_after="never", **keys)
    assert (rtsp.ca, rtsp.stall_timeout, rtsp.first_frame_timeout) == (tmp_path / "ca.pem", 30.0, 5.0)
    assert (rtsp.frozen_after, rtsp.black_after) == ("never", 10.0)
    assert camera("exec:x", size="640x480", format="nv12", black_after="2m").black_after == 120.0


@pytest.mark.parametrize(
    ("source", "keys", "problem"),
    [
        ("rtsp://admin:secret@10.0.0.7/s1", {}, "put user and password into the camera's keys username and password"),
        ("rtsp:10.0.0.7/s1", {}, "write it as scheme://host/path, for example rtsp://10.0.0.7/stream1"),
        ("http://", {}, "write it as scheme://host/path, for example rtsp://10.0.0.7/stream1"),
        ("rtsp://10.0.0.7:eleven/s1", {}, "Port could not be cast to integer value as 'eleven'"),
        ("rtsp://10.0.0.7/s1 -x", {}, "a URL holds no blanks"),
        ("http://10.0.0.7/a\r\nHost: other", {}, "a URL holds no blanks"),
        (
            "file:a.mp4",
            {"transport": "tcp"},
            "transport: this is for rtsp:, rtsps: and does nothing for file:; remove it",
        ),
        ("http://h/", {"ca": "/etc/hosts"}, "ca: this is for rtsps:, https: and does nothing for http:; remove it"),
        ("rtsp://h/s", {"loop": True}, "loop: this is for file:, folder: and does nothing for rtsp:; remove it"),
        ("rtsp://h/s", {"password": "x"}, "password: a password needs a username"),
        ("exec:x", {"format": "rgb24"}, "format: raw frames (rgb24) need a size, for example 1280x720"),
        ("csi:0", {"size": "720p"}, "write WIDTHxHEIGHT in pixels, for example 1280x720"),
        ("csi:0", {"size": "0x10"}, "write WIDTHxHEIGHT in pixels, for example 1280x720"),
        ("csi:0", {"black_after": 0}, "write more than 0 and at most 31,622,400 s, or never to leave this out"),
    ],
)
def test_what_is_wrong_is_said(source: str, keys: dict[str, Any], problem: str) -> None:
    assert refusal(source, **keys) == problem


def test_the_schemes_are_those_of_the_cameras() -> None:
    from moedge_runtime.camera.open import _SOURCES

    assert tuple(_SOURCES) == SCHEMES


def test_two_wrong_keys_are_told_together() -> None:
    assert refusal("csi:0", loop=True, username="u") == (
        "username: this is for rtsp:, rtsps:, http:, https: and does nothing for csi:; remove it; "
        "loop: this is for file:, folder: and does nothing for csi:; remove it"
    )


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://10.0.0.7:554/s1", "rtsp://10.0.0.7:554/s1"),
        ("rtsp://me:p%40ss@10.0.0.7/s1", "rtsp://10.0.0.7/s1"),
        ("http://h/api?cmd=Snap&user=me&password=secret", "http://h/api?cmd=…&user=…&password=…"),
        ("gopher://me:secret@h/x", "gopher://h/x"),
        ("exec:ffmpeg -i rtsp://me:secret@h/s -f mjpeg -", "exec:ffmpeg …"),
        ("exec:/opt/grab", "exec:/opt/grab"),
        ("file:/srv/panel.mp4", "file:/srv/panel.mp4"),
        ("v4l2:/dev/video0", "v4l2:/dev/video0"),
    ],
)
def test_a_source_is_shown_without_what_is_secret(source: str, shown: str) -> None:
    assert without_credentials(source) == shown


def test_the_password_is_not_in_what_is_published() -> None:
    published = camera("rtsp://h/s", username="u", password="s3cret").model_dump_json()
    assert "s3cret" not in published
