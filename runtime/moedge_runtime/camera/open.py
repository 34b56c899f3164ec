"""Chooses a frame source by the scheme of its URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.camera.frame import FrameSource
from moedge_runtime.errors import CameraError


@dataclass(frozen=True)
class SourceOptions:
    """How to play a source; see the keys of a camera in docs/configuration.md."""

    loop: bool = False
    realtime: bool = False
    fps: float | None = None


def open_source(url: str, options: SourceOptions) -> FrameSource:
    """Make the source for `url`, for example `file:panel.mp4`. Nothing is opened before `frames` begins.

    Raises:
        CameraError: The scheme is not known.
    """
    scheme, rest = check_source(url)
    return _SOURCES[scheme](rest, options)


def check_source(url: str) -> tuple[str, str]:
    """Scheme and rest of `url`.

    Raises:
        CameraError: The scheme is not known.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in _SOURCES:
        known = ", ".join(f"{name}:" for name in _SOURCES)
        raise CameraError(
            f"Camera source '{url}' has a scheme that moedge does not know. Known are {known}.",
            key="camera.scheme_unknown",
        )
    return scheme, rest.removeprefix("//")


def _video(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.video import VideoFileSource  # noqa: PLC0415

    return VideoFileSource(Path(rest), fps=options.fps, loop=options.loop, realtime=options.realtime)


def _folder(rest: str, options: SourceOptions) -> FrameSource:
    from moedge_runtime.camera.folder import DEFAULT_FPS, FolderSource  # noqa: PLC0415

    return FolderSource(Path(rest), fps=options.fps or DEFAULT_FPS, loop=options.loop, realtime=options.realtime)


_SOURCES: dict[str, Callable[[str, SourceOptions], FrameSource]] = {"file": _video, "folder": _folder}
