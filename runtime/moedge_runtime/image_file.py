"""Reads a picture file as upright RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from moedge_runtime.errors import CameraError

_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """The first picture of a file.

    EXIF orientation is applied; transparency is laid over white, as transformers 5.23 does; 16-bit grey keeps its
    upper 8 bits; grey, palette and CMYK become RGB.

    Returns:
        uint8 [height, width, 3].

    Raises:
        CameraError: There is no such file, or it is no complete picture in a format that Pillow reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise CameraError(f"There is no file '{path}'. Check the path.", key="camera.image_missing") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise CameraError(
            f"'{path}' is not an image that can be read: {_reason(error, path)}. "
            f"Give a JPEG, PNG, WebP, BMP or TIFF file.",
            key="camera.image_unreadable",
        ) from error


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown or it is damaged"
    text = str(error).replace(f": '{path}'", "").rstrip(".")
    return text or type(error).__name__


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return np.array(image.convert("RGB"))
