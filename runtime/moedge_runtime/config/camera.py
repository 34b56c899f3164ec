"""The values of a camera in moedge.yaml, and which of its keys concern which kind of source. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from moedge_runtime.config.suggestion import did_you_mean
from moedge_runtime.config.values import DURATION_PATTERN, MAX_DURATION_S, parse_duration, resolve_path

PATH_SCHEMES = ("file", "folder")
"""Sources whose rest is a path and is resolved against the configuration file."""

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
"""Sources that are URLs of another machine."""

SIZE_PATTERN = r"^[1-9]\d{0,4}x[1-9]\d{0,4}$"

_LIVE = ("v4l2", "csi", *NETWORK_SCHEMES, "exec")

SCHEMES = (*_LIVE, *PATH_SCHEMES)
"""Those that the camera package knows."""

_SCHEMES_BY_KEY = {
    "username": NETWORK_SCHEMES,
    "password": NETWORK_SCHEMES,
    "transport": ("rtsp", "rtsps"),
    "ca": ("rtsps", "https"),
    "tls_verify": ("rtsps", "https"),
    "size": ("v4l2", "csi", "exec"),
    "format": ("exec",),
    "loop": PATH_SCHEMES,
    "realtime": PATH_SCHEMES,
    "first_frame_timeout": _LIVE,
    "stall_timeout": _LIVE,
    "frozen_after": _LIVE,
    "black_after": _LIVE,
}


def camera_problems(camera: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """What keys of a camera ask of each other: key and sentence. Works on values that nobody has checked yet."""
    source = camera.get("source")
    scheme = source.partition(":")[0] if isinstance(source, str) else ""
    problems = [
        (key, f"this is for {', '.join(f'{name}:' for name in schemes)} and does nothing for {scheme}:; remove it")
        for key, schemes in _SCHEMES_BY_KEY.items()
        if key in camera and scheme in SCHEMES and scheme not in schemes
    ]
    if camera.get("password") is not None and camera.get("username") is None:
        problems.append(("password", "a password needs a username"))
    form = camera.get("format")
    if isinstance(form, str) and form != "mjpeg" and camera.get("size") is None:
        problems.append(("format", f"raw frames ({form}) need a size, for example 1280x720"))
    return problems


def without_credentials(source: str) -> str:
    """A camera's source as it may be shown: no login, no values of a query, of a command only the program."""
    scheme, _, rest = source.partition(":")
    if scheme == "exec":
        program, _, arguments = rest.strip().partition(" ")
        return f"exec:{program} …" if arguments else source
    if scheme not in NETWORK_SCHEMES and "@" not in rest:
        return source
    parts = urlsplit(source)
    query = "&".join(f"{name}=…" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()


def _resolve_source(source: str, info: ValidationInfo) -> str:
    scheme, colon, rest = source.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+]+", scheme) or not rest:
        raise ValueError("write a scheme and what it reads, for example file:panel.mp4 or rtsp://10.0.0.7/stream1")
    if scheme not in SCHEMES:
        close = did_you_mean(scheme, SCHEMES)
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise ValueError(f"there is no source '{scheme}:'; known are: {known}{'.' if close else ''}{close}")
    if scheme in NETWORK_SCHEMES:
        return _network_source(source)
    if scheme == "csi" and not rest.isdecimal():
        raise ValueError("write the number of the camera, for example csi:0")
    if scheme == "exec":
        _check_command(rest)
    if scheme not in PATH_SCHEMES:
        return source
    if rest.startswith("//"):
        rest = rest[2:]
    return f"{scheme}:{resolve_path(Path(rest), info)}"


def _network_source(source: str) -> str:
    if any(character.isspace() or not character.isprintable() for character in source):
        raise ValueError("a URL holds no blanks")
    parts = urlsplit(source)  # a ValueError says what is wrong with brackets
    if not parts.hostname or not source.startswith(f"{parts.scheme}://"):
        raise ValueError("write it as scheme://host/path, for example rtsp://10.0.0.7/stream1")
    _ = parts.port  # a ValueError if it is none
    if "@" in parts.netloc:
        raise ValueError("put user and password into the camera's keys username and password")
    return source


def _check_command(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command cannot be read ({error}); close its quotes") from error
    if not words:
        raise ValueError("write the command behind exec:")


def _check_size(size: str) -> str:
    if not re.fullmatch(SIZE_PATTERN, size):
        raise ValueError("write WIDTHxHEIGHT in pixels, for example 1280x720")
    return size


def _parse_delay(value: object) -> float | Literal["never"]:
    if value == "never":
        return "never"
    seconds = parse_duration(value)
    if not 0 < seconds <= MAX_DURATION_S:
        raise ValueError(f"write more than 0 and at most {MAX_DURATION_S:,} s, or never to leave this out")
    return seconds


CameraSource = Annotated[str, AfterValidator(_resolve_source)]
"""`scheme:rest`; the path of `file:` and `folder:` is absolute after validation."""

FrameSize = Annotated[str, AfterValidator(_check_size), WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN})]
"""`WIDTHxHEIGHT` in pixels."""

CheckDelay = Annotated[
    float | Literal["never"],
    BeforeValidator(_parse_delay),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DURATION_S},
                {"type": "string", "pattern": DURATION_PATTERN},
                {"const": "never"},
            ]
        }
    ),
]
"""Seconds, or `never`."""
