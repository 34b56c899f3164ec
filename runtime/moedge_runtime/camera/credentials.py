"""Who we are to a camera, and how we know that it is the camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moedge_runtime.errors import CameraError


@dataclass(frozen=True)
class Credentials:
    """User and password of a camera, kept out of its address, its errors and the log."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True)
class Tls:
    """How a camera's certificate is checked.

    Attributes:
        ca: PEM file of the authorities, or of the camera's own certificate; None for the system's authorities.
        verify: False accepts any certificate.
    """

    ca: Path | None = None
    verify: bool = True


def unauthorized(credentials: Credentials | None) -> CameraError:
    """What to say when a camera refuses who we say we are."""
    advice = "Check username and password." if credentials else "Set username and password."
    return CameraError(f"The camera refuses the login. {advice}", key="camera.unauthorized")
