"""Real programs: Python that writes what FFmpeg encoded."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from moedge_runtime.camera import Frame, SourceOptions, open_source
from moedge_runtime.camera.exec import ExecSource
from moedge_runtime.camera.pictures import PictureTaker
from moedge_runtime.camera.raw_video import RawVideo
from moedge_runtime.camera.timeouts import Patience, Timeouts
from moedge_runtime.errors import CameraError
from moedge_runtime.image_file import decode_image
from runtime.camera.videos import HEIGHT, WIDTH, brightness, number_of

DEADLINE_S = 20.0
PATIENT = Timeouts(DEADLINE_S, DEADLINE_S)


def mjpeg_file(path: Path, frames: int) -> Path:
    """FFmpeg's MJPEG: JPEG pictures one after the other, each of its number's brightness."""
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        for index in range(frames):
            grey = np.full((HEIGHT, WIDTH, 3), brightness(index), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def wait_for(condition: object) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "waited in vain"
        threading.Event().wait(0.01)


CAT = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
CAT_AND_STAY = CAT + "; sys.stdout.flush(); import time; time.sleep(600)"
IN_STEP = """
import sys
content, steps = open(sys.argv[1], 'rb').read(), open(sys.argv[2], 'rb', buffering=0)
for start in range(0, len(content), 100):
    sys.stdout.buffer.write(content[start : start + 100])
    sys.stdout.flush()
    if content[start - 100 : start + 100].count(b'\\xff\\xd9') > content[start - 100 : start].count(b'\\xff\\xd9'):
        steps.read(1)
"""
"""Writes a file in small pieces and waits for a byte after each picture."""


def read_in_step(source: ExecSource, fifo: Path) -> list[Frame]:
    """All frames; the program goes on when one has come."""
    os.mkfifo(fifo)
    steps = os.open(fifo, os.O_RDWR)
    frames = []
    for frame in source.frames():
        frames.append(frame)
        os.write(steps, b"x")
    os.close(steps)
    return frames


def test_every_jpeg_of_ffmpeg_arrives_in_order(tmp_path: Path) -> None:
    path, fifo = mjpeg_file(tmp_path / "v.mjpeg", 20), tmp_path / "fifo"
    frames = read_in_step(ExecSource(python(IN_STEP, path, fifo), raw=None, fps=None, timeouts=PATIENT), fifo)
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[0].image.shape == (HEIGHT, WIDTH, 3)


def test_of_pictures_that_come_at_once_only_the_newest_is_given(tmp_path: Path) -> None:
    path = mjpeg_file(tmp_path / "v.mjpeg", 30)
    assert path.stat().st_size < 1 << 16, "one read of the pipe"
    frames = list(ExecSource(python(CAT, path), raw=None, fps=None, timeouts=PATIENT).frames())
    assert [frame.index for frame in frames] == [29]
    assert number_of(frames[0].image) == 29


def test_raw_frames_need_their_size_and_arrive_whole(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"".join(bytes([brightness(index)]) * (64 * 48) for index in range(3)))
    source = ExecSource(python(CAT, path), raw=RawVideo("gray", 64, 48), fps=None, timeouts=PATIENT)
    frames = list(source.frames())
    assert number_of(frames[-1].image) == 2
    with pytest.raises(CameraError) as caught:
        open_source("exec:cat", SourceOptions(raw_format="nv12"))
    assert str(caught.value) == "Raw frames (nv12) need a `size`, for example 1280x720."


def test_a_damaged_picture_is_left_out_and_the_next_one_taken(tmp_path: Path) -> None:
    whole = mjpeg_file(tmp_path / "v.mjpeg", 1).read_bytes()
    damaged = whole[:2] + b"\xff\xda\x00\x02" + whole[-2:]
    taker = PictureTaker(lambda picture: decode_image(picture, "it"), fps=0.01, patience=Patience(PATIENT, ""))
    taken = [taker.take([picture]) for picture in (damaged, whole, whole)]
    assert [frame.index if frame else None for frame in taken] == [None, 1, None]


def test_a_command_is_cut_at_blanks_and_quotes_and_no_shell_sees_it(tmp_path: Path) -> None:
    path = mjpeg_file(tmp_path / "a file; $(touch oops) *.mjpeg", 1)
    command = shlex.join(python(CAT, path))
    assert len(list(open_source(f"exec:{command}", SourceOptions(fps=None, timeouts=PATIENT)).frames())) == 1
    assert not (tmp_path / "oops").exists()
    with pytest.raises(CameraError, match=r"The command cannot be read: No closing quotation\. Close its quotes\."):
        open_source("exec:cat 'x", SourceOptions())


def test_close_from_another_thread_ends_the_program_and_its_children(tmp_path: Path) -> None:
    path = mjpeg_file(tmp_path / "v.mjpeg", 1)
    pids = tmp_path / "pids"
    family = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
open({str(pids)!r}, "a").write(f"{{os.getpid()}}\\n")
{CAT_AND_STAY}
"""
    source = ExecSource(python(family, path), raw=None, fps=None, timeouts=PATIENT)
    first, ended = threading.Event(), threading.Event()

    def read() -> None:
        for _ in source.frames():
            first.set()
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    assert first.wait(DEADLINE_S)
    wait_for(lambda: len(pids.read_text().split()) == 2)
    source.close()
    assert ended.wait(DEADLINE_S)
    wait_for(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


def test_a_source_that_is_closed_before_it_begins_starts_nothing(tmp_path: Path) -> None:
    source = ExecSource(python(f"open({str(tmp_path / 'started')!r}, 'w')"), raw=None, fps=None, timeouts=PATIENT)
    source.close()
    assert list(source.frames()) == []
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('no camera\\n')", "'python' ended with status 1: no camera."),
        (
            "import sys; sys.exit('cannot open rtsp://me:secret@10.0.0.7/s')",
            "'python' ended with status 1: cannot open rtsp://10.0.0.7/s.",
        ),
        ("import sys; sys.exit(3)", "'python' ended with status 3 and said nothing."),
        ("import os; os.kill(os.getpid(), 9)", "'python' was ended by signal 9 and said nothing."),
    ],
)
def test_a_program_that_fails_is_quoted(code: str, text: str) -> None:
    source = ExecSource([sys.executable, "-c", code], raw=None, fps=None, timeouts=PATIENT)
    with pytest.raises(CameraError) as caught:
        list(source.frames())
    assert str(caught.value).replace(Path(sys.executable).name, "python") == text
    assert caught.value.key == "camera.exited"


def test_a_program_that_is_not_there_says_so() -> None:
    with pytest.raises(CameraError) as caught:
        list(ExecSource(["/no/such/tool"], raw=None, fps=None, timeouts=PATIENT).frames())
    assert str(caught.value) == (
        "'/no/such/tool' cannot be started (No such file or directory). Install it, or give its whole path."
    )


@pytest.mark.parametrize("code", ["import time; time.sleep(600)", "while True: print('chatter', flush=True)"])
def test_a_program_without_pictures_is_given_up_after_the_first_frame_timeout(code: str) -> None:
    source = ExecSource(python(code), raw=None, fps=None, timeouts=Timeouts(0.5, DEADLINE_S))
    with pytest.raises(CameraError) as caught:
        list(source.frames())
    assert str(caught.value).startswith("No first frame came within 0.5 s (first_frame_timeout). Check that 'python")
    assert str(caught.value).endswith("writes JPEG pictures to its standard output.")


def test_a_consumer_that_takes_long_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0])
    monkeypatch.setattr("moedge_runtime.camera.timeouts.time", clock)
    path = mjpeg_file(tmp_path / "v.mjpeg", 1)
    frames = ExecSource(python(CAT, path), raw=None, fps=None, timeouts=PATIENT).frames()
    next(frames)
    passed_s[0] = 10 * DEADLINE_S
    assert list(frames) == [], "it goes on to the program's end"


@pytest.mark.parametrize("noise", ["", "; sys.stderr.write('chatter ' * 100_000)"])
def test_a_program_that_falls_silent_has_stalled(tmp_path: Path, noise: str) -> None:
    path = mjpeg_file(tmp_path / "v.mjpeg", 1)
    code = CAT + "; sys.stdout.flush()" + noise + "; import time; time.sleep(600)"
    source = ExecSource(python(code, path), raw=None, fps=None, timeouts=Timeouts(DEADLINE_S, 0.3))
    frames = []
    with pytest.raises(CameraError) as caught:
        frames += source.frames()
    assert caught.value.key == "camera.stalled"
    assert str(caught.value) == "It stalled: nothing usable came for 0.3 s (stall_timeout)."
