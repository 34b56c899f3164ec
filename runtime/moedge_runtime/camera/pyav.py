"""PyAV, imported when a camera needs it: it is the extra `camera`."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from moedge_runtime.errors import CameraError


def import_av() -> Any:
    """The module `av`.

    Raises:
        CameraError: It is not installed.
    """
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise CameraError(
            "Reading video needs the Python package 'av', which is not installed. "
            "Install it with: pip install 'moedge[camera]'",
            key="camera.package_missing",
        ) from error


def upright(picture: Any) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """`av.VideoFrame` as RGB [height, width, 3], turned as its display matrix says."""
    image = picture.to_ndarray(format="rgb24")
    quarter_turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image
