"""Turns an RGB picture into the vision tower's patches, as transformers' Qwen2-VL image processor does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from moedge_runtime.errors import BundleError, ConfigError, RequestError

MAX_ASPECT_RATIO = 200
"""Long to short side; transformers 5.23, qwen2_vl smart_resize, refuses more."""

_DEFAULT_MIN_PIXELS = 56 * 56
_DEFAULT_MAX_PIXELS = 28 * 28 * 1280
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""What Pillow and torch define alike. torch's `nearest` picks other pixels, and it has no box or Hamming filter."""


@dataclass(frozen=True)
class ImageProcessorSettings:
    """What preprocessor_config.json says, with the defaults of transformers' Qwen2VLImageProcessor (5.23).

    `min_pixels` and `max_pixels` bound the area of the resized picture.
    """

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = _DEFAULT_MIN_PIXELS
    max_pixels: int = _DEFAULT_MAX_PIXELS
    do_resize: bool = True
    resample: int = int(Image.Resampling.BICUBIC)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = _CLIP_MEAN
    image_std: tuple[float, ...] = _CLIP_STD

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ImageProcessorSettings:
        """Read preprocessor_config.json.

        The area limits come as `min_pixels`, `max_pixels` (Qwen2-VL), which win, or as `size.shortest_edge`,
        `size.longest_edge` (Qwen3-VL; areas in spite of their names), or as `size.min_pixels`, `size.max_pixels`.

        Raises:
            BundleError: The config asks for a step that a Qwen-VL processor does not have.
        """
        for step in ("do_center_crop", "do_pad"):
            if config.get(step):
                raise _unsupported(f"{step}=true; this runtime resizes, rescales and normalises only")
        values = {key: config[key] for key in cls.__dataclass_fields__ if config.get(key) is not None}
        size = config.get("size") or {}
        if not isinstance(size, dict):
            raise _unsupported(f"size={size!r}; it must have shortest_edge and longest_edge, areas in pixels")
        if values.get("resample", Image.Resampling.BICUBIC) not in list(_FILTERS):
            raise _unsupported(f"resample={values['resample']!r}; it must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic)")
        for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            found = config.get(key) or size.get(edge) or size.get(key)
            if found:
                values[key] = int(found)
        for key in ("image_mean", "image_std"):
            if key in values:
                value = values[key]
                values[key] = (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))
                if len(values[key]) != 3:
                    raise _unsupported(f"{key}={value!r}; it must have 3 numbers, for red, green and blue")
        return cls(**values)


def _unsupported(what: str) -> BundleError:
    return BundleError(
        f"preprocessor_config.json has {what}. Export a Qwen3-VL checkpoint with its own preprocessor_config.json.",
        key="bundle.preprocessor_unsupported",
    )


@dataclass(frozen=True)
class ProcessedImage:
    """A picture as the vision graph takes it.

    Attributes:
        pixel_values: float32 [patches, channels * temporal_patch * patch * patch], merge block by merge block.
        grid_thw: Patches in time, height and width; time is 1.
    """

    pixel_values: npt.NDArray[np.float32]
    grid_thw: tuple[int, int, int]


class ImageProcessor:
    """Resizes, normalises and cuts into patches.

    The reference is transformers' torchvision backend, which Qwen3-VL's processor cannot do without: the grid is the
    same, and every pixel is within 2 of its 256 levels (docs/decisions/0004-image-resizing.md).
    """

    def __init__(self, settings: ImageProcessorSettings, max_pixels: int | None = None) -> None:
        """Set up the processor.

        Args:
            settings: The checkpoint's settings.
            max_pixels: Another upper limit of the picture's area, to spend fewer image tokens.

        Raises:
            ConfigError: `max_pixels` is below one image token.
        """
        self.settings = settings
        self._factor = settings.patch_size * settings.merge_size
        if max_pixels is not None and max_pixels < self._factor**2:
            raise ConfigError(
                f"max_pixels={max_pixels} is below one image token ({self._factor}×{self._factor} = "
                f"{self._factor**2} pixels). Set at least {self._factor**2}."
            )
        self._max_pixels = max_pixels or settings.max_pixels
        self._min_pixels = min(settings.min_pixels, self._max_pixels)
        self._levels = _levels(settings)

    def __call__(self, image: npt.NDArray[np.uint8]) -> ProcessedImage:
        """Process one picture.

        Args:
            image: uint8 [height, width, 3], RGB.

        Raises:
            RequestError: Not such an array, or too elongated.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise RequestError(
                f"An image is {image.dtype} {list(image.shape)}; it must be uint8 [height, width, 3] in RGB, "
                f"at least 1×1 pixels.",
                key="request.image_invalid",
            )
        height, width = self.target_size(image.shape[0], image.shape[1])
        if (height, width) != image.shape[:2]:
            image = resize(image, height, width, Image.Resampling(self.settings.resample))
        return self._patches(image)

    def tokens(self, height: int, width: int) -> int:
        """Image tokens of a picture of this size in pixels.

        Raises:
            RequestError: As `target_size`.
        """
        resized_height, resized_width = self.target_size(height, width)
        return resized_height * resized_width // self._factor**2

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels that a picture is resized to.

        Raises:
            RequestError: The picture is too elongated, or must fit the patches without resizing and does not.
        """
        if not self.settings.do_resize:
            if height % self._factor or width % self._factor:
                raise RequestError(
                    f"An image is {width}×{height} pixels; this model does not resize, so both sides must be "
                    f"multiples of {self._factor}. Resize it.",
                    key="request.image_size",
                )
            return height, width
        ratio = max(height, width) / min(height, width)
        if ratio > MAX_ASPECT_RATIO:
            raise RequestError(
                f"An image is {width}×{height} pixels: one side is {ratio:.4g} times the other; at most "
                f"{MAX_ASPECT_RATIO} is possible. Crop it.",
                key="request.image_elongated",
            )
        return smart_resize(height, width, self._factor, self._min_pixels, self._max_pixels)

    def _patches(self, image: npt.NDArray[np.uint8]) -> ProcessedImage:
        settings = self.settings
        patch, merge, temporal = settings.patch_size, settings.merge_size, settings.temporal_patch_size
        rows, columns = image.shape[0] // patch, image.shape[1] // patch
        blocks = image.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
        # [block row, block column, row in block, column in block, channel, y, x]
        ordered = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, 1, patch * patch)
        values = np.empty((rows * columns, 3, temporal, patch * patch), np.float32)
        for channel in range(3):  # a picture is a video of equal frames
            values[:, channel] = self._levels[channel][ordered[:, channel]]
        return ProcessedImage(values.reshape(rows * columns, -1), (1, rows, columns))


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Multiples of `factor` near the picture's shape whose area lies between the limits.

    Source: transformers 5.23, models/qwen2_vl/image_processing_qwen2_vl.py, `smart_resize`, rounding included.
    """
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def resize(
    image: npt.NDArray[np.uint8], height: int, width: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> npt.NDArray[np.uint8]:
    """Resize with antialiasing, along the rows first and then along the columns, rounding to a level in between.

    That is torch's order, and Pillow's before version 13. Pillow 13, asked for both at once, takes the columns first
    where the height shrinks more than the width; photographs then differ by up to 11 levels.

    Args:
        image: uint8 [height, width, 3].
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        resample: Pillow's filter.

    Returns:
        uint8 [height, width, 3].
    """
    rows_done = Image.fromarray(image).resize((width, image.shape[0]), resample)
    return np.asarray(rows_done.resize((width, height), resample))


def _levels(settings: ImageProcessorSettings) -> npt.NDArray[np.float32]:
    """Normalised value of each of the 256 levels, float32 [3, 256].

    Source: transformers 5.23, image_processing_backends.py, `rescale_and_normalize`, which folds the rescaling into
    mean and deviation, in float32.
    """
    levels = np.repeat(np.arange(256, dtype=np.float32)[None], 3, axis=0)
    if not settings.do_normalize:
        return levels * np.float32(settings.rescale_factor) if settings.do_rescale else levels
    scale = np.float32(1 / settings.rescale_factor if settings.do_rescale else 1)
    mean = np.asarray(settings.image_mean, np.float32)[:, None] * scale
    std = np.asarray(settings.image_std, np.float32)[:, None] * scale
    normalised: npt.NDArray[np.float32] = (levels - mean) / std
    return normalised
