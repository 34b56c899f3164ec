"""Requests that change the daemon itself or take a while, from the network's thread to the main thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from moedge_runtime.errors import MoedgeError, RequestError

MAX_WAITING = 4


@dataclass(frozen=True)
class Command:
    """A request that the main thread carries out.

    Attributes:
        verb: What to do.
        respond: Called once, with the response's data or the error.
        text: Of `config`: the new configuration.
        via: Where it came from.
        device_file: Of `config`: what to put beside it as device.json; None to leave that as it is.
        hot_set: Of `backup`: whether the hot set goes along.
        check: Of `update`: only look.
        rollback: Of `config`: the id of the one of the history that is to run again, in the place of a text.
    """

    verb: Literal["restart", "reload", "config", "history", "backup", "update"]
    respond: Callable[[Any | MoedgeError], None]
    text: str | None = None
    via: Literal["MQTT", "web"] = "MQTT"
    device_file: str | None = None
    hot_set: bool = True
    check: bool = False
    rollback: str | None = None


class Commands:
    """Commands that wait, in order. May be used from any thread.

    Args:
        on_command: Called when one was added.
    """

    def __init__(self, on_command: Callable[[], None]) -> None:
        self._on_command = on_command
        self._lock = threading.Lock()
        self._waiting: deque[Command] = deque()

    def add(self, command: Command) -> None:
        """Let the main thread carry out `command`; never blocks.

        Raises:
            RequestError: Too many wait already.
        """
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                raise RequestError(
                    f"{MAX_WAITING} requests wait for the daemon to restart, change its configuration, back it up or "
                    f"update it. Ask again later.",
                    key="request.busy",
                )
            self._waiting.append(command)
        self._on_command()

    def take(self) -> Command | None:
        """The next command; None if none waits."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None
