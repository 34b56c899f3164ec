import re
import struct
import zlib

import numpy as np
import pytest
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import read_image
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),  # the camera was turned: rotate by 90° clockwise to see it upright
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), UPRIGHT[orientation](PIXELS))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff"])
def test_damaged_exif_does_not_make_a_picture_unreadable(tmp_path, exif, recwarn):
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").shape == (20, 30, 3)
    assert not list(recwarn)


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


def test_sixteen_bit_colour_keeps_its_upper_bits(tmp_path):
    """Written by hand (PNG specification, colour type 2 of 16 bits): Pillow cannot."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.repeat(PIXELS, 2, axis=2).reshape(20, -1)  # the upper byte, and the same again as the lower one
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), PIXELS)


@pytest.mark.parametrize(
    "pixels, reason",
    [
        (
            np.full((4, 4), 100_000, np.int32),
            "its grey values run from 100000 to 100000; they must be within 0 and 65535",
        ),
        (np.zeros((4, 4), np.float32), "its pixels are floating-point numbers, whose white nobody knows"),
    ],
)
def test_pixels_without_a_known_white_are_refused(tmp_path, pixels, reason):
    path = tmp_path / "x.tiff"
    Image.fromarray(pixels).save(path)
    with pytest.raises(CameraError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"'{path}' is not an image that can be read: {reason}. Give a JPEG, PNG, WebP, GIF, BMP or TIFF file."
    )


@pytest.mark.parametrize("mode, wanted", [("1", 255), ("L", 200), ("P", 200), ("LA", 200), ("PA", 200)])
def test_grey_and_palettes_become_rgb(tmp_path, mode, wanted):
    Image.new("L", (30, 20), 200).convert(mode, dither=Image.Dither.NONE).save(tmp_path / "x.tiff")
    image = read_image(tmp_path / "x.tiff")
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8
    assert (image == wanted).all()


def test_a_transparent_palette_entry_is_white(tmp_path):
    picture = Image.new("P", (30, 20), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.paste(0, (0, 0, 15, 20))
    picture.save(tmp_path / "x.png", transparency=0)
    image = read_image(tmp_path / "x.png")
    assert (image[:, :15] == 255).all() and (image[:, 15:] == (10, 20, 30)).all()


def test_a_cmyk_jpeg_has_the_colours_it_was_saved_with(tmp_path):
    colours = np.repeat([(250, 10, 10), (10, 250, 10), (10, 10, 250), (128, 128, 128)], 16, axis=0).astype(np.uint8)
    picture = np.repeat(colours[None], 32, axis=0)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "x.jpg", quality=95, subsampling=0)
    assert np.abs(read_image(tmp_path / "x.jpg").astype(int) - picture).max() <= 6


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix):
    first, second = (Image.new("RGB", (30, 20), (level,) * 3) for level in (40, 200))
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second], **options)
    assert (read_image(tmp_path / f"x.{suffix}") == 40).all()


def test_a_phones_picture_of_several_parts_gives_the_first(tmp_path):
    first, second = (Image.new("RGB", (32, 16), (level,) * 3) for level in (40, 200))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    assert (read_image(tmp_path / "x.jpg") == 40).all()


@pytest.mark.parametrize(
    "side, what", [(8200, "is 8200×8200 pixels"), (13_400, "is far too large")], ids=["above_ours", "above_pillows"]
)
def test_a_file_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path, side, what, recwarn):
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(CameraError) as caught:
        read_image(path)
    assert str(caught.value) == f"The image '{path}' {what}; at most 67,108,864 pixels are read. Scale it down."
    assert caught.value.key == "camera.image_too_large"
    assert not list(recwarn)


def test_postscript_is_not_run(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS).save(path, format="EPS")
    with pytest.raises(CameraError, match="its format is unknown"):
        read_image(path)


def test_a_file_that_is_no_image_says_so(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_text("not a picture")
    with pytest.raises(CameraError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"'{path}' is not an image that can be read: its format is unknown or it is damaged. "
        f"Give a JPEG, PNG, WebP, GIF, BMP or TIFF file."
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CameraError, match=re.escape(f"'{path}' is not an image that can be read: ")):
        read_image(path)


def test_a_truncated_jpeg_says_so(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CameraError, match=re.escape(f"'{path}' is not an image that can be read: image file is trunc")):
        read_image(path)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path):
    with pytest.raises(CameraError, match="There is no file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(CameraError, match="Is a directory"):
        read_image(tmp_path)
