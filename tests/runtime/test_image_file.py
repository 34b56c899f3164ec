import re

import numpy as np
import pytest
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import read_image
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(PIXELS, -1))


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([PIXELS, np.zeros((20, 30), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png") == 255).all()


def test_transparency_equals_transformers(tmp_path):
    from transformers.image_transforms import convert_to_rgb

    rgba = np.dstack([PIXELS, PIXELS[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "x.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.png"), convert_to_rgb(Image.open(tmp_path / "x.png"), return_numpy=True)
    )


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    grey = (PIXELS[..., 0].astype(np.uint16) << 8) | 0x55
    Image.fromarray(grey).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("mode, suffix", [("L", "png"), ("P", "png"), ("1", "png"), ("CMYK", "jpg"), ("LA", "png")])
def test_every_colour_mode_becomes_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(PIXELS).convert("L" if mode == "LA" else "RGB").convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8


def test_a_file_that_is_no_image_says_so(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_text("not a picture")
    with pytest.raises(CameraError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"'{path}' is not an image that can be read: its format is unknown or it is damaged. "
        f"Give a JPEG, PNG, WebP, BMP or TIFF file."
    )


def test_a_truncated_image_is_refused(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CameraError, match=re.escape(f"'{path}' is not an image that can be read: image file is trunc")):
        read_image(path)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path):
    with pytest.raises(CameraError, match="There is no file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(CameraError, match="Is a directory"):
        read_image(tmp_path)
