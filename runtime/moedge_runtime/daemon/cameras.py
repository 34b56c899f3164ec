"""Makes sources, checks and policies of the configuration of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from moedge_runtime.camera import FrameSource, SourceOptions, is_live, open_source
from moedge_runtime.camera.credentials import Credentials, Tls
from moedge_runtime.camera.picture_check import PictureCheck
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.config import CameraConfig
from moedge_runtime.config.values import EVERY_FRAME
from moedge_runtime.daemon.reader import Policy

DEFAULT_LIVE_FPS = 1.0
"""Frames a second of a live camera whose watches want fewer: a request then finds one that is a second old."""


def open_camera(camera: CameraConfig, intervals_s: Sequence[float]) -> FrameSource:
    """The source of `camera`, whose watches have these intervals.

    Raises:
        CameraError: There is no such source.
    """
    live = is_live(camera.source)
    options = SourceOptions(
        loop=camera.loop,
        realtime=camera.realtime,
        fps=live_fps(intervals_s) if live and camera.fps is None else camera.fps,
        size=size_of(camera),
        raw_format=None if camera.format == "mjpeg" else camera.format,
        transport=camera.transport,
        credentials=_credentials(camera),
        tls=Tls(camera.ca, camera.tls_verify),
        timeouts=Timeouts(camera.first_frame_timeout, camera.stall_timeout),
    )
    return open_source(camera.source, options)


def live_fps(intervals_s: Sequence[float]) -> float | None:
    """Frames a second of a live camera without `fps`: what its watches ask for, `DEFAULT_LIVE_FPS` at least."""
    if EVERY_FRAME in intervals_s:
        return None
    return max([DEFAULT_LIVE_FPS, *(1.0 / interval_s for interval_s in intervals_s)])


def policy_of(camera: CameraConfig, *, gives_up: bool) -> Policy:
    """How `camera` is read; `gives_up` if a camera that fails is not opened again."""
    live = is_live(camera.source)
    return Policy(
        lossless=not (live or camera.realtime), retries=not gives_up, repeats=live or camera.loop, endless=live
    )


def check_of(camera: CameraConfig) -> PictureCheck | None:
    """What looks at the pictures of `camera`; None for recordings."""
    if not is_live(camera.source):
        return None
    return PictureCheck(_seconds(camera.frozen_after), _seconds(camera.black_after))


def size_of(camera: CameraConfig) -> tuple[int, int] | None:
    """Width and height that the camera is to give."""
    if camera.size is None:
        return None
    width, height = map(int, camera.size.split("x"))
    return width, height


def _credentials(camera: CameraConfig) -> Credentials | None:
    if camera.username is None:
        return None
    return Credentials(camera.username, camera.password.get_secret_value() if camera.password else "")


def _seconds(delay: float | Literal["never"]) -> float | None:
    return None if delay == "never" else delay
