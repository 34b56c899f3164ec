"""A real HTTPS server for a directory, with faults on demand."""

from __future__ import annotations

import http.server
import ssl
import threading
from pathlib import Path
from typing import Any


class HttpsServer:
    """Serves `directory` on 127.0.0.1. Use as a context manager.

    Attributes:
        requests: Path and Range header of every request.
        cut_after: Break a body off after so many bytes; None for never.
        ranges: Whether Range requests are understood.
        truncate: Say and send so many bytes less of large files than there are.
        status: Answer with this status instead.
    """

    def __init__(self, directory: Path, cert: Path, key: Path, *, client_ca: Path | None = None, port: int = 0) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: int | None = None
        self.ranges, self.truncate = True, 0
        self.status: int | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Range")))
                path = directory / self.path.lstrip("/")
                if outer.status is not None or not path.is_file():
                    self.send_response(outer.status or 404)
                    self.send_header("Location", "https://elsewhere.example/")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = path.read_bytes()
                if outer.truncate and len(content) > 20_000:
                    content = content[: -outer.truncate]
                begin, asked = 0, self.headers.get("Range")
                if asked and outer.ranges:
                    begin = int(asked.removeprefix("bytes=").rstrip("-"))
                    if begin >= len(content):
                        self.send_response(416)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                body = content[begin:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if outer.cut_after is not None and "/files/" in self.path and len(body) > outer.cut_after:
                    self.wfile.write(body[: outer.cut_after])
                    self.close_connection = True
                    return
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> HttpsServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
