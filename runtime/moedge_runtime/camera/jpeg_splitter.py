"""Finds the JPEG pictures in a stream of bytes. Pure."""

from __future__ import annotations

import re

from moedge_runtime.errors import CameraError

MAX_PICTURE_BYTES = 1 << 25
"""32 MiB. A JPEG of the largest picture that is read, 67 megapixels, has about half of that at quality 90."""

_START = b"\xff\xd8\xff"
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""ITU-T T.81, B.1.1.5: inside entropy-coded data FF is followed by 00 or a restart marker; FF bytes may be fill."""

_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA


class JpegSplitter:
    """Cuts whole JPEG pictures out of chunks of any size; bytes between two pictures are left out.

    The segments are walked (ITU-T T.81, annex B), so that a thumbnail inside a picture does not end it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        """Where to go on in the buffer: at a marker, or inside of entropy-coded data."""
        self._in_scan = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The pictures that `chunk` completes.

        Raises:
            CameraError: A picture has more than `MAX_PICTURE_BYTES`.
        """
        self._buffer += chunk
        pictures = []
        while (end := self._find_end()) is not None:
            pictures.append(bytes(self._buffer[:end]))
            self._restart(end)
        if len(self._buffer) > MAX_PICTURE_BYTES:
            raise CameraError(
                f"A JPEG picture does not end within {MAX_PICTURE_BYTES:,} bytes. Check what the source writes.",
                key="camera.image_too_large",
            )
        return pictures

    def _restart(self, from_byte: int) -> None:
        """Begin anew at the next picture, or at what may be the start of one."""
        found = self._buffer.find(_START, from_byte)
        del self._buffer[: found if found >= 0 else max(from_byte, len(self._buffer) - len(_START) + 1)]
        self._at, self._in_scan = 2, False

    def _find_end(self) -> int | None:
        """One past the last byte of the picture at the start of the buffer; None if it is not complete."""
        if not self._buffer.startswith(_START):
            self._restart(0)
        while self._buffer.startswith(_START):
            if self._in_scan:
                found = _MARKER_IN_SCAN.search(self._buffer, self._at)
                if found is None:
                    self._at = max(self._at, len(self._buffer) - 1)
                    return None
                self._at, self._in_scan = found.start(), False
            if len(self._buffer) < self._at + 4:
                return self._at + 2 if self._buffer[self._at : self._at + 2] == bytes((0xFF, _EOI)) else None
            fill, marker = self._buffer[self._at], self._buffer[self._at + 1]
            if fill != 0xFF or marker in (0x00, _SOI):
                self._restart(self._at)  # no JPEG after all
            elif marker == 0xFF:
                self._at += 1
            elif marker == _EOI:
                return self._at + 2
            elif marker in _WITHOUT_LENGTH:
                self._at += 2
            else:
                self._at += 2 + int.from_bytes(self._buffer[self._at + 2 : self._at + 4], "big")
                self._in_scan = marker == _SOS
                if self._at > len(self._buffer):
                    return None
        return None
