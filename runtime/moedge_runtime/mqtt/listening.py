"""Waits for a server process to accept connections."""

from __future__ import annotations

import socket
import subprocess
import time

_STEP_S = 0.02


def wait_until_listening(process: subprocess.Popen[bytes], host: str, port: int, timeout_s: float) -> bool:
    """Whether `host`:`port` accepts a connection within `timeout_s` seconds and before `process` ends."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            process.wait(_STEP_S)
            return False
        except subprocess.TimeoutExpired:
            pass
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return True
        except OSError:
            continue
    return False
