"""Reads a picture file as upright RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from moedge_runtime.errors import CameraError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow's names of what is read. Its other decoders stay shut: the one for EPS starts Ghostscript, for one."""

MAX_PIXELS = 2**26
"""67 megapixels, 268 MB in Pillow's memory; a file of ten kilobytes can ask for more."""

_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """The first picture of a file.

    EXIF orientation is applied; transparency is laid over white, as transformers 5.23 does with a Pillow image;
    16-bit grey keeps its upper 8 bits; grey, palette and CMYK become RGB; of an animation, the first frame is taken.

    Returns:
        uint8 [height, width, 3].

    Raises:
        CameraError: There is no such file, it is no complete picture in one of `FORMATS`, or it has more than
            `MAX_PIXELS`.
    """
    return _read(path, path)


def decode_image(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """The first picture of a file's `content`, as `read_image` gives it; errors call it `name`.

    Raises:
        CameraError: As `read_image`.
    """
    return _read(io.BytesIO(content), name)


def _read(file: str | Path | IO[bytes], path: str | Path) -> npt.NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, where the limit is ours, and of damaged metadata
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise _too_large(path, f"is {opened.width}×{opened.height} pixels")
                return _to_rgb(_upright(opened))
    except CameraError:
        raise
    except FileNotFoundError:
        raise CameraError(f"There is no file '{path}'. Check the path.", key="camera.image_missing") from None
    except Image.DecompressionBombError as error:
        raise _too_large(path, "is far too large") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise CameraError(
            f"'{path}' is not an image that can be read: {_reason(error, path)}. "
            f"Give a JPEG, PNG, WebP, GIF, BMP or TIFF file.",
            key="camera.image_unreadable",
        ) from error


def _too_large(path: str | Path, what: str) -> CameraError:
    return CameraError(
        f"The image '{path}' {what}; at most {MAX_PIXELS:,} pixels are read. Scale it down.",
        key="camera.image_too_large",
    )


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its format is unknown or it is damaged"
    text = str(error).replace(f": '{path}'", "").rstrip(".")
    return text or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # outside of what follows, so that a truncated file is an error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata does not make the picture unreadable
        return image


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white nobody knows")
    if image.mode in _SIXTEEN_BIT_MODES:
        return _sixteen_bit(np.asarray(image))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layered)
    return np.array(image.convert("RGB"))


def _sixteen_bit(grey: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Upper 8 bits in all three channels. Mode I has 32 bits, of which 16 can be used."""
    wide = grey.astype(np.int64)
    if wide.min() < 0 or wide.max() > 0xFFFF:
        raise ValueError(f"its grey values run from {wide.min()} to {wide.max()}; they must be within 0 and 65535")
    return np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
