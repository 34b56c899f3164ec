import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.camera import multipart_splitter
from moedge_runtime.camera.multipart_splitter import MultipartSplitter, boundary_of
from moedge_runtime.errors import CameraError

BODIES = [b"\xff\xd8 one \r\n\r\n\xff\xd9", b"two\n\n", b"\x00" * 3000, b"--fram", b"four"]


def part(body: bytes, *, length: bool, line: bytes = b"\r\n") -> bytes:
    headers = [b"Content-Type: image/jpeg", *([b"content-length: %d" % len(body)] if length else [])]
    return b"--frame" + line + line.join(headers) + line + line + body + b"\r\n"


@given(
    seed=st.integers(0, 10_000),
    line=st.sampled_from([b"\r\n", b"\n"]),
    preamble=st.sampled_from([b"", b"\r\n", b"--fr"]),
)
def test_parts_with_a_length_come_out_whole_however_they_are_cut(seed: int, line: bytes, preamble: bytes) -> None:
    rng = random.Random(seed)
    stream = preamble + b"".join(part(body, length=True, line=line) for body in BODIES)
    splitter, found = MultipartSplitter(b"frame"), []
    while stream:
        size = rng.choice([1, 2, 7, 300])
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == BODIES


def test_a_part_without_a_length_ends_at_the_next_boundary() -> None:
    splitter = MultipartSplitter(b"frame")
    assert splitter.feed(part(b"one", length=False) + b"--fra") == []
    assert splitter.feed(b"me\r\nContent-Type: image/jpeg\r\n\r\ntwo") == [b"one"]
    assert splitter.feed(b"\r\n--frame--\r\n") == [b"two"]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"frame"),
        ("multipart/x-mixed-replace;boundary=--frame", b"frame"),
        ('multipart/x-mixed-replace; charset=utf-8; boundary="two words"', b"two words"),
        ("multipart/x-mixed-replace", None),
        ("image/jpeg", None),
        ("", None),
    ],
)
def test_the_boundary_is_found_as_cameras_write_it(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        (b"--frame\r\nX: " + b"y" * 2000, "header"),
        (b"--frame\r\nContent-Length: 2000\r\n\r\n", "body"),
        (b"--frame\r\n\r\n" + b"y" * 2000, "body"),
    ],
)
def test_a_part_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch, stream: bytes, what: str) -> None:
    monkeypatch.setattr(multipart_splitter, "MAX_PICTURE_BYTES", 1000)
    monkeypatch.setattr(multipart_splitter, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(CameraError, match=f"a {what} of more than 1,000 bytes"):
        MultipartSplitter(b"frame").feed(stream)
