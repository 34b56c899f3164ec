"""Ports of servers on this machine: finding a free one, and waiting for a process to accept connections on it."""

from __future__ import annotations

import random
import socket
import subprocess
import time

_STEP_S = 0.02

_FREE_PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections (32,768 and up): one of these could take the port before its
server does, and a client that probes such a port can even connect to itself."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that nobody listens on.

    Raises:
        OSError: `host` is no address of this machine, or all ports that were tried are taken.
    """
    for port in random.sample(_FREE_PORTS, 100):
        try:
            return bindable(host, port)[1]
        except OSError as error:
            failure = error
    raise failure


def bindable(host: str, port: int) -> tuple[str, int]:
    """Address and port to listen on, seen to be free a moment ago.

    Raises:
        OSError: `host` is no address of this machine, or the port is taken.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        bound = probe.getsockname()
    return str(bound[0]), int(bound[1])


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
