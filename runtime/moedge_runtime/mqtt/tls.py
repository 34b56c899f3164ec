"""TLS with the broker: the context made of a connection's files, made again when they are renewed."""

from __future__ import annotations

import logging
import ssl
from datetime import datetime, timezone
from pathlib import Path

from moedge_runtime.errors import BrokerError
from moedge_runtime.mqtt.address import Connection

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


def tls_context(connection: Connection) -> ssl.SSLContext:
    """A context that verifies the broker, and shows the client certificate if there is one.

    Raises:
        OSError: A file is missing, no PEM file, or the key is not the certificate's.
    """
    context = ssl.create_default_context(cafile=str(connection.ca) if connection.ca else None)
    if connection.cert is not None:
        context.load_cert_chain(connection.cert, connection.key)
    return context


def today() -> str:
    """The date for an error text: a board without a time server may live in 1970."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


class TlsFiles:
    """Certificates of a connection, which somebody may renew at any time.

    While the files cannot be used, because only one of them is written yet, the context of before goes on.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context: ssl.SSLContext | None = None
        self._used: list[_Stamp] = []
        self._refused: list[_Stamp] = []

    def context(self) -> ssl.SSLContext | None:
        """What to connect with; None for a broker without TLS.

        Raises:
            BrokerError: The files cannot be used, and never could.
        """
        if not self._connection.address.tls:
            return None
        stamps = self._stamps()
        if self._context is not None and stamps in (self._used, self._refused):
            return self._context
        try:
            self._context = tls_context(self._connection)
            self._used = stamps
        except OSError as error:
            self._refused = stamps
            what = getattr(error, "reason", None) or error.strerror or error
            if self._context is None:
                raise BrokerError(
                    f"The TLS files for broker {self._connection.address} cannot be used: {what}. "
                    f"Check mqtt.ca, mqtt.cert and mqtt.key.",
                    key="broker.tls_files",
                ) from error
            log.error("The renewed TLS files cannot be used: %s. Those of before stay in use.", what)
        return self._context

    def renewed(self) -> bool:
        """Whether there are other files now than those in use, and they can be used."""
        if not self._connection.address.tls or self._stamps() in (self._used, self._refused):
            return False
        before = self._context
        return self.context() is not before

    def _stamps(self) -> list[_Stamp]:
        return [_stamp(path) for path in (self._connection.ca, self._connection.cert, self._connection.key)]


def _stamp(path: Path | None) -> _Stamp:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
