"""Lines of the log on MQTT: for who keeps a device and has no shell on it. docs/mqtt.md says what is published."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from moedge_runtime.config import Config
from moedge_runtime.config.camera import without_credentials
from moedge_runtime.daemon.clock import clock_synced
from moedge_runtime.daemon.logs import MAX_CHARACTERS, RepeatFilter
from moedge_runtime.mqtt.payloads import LogLevel, LogPayload

BURST_LINES = 20
LINES_PER_S = 1.0
"""So many lines at once, and so many a second in the long run; the others are dropped and counted."""

OWN = ("moedge_runtime.mqtt.client", "moedge_runtime.mqtt.session")
"""Loggers of what publishing itself says, which is never published."""

MIN_SECRET_CHARACTERS = 4
"""A shorter one stands in too many words to be searched for."""

_LEVELS: dict[int, LogLevel] = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class LogTopic(logging.Handler):
    """Publishes lines, without waiting for anything and without keeping any.

    Args:
        level: The least that is published; the log's own level holds as well.
        publish: Takes the line, or says that it cannot. It is called with this handler's lock held, on any thread.
        redact: Takes secrets out of a line.
        clock: Seconds.

    Attributes:
        dropped: Lines that were not published: there was no broker, or too many came.
    """

    def __init__(
        self,
        level: LogLevel,
        publish: Callable[[LogPayload], bool],
        redact: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(level.upper())
        self._publish, self._redact, self._clock = publish, redact, clock
        self._left, self._since_s = float(BURST_LINES), clock()
        self.dropped = 0
        self.addFilter(lambda record: record.name not in OWN)
        self.addFilter(RepeatFilter(self.handle))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        now_s = self._clock()
        self._left = min(float(BURST_LINES), self._left + (now_s - self._since_s) * LINES_PER_S)
        self._since_s = now_s
        if self._left < 1 or not self._publish(self._payload(record)):
            self.dropped += 1
        else:
            self._left -= 1

    def _payload(self, record: logging.LogRecord) -> LogPayload:
        message = self._redact(record.getMessage())
        return LogPayload(
            at=datetime.fromtimestamp(record.created, timezone.utc),
            clock_synced=clock_synced(),
            level=_LEVELS.get(record.levelno, "error"),
            namespace=record.name,
            message=message if len(message) <= MAX_CHARACTERS else message[:MAX_CHARACTERS] + "…",
            dropped=self.dropped,
        )


def redactor(config: Config) -> Callable[[str], str]:
    """Takes passwords and tokens of `config` out of a text, and of its cameras' addresses what `info` does not show."""
    cameras = config.cameras.values()
    secrets = [config.mqtt.password, *(camera.password for camera in cameras), config.web.token if config.web else None]
    values = [secret.get_secret_value() for secret in secrets if secret is not None]
    shown = {value: "…" for value in values if len(value) >= MIN_SECRET_CHARACTERS}
    shown |= {camera.source: without_credentials(camera.source) for camera in cameras}
    longest_first = sorted(shown.items(), key=lambda pair: -len(pair[0]))
    return lambda text: _replaced(text, longest_first)


def _replaced(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for secret, stand_in in pairs:
        text = text.replace(secret, stand_in)
    return text
