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
    keys += ("image_mean", "image_std", "do_resize", "do_normalize", "do_rescale", "rescale_factor")
    return Qwen2VLImageProcessorPil(**{key: config[key] for key in keys if key in config})


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([28, 32]))
def test_target_size_equals_transformers(height, width, factor):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    if max(height, width) / min(height, width) > 200:
        return
    limits = (3136, 1_000_000)
    assert smart_resize(height, width, factor, *limits) == reference(height, width, factor, *limits)


@pytest.mark.parametrize(
    "height, width, wanted",
    [(80, 112, (64, 128)), (48, 144, (64, 128)), (16, 1000, (32, 736)), (1, 200, (32, 1280)), (6000, 30, (5472, 32))],
)
def test_halves_are_rounded_to_even_and_thin_pictures_stay_a_token_wide(height, width, wanted):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    limits = (8_000, 150_000)
    assert smart_resize(height, width, 32, *limits) == reference(height, width, 32, *limits) == wanted


SWITCHES = [
    {"do_normalize": False},
    {"do_rescale": False},
    {"do_normalize": False, "do_rescale": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 1.1]},
    {"temporal_patch_size": 1},
    {"temporal_patch_size": 3},
    {"merge_size": 1},
    {"patch_size": 8, "merge_size": 3},
]


@pytest.mark.parametrize("changed", SWITCHES, ids=str)
def test_every_setting_means_what_it_means_in_transformers(changed):
    config = QWEN3_VL | {"do_resize": False} | changed
    image = picture(192, 288, 1)
    got, wanted = (
        ImageProcessor(ImageProcessorSettings.from_config(config))(image),
        transformers_processor(config)(images=[image], return_tensors="np"),
    )
    assert list(got.grid_thw) == wanted["image_grid_thw"][0].tolist()
    np.testing.assert_allclose(got.pixel_values, wanted["pixel_values"], rtol=1e-6, atol=1e-6)
    assert got.pixel_values.dtype == np.float32


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


def test_a_long_picture_that_fits_is_taken_where_resizing_is_off():
    processor = ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL | {"do_resize": False}))
    assert processor(np.zeros((32, 6432, 3), np.uint8)).grid_thw == (1, 2, 402)


def test_an_elongated_picture_is_refused_from_the_ratio_at_which_transformers_refuses():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    processor = ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL))
    assert processor.target_size(5, 1000) == reference(5, 1000, 32, 65536, 16777216)
    with pytest.raises(ValueError, match="200"):
        reference(5, 1001, 32, 65536, 16777216)
    with pytest.raises(
        RequestError, match=r"1001×5 pixels: one side is 200\.2 times the other; at most 200 is possible"
    ):
        processor.target_size(5, 1001)


@pytest.mark.parametrize(
    "config, what",
    [
        ({"do_center_crop": True}, "do_center_crop=true; this runtime resizes, rescales and normalises only"),
        ({"resample": 0}, "resample=0; it must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"),
        ({"size": 448}, "size=448; it must have shortest_edge and longest_edge, areas in pixels"),
        ({"image_std": [0.5]}, "image_std=[0.5]; it must have 3 numbers, for red, green and blue"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(config, what):
    with pytest.raises(BundleError) as caught:
        ImageProcessorSettings.from_config(config)
    assert str(caught.value) == (
        f"preprocessor_config.json has {what}. Export a Qwen3-VL checkpoint with its own preprocessor_config.json."
    )


def test_a_limit_below_one_image_token_is_refused():
    with pytest.raises(ConfigError, match=r"max_pixels=1000 is below one image token .*1024"):
        ImageProcessor(ImageProcessorSettings.from_config(QWEN3_VL), max_pixels=1000)
