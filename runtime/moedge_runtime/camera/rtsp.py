"""`rtsp:` and `rtsps:` sources, through FFmpeg."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from moedge_runtime.camera.credentials import Credentials, Tls, unauthorized
from moedge_runtime.camera.stream import reason
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError

Transport = Literal["tcp", "udp"]


@dataclass(frozen=True)
class RtspInput:
    """An RTSP stream.

    Attributes:
        url: `rtsp://…` or `rtsps://…`, without user and password.
        credentials: For the camera; None for none.
        transport: tcp puts video into the connection itself; udp loses packets rather than time.
        tls: For rtsps.
    """

    url: str
    credentials: Credentials | None = None
    transport: Transport = "tcp"
    tls: Tls = field(default_factory=Tls)

    advice = (
        "Check that the camera's address is the one of a video stream, and that its key frame interval (I-frame, GOP) "
        "is a few seconds at most."
    )

    def open(self, av: Any, timeouts: Timeouts) -> Any:
        """See LiveInput."""
        options = {
            "rtsp_transport": self.transport,
            "allowed_media_types": "video",
            # FFmpeg would read seconds of video to guess a frame rate that nobody needs.
            "analyzeduration": "1",
            "fpsprobesize": "0",
        }
        if self.url.startswith("rtsps:"):
            options["tls_verify"] = str(int(self.tls.verify))
            if self.tls.ca is not None:
                options["ca_file"] = str(self.tls.ca)
        return av.open(
            with_credentials(self.url, self.credentials),
            options=options,
            timeout=(timeouts.first_frame_s, timeouts.stall_s),
        )

    def descriptor(self) -> int | None:
        """See LiveInput."""
        return None

    def explain(self, error: Any) -> CameraError:
        """See LiveInput."""
        name = type(error).__name__
        if name in ("HTTPUnauthorizedError", "HTTPForbiddenError"):
            return unauthorized(self.credentials)
        if name == "HTTPNotFoundError":
            return CameraError(
                "The camera answers, but has no stream at this address. Check the path after the host.",
                key="camera.not_found",
            )
        if name in ("InvalidDataError", "ValueError"):
            return CameraError(
                f"The address does not answer as an RTSP server does ({reason(error)}). Check host, port and path.",
                key="camera.unreadable",
            )
        tls = " Its certificate must be signed by `ca`." if self.url.startswith("rtsps:") and self.tls.verify else ""
        return CameraError(
            f"It cannot be reached: {reason(error)}. Check address, port and cable, and that it is switched on.{tls}",
            key="camera.unreachable",
        )


def with_credentials(url: str, credentials: Credentials | None) -> str:
    """`url` as FFmpeg wants it: user and password in front of the host, each of their special characters quoted."""
    if credentials is None:
        return url
    user, password = quote(credentials.username, safe=""), quote(credentials.password, safe="")
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()
