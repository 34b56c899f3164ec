import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moedge_runtime.errors import BundleError, ConfigError, RequestError
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings, smart_resize

QWEN3_VL = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
QWEN2_VL = {"min_pixels": 3136, "max_pixels": 200_000, "patch_size": 14, "resample": 3}


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Something like a photograph: smooth colours, edges, some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / rng.uniform(5, 60) + y / rng.uniform(5, 60) + rng.uniform(0, 6)) for _ in range(3)]
    smooth = 127 + 80 * np.stack(waves, axis=-1)
    smooth[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def transformers_processor(config: dict):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    keys = ("size", "min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size", "resample")
    keys += ("image_mean", "image_std", "do_normalize", "do_rescale", "rescale_factor")
    return Qwen2VLImageProcessorPil(**{key: config[key] for key in keys if key in config})


def small(config: dict) -> dict:
    """The same settings with limits that random test pictures reach from both sides."""
    return config | {"size": {"longest_edge": 120_000, "shortest_edge": 20_000}}


@pytest.mark.parametrize("config", [small(QWEN3_VL), QWEN2_VL], ids=["qwen3_vl", "qwen2_vl"])
def test_patches_and_grid_equal_transformers_on_100_random_sizes(config):
    reference, mine = transformers_processor(config), ImageProcessor(ImageProcessorSettings.from_config(config))
    rng = np.random.default_rng(7)
    for seed in range(100):
        image = picture(int(rng.integers(8, 480)), int(rng.integers(8, 480)), seed)
        wanted = reference(images=[image], return_tensors="np")
        got = mine(image)
        assert list(got.grid_thw) == wanted["image_grid_thw"][0].tolist(), image.shape
        np.testing.assert_array_equal(got.pixel_values, wanted["pixel_values"])
        assert got.pixel_values.dtype == np.float32


def test_torchvision_resizes_nearly_every_pixel_to_the_same_or_the_next_level():
    """torchvision's `resize` of a uint8 picture is `interpolate(mode="bicubic", antialias=True)`."""
    import torch
    from PIL import Image

    rng = np.random.default_rng(3)
    differences = np.zeros(256, np.int64)
    for seed in range(40):
        image = picture(int(rng.integers(30, 700)), int(rng.integers(30, 700)), seed)
        height, width = smart_resize(*image.shape[:2], 32, 20_000, 120_000)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
        theirs = torch.nn.functional.interpolate(tensor, (height, width), mode="bicubic", antialias=True)
        ours = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        difference = np.abs(theirs[0].permute(1, 2, 0).numpy().astype(np.int16) - ours)
        differences += np.bincount(difference.ravel(), minlength=256)
    share = differences / differences.sum()
    assert share[0] > 0.95
    assert share[2:].sum() < 1e-4
    assert differences[8:].sum() == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([28, 32]))
def test_target_size_equals_transformers(height, width, factor):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    if max(height, width) / min(height, width) > 200:
        return
    limits = (3136, 1_000_000)
    assert smart_resize(height, width, factor, *limits) == reference(height, width, factor, *limits)


def test_a_switched_off_step_is_left_out():
    config = small(QWEN3_VL) | {"do_normalize": False}
    reference, mine = transformers_processor(config), ImageProcessor(ImageProcessorSettings.from_config(config))
    image = picture(200, 300, 1)
    np.testing.assert_array_equal(
        mine(image).pixel_values, reference(images=[image], return_tensors="np")["pixel_values"]
    )


def test_old_and_new_names_of_the_limits_mean_the_same():
    old = ImageProcessorSettings.from_config({"min_pixels": 5000, "max_pixels": 70000})
    edges = ImageProcessorSettings.from_config({"size": {"shortest_edge": 5000, "longest_edge": 70000}})
    mixed = ImageProcessorSettings.from_config({"size": {"min_pixels": 5000, "max_pixels": 70000}})
    assert old == edges == mixed


def test_max_pixels_lowers_the_number_of_image_tokens():
    settings = ImageProcessorSettings.from_config(QWEN3_VL)
    image = picture(1080, 1920, 0)
    _, rows, columns = ImageProcessor(settings, max_pixels=100_000)(image).grid_thw
    assert rows * 16 * columns * 16 <= 100_000


@pytest.mark.parametrize(
    "shape, dtype, text",
    [
        ((4, 900, 3), np.uint8, "900×4 pixels: one side is 225 times the other; at most 200"),
        ((0, 10, 3), np.uint8, r"\[0, 10, 3\]"),
        ((10, 10), np.uint8, r"\[10, 10\]"),
        ((10, 10, 4), np.uint8, r"\[10, 10, 4\]"),
        ((10, 10, 3), np.float32, "float32"),
    ],
)
def test_an_impossible_picture_is_refused_with_its_numbers(shape, dtype, text):
    processor = ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL))
    with pytest.raises(RequestError, match=text):
        processor(np.zeros(shape, dtype))


def test_a_picture_that_does_not_fit_is_refused_where_resizing_is_off():
    processor = ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL | {"do_resize": False}))
    assert processor(picture(64, 96, 0)).grid_thw == (1, 4, 6)
    with pytest.raises(RequestError, match=r"100×64 pixels; .* multiples of 32"):
        processor(picture(64, 100, 0))


def test_settings_that_cannot_be_honoured_are_refused():
    with pytest.raises(BundleError, match="do_center_crop"):
        ImageProcessorSettings.from_config({"do_center_crop": True})
    with pytest.raises(ConfigError, match=r"max_pixels=1000 is below one image token .*1024"):
        ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL), max_pixels=1000)
