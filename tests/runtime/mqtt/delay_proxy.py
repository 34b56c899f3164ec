"""A TCP proxy that delays every byte, in place of the kernel's netem, which many kernels are built without."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from contextlib import suppress

from moedge_runtime.mqtt.address import BrokerAddress

CHUNK_BYTES = 4096


class DelayProxy:
    """Listens on a free port of this machine; use as a context manager.

    Args:
        target: Where connections lead.
        delay_s: On the way in either direction.
        jitter_s: Up to so much more, by chance; bytes never overtake each other.
    """

    def __init__(self, target: BrokerAddress, delay_s: float, jitter_s: float = 0.0) -> None:
        self._target, self._delay_s, self._jitter_s = target, delay_s, jitter_s
        self._random = random.Random(0)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.address = BrokerAddress("127.0.0.1", self._server.getsockname()[1])
        self.connections = 0

    def __enter__(self) -> DelayProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections; what is under way is lost."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection((self._target.host, self._target.port))
                self.connections += 1
                self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                    threading.Thread(target=self._read, args=(source, line), daemon=True).start()
                    threading.Thread(target=self._write, args=(line, sink), daemon=True).start()

    def _read(self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"more"
        while data:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            line.put((time.monotonic() + self._delay_s + self._random.uniform(0, self._jitter_s), data))

    def _write(self, line: queue.SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
        while True:
            due_s, data = line.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                if not data:
                    break
                sink.sendall(data)
            except OSError:
                break
        self._open.discard(sink)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        sink.close()
