"""Cuts a multipart/x-mixed-replace body into its parts, as cameras write it. Pure."""

from __future__ import annotations

from email.message import Message

from moedge_runtime.camera.jpeg_splitter import MAX_PICTURE_BYTES
from moedge_runtime.errors import CameraError

MAX_HEADER_BYTES = 16384
"""Of one part; cameras write about a hundred."""


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names, without leading dashes; None if it names none."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    return boundary.strip().removeprefix("--").encode() or None if isinstance(boundary, str) else None


class MultipartSplitter:
    """Cuts parts out of chunks of any size (RFC 2046, section 5.1.1).

    Follows what cameras do rather than the letter: the boundary may have been announced with its dashes, lines may end
    with LF alone, and a part with a Content-Length is taken by it. A part without ends at the next boundary.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Bodies of the parts that `chunk` completes.

        Raises:
            CameraError: A part's header or body is too large.
        """
        self._buffer += chunk
        parts = []
        while (part := self._next_part()) is not None:
            if part:
                parts.append(part)
        return parts

    def _next_part(self) -> bytes | None:
        start = self._buffer.find(self._delimiter)
        if start < 0:
            del self._buffer[: max(0, len(self._buffer) - len(self._delimiter) + 1)]
            return None
        del self._buffer[:start]
        header_end, body_start = _blank_line(self._buffer, len(self._delimiter))
        if body_start is None:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise _too_large("header", MAX_HEADER_BYTES)
            return None
        length = _content_length(bytes(self._buffer[len(self._delimiter) : header_end]))
        if length is None:
            return self._until_delimiter(body_start)
        if length > MAX_PICTURE_BYTES:
            raise _too_large("body", MAX_PICTURE_BYTES)
        if len(self._buffer) < body_start + length:
            return None
        return self._take(body_start, body_start + length)

    def _until_delimiter(self, body_start: int) -> bytes | None:
        end = self._buffer.find(self._delimiter, max(body_start, self._searched))
        if end < 0:
            self._searched = max(body_start, len(self._buffer) - len(self._delimiter) + 1)
            if len(self._buffer) > MAX_PICTURE_BYTES:
                raise _too_large("body", MAX_PICTURE_BYTES)
            return None
        return self._take(body_start, end).rstrip(b"\r\n")

    def _take(self, start: int, end: int) -> bytes:
        body = bytes(self._buffer[start:end])
        del self._buffer[:end]
        self._searched = 0
        return body


def _blank_line(buffer: bytearray, start: int) -> tuple[int, int | None]:
    """Where the header ends and where the body begins; None if the blank line has not arrived."""
    found = [(at, at + len(blank)) for blank in (b"\r\n\r\n", b"\n\n") if (at := buffer.find(blank, start)) >= 0]
    return min(found) if found else (0, None)


def _content_length(header: bytes) -> int | None:
    for line in header.splitlines():
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None


def _too_large(what: str, limit_bytes: int) -> CameraError:
    return CameraError(
        f"A part of the stream has a {what} of more than {limit_bytes:,} bytes. Check what the camera sends.",
        key="camera.image_too_large",
    )
