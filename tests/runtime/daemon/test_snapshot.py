import hashlib
import io

import numpy as np
import pytest
from moedge_runtime.daemon.snapshot import Jpeg, encode_jpeg
from PIL import Image

RANDOM = np.random.default_rng(5)


def opened(picture: Jpeg) -> Image.Image:
    return Image.open(io.BytesIO(picture.content))


def noise(height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def test_a_picture_that_fits_keeps_its_size_and_its_colours() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320] = (200, 30, 60)
    picture = encode_jpeg(image, max_bytes=256 << 10, quality=85, comment="moedge 01X")
    assert (picture.width, picture.height) == (640, 480)
    decoded = opened(picture)
    assert decoded.format == "JPEG" and decoded.info["comment"] == b"moedge 01X"
    assert np.abs(np.asarray(decoded)[100, 100].astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.parametrize("max_bytes", [4 << 10, 20_000, 256 << 10])
@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("size", [(1080, 1920), (1, 4000), (7, 5), (2000, 3)])
def test_no_picture_is_larger_than_allowed_and_its_shape_stays(
    max_bytes: int, make: object, size: tuple[int, int]
) -> None:
    image = make(*size)  # type: ignore[operator]
    picture = encode_jpeg(image, max_bytes=max_bytes, quality=95, comment="x")
    assert len(picture.content) <= max_bytes
    assert opened(picture).size == (picture.width, picture.height)
    if min(size) > 100:
        assert picture.width / picture.height == pytest.approx(size[1] / size[0], rel=0.05)


def test_little_of_the_allowance_is_wasted() -> None:
    grained = (smooth(1080, 1920).astype(int) + RANDOM.integers(-20, 20, (1080, 1920, 3))).clip(0, 255).astype(np.uint8)
    picture = encode_jpeg(grained, max_bytes=200_000, quality=85, comment="x")
    assert len(picture.content) > 100_000


def test_an_answer_names_the_picture_by_its_digest() -> None:
    picture = encode_jpeg(smooth(10, 20), max_bytes=10_000, quality=85, comment="x")
    reference = picture.reference("t/d/c/snapshot")
    assert reference.sha256 == hashlib.sha256(picture.content).hexdigest()
    assert (reference.bytes, reference.width, reference.height) == (len(picture.content), 20, 10)
