import threading
import time
from datetime import timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from moedge_runtime.camera.video import VideoFileSource
from moedge_runtime.errors import CameraError
from runtime.camera.videos import HEIGHT, WIDTH, number_of, set_rotation, write_video


def test_every_frame_arrives_in_order_with_its_time(tmp_path: Path) -> None:
    frames = list(VideoFileSource(write_video(tmp_path / "v.mp4", frames=30, fps=10)).frames())
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.pts_s for frame in frames], np.arange(30) / 10)
    first = frames[0]
    assert first.image.shape == (HEIGHT, WIDTH, 3)
    assert first.image.dtype == np.uint8
    assert first.captured_at.utcoffset() == timedelta(0)


def test_fps_thins_on_the_videos_own_time_and_keeps_the_indices(tmp_path: Path) -> None:
    frames = list(VideoFileSource(write_video(tmp_path / "v.mp4", frames=30, fps=10), fps=2).frames())
    assert [frame.index for frame in frames] == [0, 5, 10, 15, 20, 25]
    assert [number_of(frame.image) for frame in frames] == [0, 5, 10, 15, 20, 25]


def test_a_loop_goes_on_in_time_and_index_until_closed(tmp_path: Path) -> None:
    source = VideoFileSource(write_video(tmp_path / "v.mp4", frames=5, fps=10), loop=True)
    frames = []
    for frame in source.frames():
        frames.append(frame)
        if len(frames) == 12:
            source.close()
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [frame.index for frame in frames] == list(range(12))
    assert np.allclose([frame.pts_s for frame in frames], np.arange(12) / 10)


@pytest.mark.parametrize(
    ("turns", "corner"),
    [(0, (slice(0, 12), slice(0, 12))), (1, (slice(0, 12), slice(-12, None))), (3, (slice(-12, None), slice(0, 12)))],
)
def test_a_display_matrix_turns_the_picture_upright(tmp_path: Path, turns: int, corner: tuple[slice, slice]) -> None:
    path = write_video(tmp_path / "v.mp4", frames=2)
    set_rotation(path, turns)
    image = next(iter(VideoFileSource(path).frames())).image
    assert image.shape == ((HEIGHT, WIDTH, 3) if turns == 0 else (WIDTH, HEIGHT, 3))
    assert image[corner].mean() > 240, "the white corner is not where the matrix puts it"
    assert image.flags.c_contiguous


def test_realtime_gives_frames_at_their_time(tmp_path: Path) -> None:
    source = VideoFileSource(write_video(tmp_path / "v.mp4", frames=6, fps=20), realtime=True)
    started_s = time.monotonic()
    frames = list(source.frames())
    assert all(frame.monotonic_s - started_s >= frame.pts_s for frame in frames)
    assert frames[-1].pts_s == 0.25


def test_close_from_another_thread_ends_a_realtime_wait(tmp_path: Path) -> None:
    source = VideoFileSource(write_video(tmp_path / "v.mp4", frames=3, fps=1), realtime=True)
    first = threading.Event()
    count: list[int] = []

    def read() -> None:
        for frame in source.frames():
            count.append(frame.index)
            first.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert first.wait(10)
    source.close()
    thread.join(0.9)
    assert not thread.is_alive()
    assert count == [0]


def test_an_unreadable_video_says_so(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_text("this is no video")
    with pytest.raises(CameraError) as caught:
        next(iter(VideoFileSource(path).frames()))
    assert str(caught.value) == (
        f"Video '{path}' cannot be opened: Invalid data found when processing input. Give a file that FFmpeg can read."
    )
    assert caught.value.key == "camera.unreadable"


def test_a_missing_video_says_so(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with pytest.raises(CameraError) as caught:
        next(iter(VideoFileSource(path).frames()))
    assert str(caught.value) == (
        f"Video '{path}' does not exist. Check the path; it is relative to the configuration file."
    )


@pytest.mark.parametrize("between_frames", [False, True])
def test_a_truncated_video_gives_what_it_has_and_then_says_how_much(tmp_path: Path, between_frames: bool) -> None:
    path = write_video(tmp_path / "v.mp4", frames=30, faststart=True)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    kept = positions[15] if between_frames else positions[15] + 20
    path.write_bytes(content[:kept])
    frames = []
    with pytest.raises(CameraError) as caught:
        for frame in VideoFileSource(path).frames():
            frames.append(frame)
    given = len(frames)
    assert [number_of(frame.image) for frame in frames] == list(range(given))
    if between_frames:
        assert given == 15
        assert str(caught.value) == (
            f"Video '{path}' is truncated: it ended after 15 frames; its index goes to byte {len(content):,}, "
            f"the file has {kept:,}. Copy it again, or give a whole file."
        )
    else:
        assert 10 <= given < 16
        assert str(caught.value) == (
            f"Video '{path}' is damaged after {given} frames: Invalid data found when processing input. "
            "Copy it again, or give a whole file."
        )
