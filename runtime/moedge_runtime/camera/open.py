"""Chooses a frame source by the scheme of its URL."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moedge_runtime.camera.credentials import Credentials, Tls
from moedge_runtime.camera.frame import FrameSource
from moedge_runtime.camera.raw_video import RawFormat, RawVideo
from moedge_runtime.camera.rtsp import Transport
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError


@dataclass(frozen=True)
class SourceOptions:
    """How to play a source; see the keys of a camera in docs/cameras.md. A source takes what concerns it."""

    loop: bool = False
    realtime: bool = False
    fps: float | None = None
    size: tuple[int, int] | None = None
    raw_format: RawFormat | None = None
    transport: Transport = "tcp"
    credentials: Credentials | None = None
    tls: Tls = field(default_factory=Tls)
    timeouts: Timeouts = field(default_factory=Timeouts)


def open_source(url: str, options: SourceOptions) -> FrameSource:
    """Make the source for `url`, for example `file:panel.mp4`. Nothing is opened before `frames` begins.

    Raises:
        CameraError: As `check_source`, or what `options` say cannot be done on this machine.
    """
    scheme, rest = check_source(url)
    return _SOURCES[scheme](url if scheme in NETWORK_SCHEMES else rest, options)


def check_source(url: str) -> tuple[str, str]:
    """Scheme and rest of `url`.

    Raises:
        CameraError: The scheme is not known, or what follows it has no meaning.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in _SOURCES:
        known = ", ".join(f"{name}:" for name in _SOURCES)
        raise CameraError(
            f"Camera source '{url}' has a scheme that moedge does not know. Known are {known}.",
            key="camera.scheme_unknown",
        )
    if scheme == "csi" and not rest.isdecimal():
        raise CameraError(f"'{url}' names no camera. Write its number, for example csi:0.", key="camera.invalid")
    if scheme == "exec":
        command_of(rest)
    return scheme, rest.removeprefix("//")


def is_live(url: str) -> bool:
    """Whether the source of `url` goes on whether or not anyone looks: then only the newest frame counts."""
    return check_source(url)[0] not in RECORDED_SCHEMES


def _video(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.video import VideoFileSource  # noqa: PLC0415

    return VideoFileSource(Path(rest), fps=options.fps, loop=options.loop, realtime=options.realtime)


def _folder(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.folder import DEFAULT_FPS, FolderSource  # noqa: PLC0415

    return FolderSource(Path(rest), fps=options.fps or DEFAULT_FPS, loop=options.loop, realtime=options.realtime)


def _rtsp(url: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.rtsp import RtspInput  # noqa: PLC0415
    from moedge_runtime.camera.stream import StreamSource  # noqa: PLC0415

    source = RtspInput(url, options.credentials, options.transport, options.tls)
    return StreamSource(source, fps=options.fps, timeouts=options.timeouts)


def _v4l2(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.stream import StreamSource  # noqa: PLC0415
    from moedge_runtime.camera.v4l2 import V4l2Input  # noqa: PLC0415

    return StreamSource(V4l2Input(rest, options.size), fps=options.fps, timeouts=options.timeouts)


def _http(url: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.http_client import HttpClient  # noqa: PLC0415
    from moedge_runtime.camera.http_source import HttpSource  # noqa: PLC0415

    client = HttpClient(url, options.credentials, options.tls)
    return HttpSource(client, fps=options.fps, timeouts=options.timeouts)


def _csi(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.csi import csi_command  # noqa: PLC0415
    from moedge_runtime.camera.exec import ExecSource  # noqa: PLC0415

    command = csi_command(int(rest), size=options.size, fps=options.fps)
    return ExecSource(command, raw=None, fps=options.fps, timeouts=options.timeouts)


def _exec(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.exec import ExecSource  # noqa: PLC0415

    raw = None
    if options.raw_format is not None:
        if options.size is None:
            raise CameraError(
                f"Raw frames ({options.raw_format}) need a `size`, for example 1280x720.", key="camera.invalid"
            )
        raw = RawVideo(options.raw_format, *options.size)
    return ExecSource(command_of(rest), raw=raw, fps=options.fps, timeouts=options.timeouts)


def command_of(rest: str) -> list[str]:
    """Program and arguments; quotes and backslashes as in a shell, and nothing else of one.

    Raises:
        CameraError: A quote is not closed, or there is no program.
    """
    try:
        command = shlex.split(rest)
    except ValueError as error:
        raise CameraError(f"The command cannot be read: {error}. Close its quotes.", key="camera.invalid") from error
    if not command:
        raise CameraError("exec: needs a command.", key="camera.invalid")
    return command


_SOURCES: dict[str, Callable[[str, SourceOptions], FrameSource]] = {
    "v4l2": _v4l2,
    "csi": _csi,
    "rtsp": _rtsp,
    "rtsps": _rtsp,
    "http": _http,
    "https": _http,
    "exec": _exec,
    "file": _video,
    "folder": _folder,
}

RECORDED_SCHEMES = ("file", "folder")
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
