"""Which names a request may use for this machine. Pure but for the machine's own name.

A page of another site can make its own name point to this machine (DNS rebinding) and is then, for the browser, the
same site. Its requests carry that name in `Host`, and are refused.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?")


class Hosts:
    """The names that are known here.

    Args:
        names: Further ones, beside every IP address, localhost and the machine's own name (with .local too).
        machine: The machine's own name.
    """

    def __init__(self, names: Iterable[str] = (), machine: str | None = None) -> None:
        own = (socket.gethostname() if machine is None else machine).lower()
        self._names = {"localhost", own, own.partition(".")[0] + ".local", *(name.lower() for name in names)}

    def allows(self, host: str) -> bool:
        """Whether `host`, a Host header, names this machine."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower()
        return name in self._names or _is_address(name.strip("[]"))


def same_origin(origin: str, host: str) -> bool:
    """Whether `origin`, an Origin header, is a page of the server that a request named `host`."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
