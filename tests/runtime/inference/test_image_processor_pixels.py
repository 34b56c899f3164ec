"""The pixels against transformers' torchvision backend, the one that a Qwen3-VL processor has (decision 0004)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from moedge_runtime.image_file import read_image
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings, resize
from PIL import Image

PHOTOGRAPHS = sorted((Path(__file__).parent / "photographs").glob("*.jpg"))
QWEN3_VL = {"patch_size": 16, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
QWEN2_VL = {"patch_size": 14, "merge_size": 2}  # and the mean and deviation of CLIP


def within(config, shortest, longest):
    return config | {"size": {"shortest_edge": shortest, "longest_edge": longest}}


def torch_resize(image, height, width, mode="bicubic"):
    """As torchvision 0.28 calls torch for `resize` of a uint8 tensor on a CPU."""
    import torch

    tensor = torch.tensor(image).permute(2, 0, 1).contiguous()[None]
    resized = torch.nn.functional.interpolate(tensor, [height, width], mode=mode, align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def by_torch(config, image):
    """torch's filter, then transformers' own patches."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

    size, factor = config["size"], config["patch_size"] * config["merge_size"]
    target = smart_resize(*image.shape[:2], factor, size["shortest_edge"], size["longest_edge"])
    if target != image.shape[:2]:
        image = torch_resize(image, *target)
    return Qwen2VLImageProcessorPil(**config, do_resize=False)(
        images=[image], return_tensors="np", input_data_format="channels_last"
    )


def by_torchvision(config, image):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(**config)(images=[image], return_tensors="np", input_data_format="channels_last")


@pytest.fixture(
    params=[
        by_torch,
        pytest.param(
            by_torchvision,
            marks=pytest.mark.skipif(
                not importlib.util.find_spec("torchvision"), reason="torchvision is not installed"
            ),
        ),
    ]
)
def reference(request):
    return request.param


def levels(pixel_values, settings):
    """Undo the normalisation: [patches, 3, values] in levels of 0 to 255."""
    by_channel = pixel_values.astype(np.float64).reshape(len(pixel_values), 3, -1)
    return (by_channel * np.reshape(settings.image_std, (3, 1)) + np.reshape(settings.image_mean, (3, 1))) * 255


def assert_equal_within_two_levels(config, image, reference):
    settings = ImageProcessorSettings.from_config(config)
    got, wanted = ImageProcessor(settings)(image), reference(config, image)
    assert list(got.grid_thw) == wanted["image_grid_thw"][0].tolist(), image.shape
    assert got.pixel_values.shape == wanted["pixel_values"].shape
    difference = np.abs(levels(got.pixel_values, settings) - levels(wanted["pixel_values"], settings))
    assert difference.max() <= 2.001, image.shape
    assert (difference > 0.5).mean() <= 0.03, image.shape


def picture(number):
    """Ordinary, large, very long and tiny sizes by turns; noise, black-and-white noise and something like a scene."""
    rng = np.random.default_rng(number)
    height, width = {
        0: lambda: rng.integers(8, 640, 2),
        1: lambda: rng.integers(200, 900, 2),
        2: lambda: (rng.integers(2001, 2600), rng.integers(150, 1200)),
        3: lambda: (short := rng.integers(1, 12), short * rng.integers(100, 201)),
        4: lambda: rng.integers(1, 17, 2),
    }[number % 5]()
    if number % 2:
        height, width = width, height
    if number % 3 == 0:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    if number % 3 == 1:
        return rng.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(255)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8))
    return np.asarray(coarse.resize((int(width), int(height))))


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_grid_equals_and_pixels_are_within_two_levels_on_200_random_sizes(start, reference):
    for number in range(start, start + 20):
        config = within(QWEN2_VL if number % 7 == 0 else QWEN3_VL, 20_000, 300_000)
        assert_equal_within_two_levels(config, picture(number), reference)


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("limits", [(65_536, 16_777_216), (3_136, 60_000), (900_000, 1_200_000)])
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_grid_equals_and_pixels_are_within_two_levels_on_photographs(path, limits, turned, reference):
    image = read_image(path)
    image = np.ascontiguousarray(np.rot90(image)) if turned else image
    assert_equal_within_two_levels(within(QWEN3_VL, *limits), image, reference)


def test_a_picture_that_fits_already_equals_torchvisions_arithmetic_bit_by_bit():
    """Source: transformers 5.23, `rescale_and_normalize`: mean and deviation take up the rescaling, in float32."""
    import torch

    settings = ImageProcessorSettings.from_config(within(QWEN2_VL, 1, 10**9))
    column = np.arange(256, dtype=np.uint8)
    image = np.broadcast_to(np.resize(column, 280)[:, None, None], (280, 28, 3))
    mean = torch.tensor(settings.image_mean) * (1.0 / settings.rescale_factor)
    std = torch.tensor(settings.image_std) * (1.0 / settings.rescale_factor)
    wanted = (torch.from_numpy(image.copy()).float() - mean) / std
    got = ImageProcessor(settings)(image).pixel_values.reshape(10, 1, 2, 2, 3, 2, 14, 14)[:, 0, :, :, :, 0]
    np.testing.assert_array_equal(got.transpose(0, 1, 4, 2, 5, 3).reshape(280, 28, 3), wanted.numpy())


@pytest.mark.parametrize("mode, resample", [("lanczos", 1), ("bilinear", 2), ("bicubic", 3)])
def test_each_filter_is_within_two_levels_of_torchs(mode, resample):
    rng = np.random.default_rng(resample)
    for _ in range(40):
        image = rng.integers(0, 2, (*rng.integers(1, 400, 2), 3), np.uint8) * np.uint8(255)
        height, width = (int(32 * n) for n in rng.integers(1, 12, 2))
        ours, theirs = (
            resize(image, height, width, Image.Resampling(resample)),
            torch_resize(image, height, width, mode),
        )
        assert np.abs(ours.astype(int) - theirs).max() <= 2, (image.shape, height, width)


def test_pillow_in_one_call_is_equal_where_the_width_shrinks_more():
    """Pillow 13 takes the columns first where the height shrinks more; older ones never do."""
    image = np.random.default_rng(5).integers(0, 256, (300, 700, 3), np.uint8)
    for height, width in [(256, 576), (288, 640), (96, 192), (320, 672), (480, 960)]:
        in_one_call = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(resize(image, height, width), in_one_call)


def test_nothing_is_resampled_along_a_side_that_keeps_its_length():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    np.testing.assert_array_equal(resize(image, 64, 96), image)
    np.testing.assert_array_equal(resize(image, 32, 96), Image.fromarray(image).resize((96, 32), 3))
