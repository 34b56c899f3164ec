"""`folder:` source: the images of a directory, in the order of their names."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from moedge_runtime.camera.frame import Frame
from moedge_runtime.camera.pacing import Pacer
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import read_image

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
DEFAULT_FPS = 1.0


class FolderSource:
    """Images of one directory, sub-directories left out; `frame10.png` comes after `frame9.png`.

    Args:
        path: The directory. It is listed at the start and, with `loop`, again for every round.
        fps: Images a second of source time.
        loop: Begin again after the last image.
        realtime: Give each image when it is due.
    """

    def __init__(self, path: Path, *, fps: float = DEFAULT_FPS, loop: bool = False, realtime: bool = False) -> None:
        self._path = path
        self._fps = fps
        self._loop = loop
        self._closed = threading.Event()
        self._unreadable: set[Path] = set()
        self._pacer = Pacer(realtime=realtime, closed=self._closed)

    def frames(self) -> Iterator[Frame]:
        """All images as frames; see FrameSource."""
        index = 0
        while True:
            tried = readable = 0
            for path in self._images():
                pts_s = index / self._fps
                if self._pacer.due(pts_s):
                    tried += 1
                    image = self._read(path)
                    if image is not None:
                        readable += 1
                        yield Frame(image, datetime.now(timezone.utc), time.monotonic(), index, pts_s)
                if self._closed.is_set():
                    return
                index += 1
            if tried and not readable:
                raise CameraError(
                    f"No image of folder '{self._path}' can be read. Put whole images there.", key="camera.empty"
                )
            if not self._loop:
                return

    def close(self) -> None:
        """End `frames`."""
        self._closed.set()

    def _read(self, path: Path) -> npt.NDArray[np.uint8] | None:
        """The picture; None, and a warning the first time, if it cannot be read now: it may still be being copied."""
        try:
            image = read_image(path)
        except CameraError as error:
            if path not in self._unreadable:
                log.warning("Left out: %s", error)
            self._unreadable.add(path)
            return None
        self._unreadable.discard(path)
        return image

    def _images(self) -> list[Path]:
        try:
            paths = [path for path in self._path.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
        except OSError as error:
            raise CameraError(
                f"Folder '{self._path}' cannot be listed ({error.strerror}). Give a directory of images.",
                key="camera.not_found",
            ) from error
        if not paths:
            raise CameraError(
                f"Folder '{self._path}' holds no image; looked for {', '.join(sorted(SUFFIXES))}.", key="camera.empty"
            )
        return sorted(paths, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name.lower()) if part]
