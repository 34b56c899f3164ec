"""An RTSP camera that is none: a socket that answers as it is told, which a real server would not do."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)
SEPARATOR = b"\n--\n"
TIMEOUT_S = 2.0


class HostileCamera:
    """Serves one connection; use as a context manager.

    The first byte of `script` says what the rest is: `a` for whole answers, one for each request, with `SEPARATOR`
    between them; `p` for payloads of RTP packets, each behind its length as two bytes; `d` for a description
    (SDP) that is followed by silence; anything else for bytes that come when video is expected.
    """

    def __init__(self, script: bytes) -> None:
        self._mode, self._rest = script[:1], script[1:]
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(TIMEOUT_S)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/stream"

    def __enter__(self) -> HostileCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        answers = self._rest.split(SEPARATOR) if self._mode == b"a" else None
        with suppress(OSError):
            connection, _ = self._server.accept()
            connection.settimeout(TIMEOUT_S)
            with connection, connection.makefile("rb") as lines:
                while method := _method(lines):
                    if answers is not None:
                        if not answers:
                            return
                        connection.sendall(answers.pop(0))
                        continue
                    connection.sendall(self._reply(*method))
                    if method[0] == b"PLAY":
                        connection.sendall(_packets(self._rest) if self._mode == b"p" else self._rest)
                        return

    def _reply(self, method: bytes, number: bytes) -> bytes:
        head = b"RTSP/1.0 200 OK\r\nCSeq: " + number + b"\r\n"
        if method == b"DESCRIBE":
            body = self._rest if self._mode == b"d" else SDP
            return head + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if method == b"SETUP":
            head += b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        return head + b"Session: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n"


def _method(lines: object) -> tuple[bytes, bytes] | None:
    """Method and number of the next request; None at the end."""
    first, number = b"", b"0"
    for line in lines:  # type: ignore[attr-defined]
        text = line.strip()
        if not text:
            return first.partition(b" ")[0], number
        first = first or text
        if text.lower().startswith(b"cseq:"):
            number = text.partition(b":")[2].strip()
    return None


def _packets(payloads: bytes) -> bytes:
    """Interleaved RTP (RFC 2326, section 10.12; RFC 3550, section 5.1)."""
    sent, sequence = bytearray(), 0
    while len(payloads) > 2:
        (size,) = struct.unpack_from(">H", payloads)
        payload, payloads = payloads[2 : 2 + size], payloads[2 + size :]
        header = struct.pack(">BBHII", 0x80, 0x80 | 96, sequence & 0xFFFF, sequence * 3600 & 0xFFFFFFFF, 1)
        sent += struct.pack(">cBH", b"$", 0, min(0xFFFF, len(header) + len(payload))) + header + payload
        sequence += 1
    return bytes(sent)
