"""A camera on HTTP: the standard library's server with what a test makes of it."""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from runtime.camera.videos import brightness


def jpeg(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture as bright as `brightness(number)`."""
    file = io.BytesIO()
    Image.new("RGB", size, (brightness(number),) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


class HttpCamera:
    """Answers every GET with `answer`; use as a context manager.

    Attributes:
        answer: Gets the request handler, which has `reply`.
        requests: Headers of all requests so far.
    """

    def __init__(self, answer: Callable[[Any], None], certificate: Path | None = None) -> None:
        self.answer = answer
        self.requests: list[dict[str, str]] = []
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.requests.append({name.lower(): value for name, value in self.headers.items()})
                camera.answer(self)

            def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> HttpCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/picture.jpg?channel=1"
