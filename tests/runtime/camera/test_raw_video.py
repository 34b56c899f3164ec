import av
import numpy as np
import pytest
from moedge_runtime.camera.raw_video import RAW_FORMATS, RawFormat, RawSplitter, RawVideo


@pytest.mark.parametrize("name", RAW_FORMATS)
def test_every_format_gives_the_picture_that_ffmpeg_wrote(name: RawFormat) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 40, 60)
    image[:, 32:] = (20, 120, 220)
    written = av.VideoFrame.from_ndarray(image, format="rgb24").to_ndarray(format=name).tobytes()
    video = RawVideo(name, 64, 48)
    assert video.frame_bytes == len(written)
    decoded = video.decode(written)
    assert decoded.dtype == np.uint8
    expected = image if name != "gray" else np.repeat(image @ [[0.299], [0.587], [0.114]], 3, axis=2)
    inside = np.r_[2:30, 34:62]  # chroma is blurred at the edge
    assert np.abs(decoded[:, inside].astype(int) - expected[:, inside]).max() <= 4


def test_frames_come_out_whole_however_they_are_cut() -> None:
    splitter = RawSplitter(10)
    frames = [bytes([number] * 10) for number in range(5)]
    stream, found = b"".join(frames), []
    for start in range(0, 50, 7):
        found += splitter.feed(stream[start : start + 7])
    assert found == frames
