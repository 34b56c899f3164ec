import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.camera import jpeg_splitter
from moedge_runtime.camera.jpeg_splitter import JpegSplitter
from moedge_runtime.errors import CameraError
from PIL import Image


def jpeg(seed: int, **options: object) -> bytes:
    """A small picture full of detail, so that its entropy-coded data holds many FF bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


PICTURES = [
    jpeg(1),
    jpeg(2, progressive=True),
    jpeg(3, restart_marker_rows=1),
    jpeg(4, comment=b"a thumbnail: " + jpeg(5)),
]


@given(
    seed=st.integers(0, 10_000),
    junk=st.sampled_from([b"", b"\xff\xd8", b"GST_ARGUS: Creating output stream\n", b"\xff"]),
)
def test_pictures_come_out_whole_however_they_are_cut(seed: int, junk: bytes) -> None:
    rng = random.Random(seed)
    stream = b"".join(junk + picture for picture in PICTURES)
    splitter, found = JpegSplitter(), []
    while stream:
        size = rng.choice([1, 2, 3, 700, 5000])
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == PICTURES


@given(st.binary(max_size=3000), st.integers(1, 500))
def test_noise_never_breaks_it(noise: bytes, size: int) -> None:
    splitter = JpegSplitter()
    for start in range(0, len(noise), size):
        splitter.feed(noise[start : start + size])
    splitter.feed(b"\xff" * 4 + b"\x00" * 70_000)
    assert splitter.feed(b"\xff\xd9" + PICTURES[0] + PICTURES[1])[-1:] == [PICTURES[1]]


def test_a_picture_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_splitter, "MAX_PICTURE_BYTES", 1000)
    with pytest.raises(CameraError, match="does not end within 1,000 bytes"):
        JpegSplitter().feed(PICTURES[0][:-2] * 2)
