"""`v4l2:` source: USB cameras and other video devices of Linux, through FFmpeg.

Not yet run with a real device: tests cover how it is opened and what its errors say.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moedge_runtime.camera.stream import reason
from moedge_runtime.camera.timeouts import Timeouts
from moedge_runtime.errors import CameraError

BY_ID = Path("/dev/v4l/by-id")
"""udev names every camera here by maker, model and serial number, whatever port it is in and whatever came first."""


@dataclass(frozen=True)
class V4l2Input:
    """A video device.

    Attributes:
        device: A name in `BY_ID`, or a path such as /dev/video0.
        size: Width and height to ask for; None for the driver's choice.
        by_id: Where names are looked up.
    """

    device: str
    size: tuple[int, int] | None = None
    by_id: Path = BY_ID

    advice = "Check the camera's cable, and that it gives pictures in another program."

    @property
    def path(self) -> Path:
        """The device's file."""
        return Path(self.device) if "/" in self.device else self.by_id / self.device

    def open(self, av: Any, timeouts: Timeouts) -> Any:
        """See LiveInput. MJPEG is asked for first: it needs a tenth of the bus, and decodes frame by frame."""
        if not self.path.exists():
            known = sorted(entry.name for entry in self.by_id.iterdir()) if self.by_id.is_dir() else []
            raise CameraError(
                f"There is no device '{self.path}'. "
                + (f"Connected are: {', '.join(known)}." if known else "No camera is connected."),
                key="camera.not_found",
            )
        options = {} if self.size is None else {"video_size": f"{self.size[0]}x{self.size[1]}"}
        timeout = (timeouts.first_frame_s, timeouts.stall_s)
        try:
            return av.open(str(self.path), format="v4l2", options=options | {"input_format": "mjpeg"}, timeout=timeout)
        except av.error.ArgumentError:  # EINVAL: it has no MJPEG
            return av.open(str(self.path), format="v4l2", options=options, timeout=timeout)

    def descriptor(self) -> int | None:
        """See LiveInput. FFmpeg waits for a device without any limit, but only if it has no picture ready."""
        device = str(self.path.resolve())
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if str(entry.readlink()) == device:
                    return int(entry.name)
        return None

    def explain(self, error: Any) -> CameraError:
        """See LiveInput."""
        number = getattr(error, "errno", None)
        if number == errno.EBUSY:
            return CameraError(
                "Another program uses the camera; only one can. End it, or take its stream as the source.",
                key="camera.busy",
            )
        if number in (errno.EACCES, errno.EPERM):
            return CameraError(
                f"'{self.path}' may not be opened. Add the user of moedge to the group 'video'.",
                key="camera.forbidden",
            )
        if number == errno.ENOSPC:
            return CameraError(
                "The USB bus has no bandwidth left. Set a smaller `size`, or use another port.", key="camera.bus_full"
            )
        return CameraError(
            f"'{self.path}' cannot be opened as a camera: {reason(error)}. A camera often has several devices; take "
            "the one that ends in index0, and a `size` that it has.",
            key="camera.unreadable",
        )
