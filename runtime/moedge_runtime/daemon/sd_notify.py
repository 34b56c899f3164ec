"""What a service tells systemd about itself: one datagram a message.

Source: sd_notify(3) and sd_watchdog_enabled(3) of systemd 252; nothing is used that 249 (Ubuntu 22.04) lacks.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

SEND_S = 5.0
"""systemd reads at once; while it does not, a message is lost rather than waited for."""

log = logging.getLogger(__name__)


class ServiceManager:
    """The socket of the service manager that started this process. Methods may be called from any thread.

    Args:
        address: Of the socket: a path, or `@` and an abstract name.
        watchdog_s: What the unit has as WatchdogSec, seconds; None if it has none.
    """

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServiceManager | None:
        """The one that NOTIFY_SOCKET names; None if this process is no service that reports."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        watched = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    def tell(self, **variables: str | int) -> None:
        """Send variables, e.g. `READY=1`. A failure is logged and does not matter to the daemon's own work."""
        text = "\n".join(f"{name}={_one_line(str(value))}" for name, value in variables.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(SEND_S)
                channel.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s.", text.replace("\n", ", "), error)


def _one_line(text: str) -> str:
    return " ".join(text.split())
