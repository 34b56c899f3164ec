"""The end of sd_notify that systemd has: a datagram socket, and what came over it."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import TracebackType


class NotifySocket:
    """Receives the messages of a service. Its path has to be short: sun_path of unix(7) takes 107 bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def receive(self, within_s: float) -> dict[str, str] | None:
        """The next message; None if there is none in time."""
        self._socket.settimeout(max(0.001, within_s))
        try:
            text = self._socket.recv(1 << 16).decode()
        except TimeoutError:
            return None
        return dict(line.split("=", 1) for line in text.split("\n"))

    def wait_for(self, name: str, value: str, within_s: float = 30.0) -> dict[str, str]:
        """The next message that has `name` with this value."""
        deadline_s = time.monotonic() + within_s
        while (message := self.receive(deadline_s - time.monotonic())) is not None:
            if message.get(name) == value:
                return message
        raise AssertionError(f"no {name}={value} within {within_s} s")
