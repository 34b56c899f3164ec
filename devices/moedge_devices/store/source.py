"""Where releases come from: a directory on a web server over HTTPS, or a local directory such as a USB stick."""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import urllib3
from moedge_runtime.errors import ConfigError
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from moedge_devices.store.errors import SourceError

MAX_DOCUMENT_BYTES = 16 << 20
"""Of an index, or keys."""

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0

_EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc)
"""A clock before this was never set."""


class NotThereError(SourceError):
    """The source answers, and has no such file."""

    key = "update.not_there"


class Source(Protocol):
    """Reads files by their path below a root, with forward slashes. `str` names it in errors."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """A whole file.

        Raises:
            NotThereError: It has none of this name.
            SourceError: It cannot be read, or is larger than `max_bytes`.
        """

    def stream(self, name: str, offset: int) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """The offset at which the bytes begin, `offset` or 0, and the bytes in pieces.

        Raises:
            NotThereError: It has none of this name.
            SourceError: It breaks off.
        """


class DirectorySource:
    """A local directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"'{self._path}'"

    def read(self, name: str, max_bytes: int) -> bytes:
        """See Source."""
        with self._failures(name), (self._path / name).open("rb") as file:
            content = file.read(max_bytes + 1)
        return _bounded(content, max_bytes, name, self)

    @contextmanager
    def stream(self, name: str, offset: int) -> Generator[tuple[int, Iterator[bytes]], None, None]:
        """See Source."""
        with self._failures(name):
            file = (self._path / name).open("rb")
        with file:
            file.seek(offset)
            yield offset, self._pieces(file.fileno(), name)

    def _pieces(self, descriptor: int, name: str) -> Iterator[bytes]:
        while True:
            with self._failures(name):
                piece = os.read(descriptor, CHUNK_BYTES)
            if not piece:
                return
            yield piece

    @contextmanager
    def _failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._path.is_dir():
                raise SourceError(
                    f"The source '{self._path}' is not there. Mount it, or give the directory that `moedge bundle "
                    f"publish` made.",
                    key="update.unreachable",
                ) from error
            raise NotThereError(f"{self} has no '{name}'. It is not whole: publish again.") from error
        except OSError as error:
            raise SourceError(
                f"'{name}' of {self} cannot be read: {error.strerror or error}. What was copied is kept.",
                key="update.unreadable",
            ) from error


class HttpsSource:
    """A directory on any static web server. Resumes with Range requests; follows no redirections.

    Args:
        url: https://….
        ca: PEM of the authorities that may sign the server's certificate; None for the system's.
        cert: PEM of our own certificate, for servers that ask for one.
        key: PEM of its key.

    Raises:
        ConfigError: The address or a file is not usable.
    """

    def __init__(self, url: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ConfigError(
                f"The source '{parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}' is no usable address. "
                f"Write https://HOST/PATH without user, password and query, or a directory.",
                key="config.source",
            )
        self._url = url.rstrip("/")
        try:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
            if cert is not None:
                context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"The certificates for '{url}' cannot be used: {error.strerror or error}. Give PEM files: ca for the "
                f"server's authorities, cert and key for our own.",
                key="config.certificate",
            ) from error
        self._pool = urllib3.PoolManager(
            ssl_context=context,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,
            maxsize=1,
        )

    def __str__(self) -> str:
        return f"'{self._url}'"

    def read(self, name: str, max_bytes: int) -> bytes:
        """See Source."""
        with self.stream(name, 0) as (_, pieces):
            content = bytearray()
            for piece in pieces:
                content += piece
                _bounded(b"", max_bytes - len(content), name, self)
        return bytes(content)

    @contextmanager
    def stream(self, name: str, offset: int) -> Generator[tuple[int, Iterator[bytes]], None, None]:
        """See Source. `offset` is 0 if the server cannot resume."""
        headers = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._failures(name):
            response = self._pool.request(
                "GET", f"{self._url}/{name}", headers=headers, preload_content=False, redirect=False
            )
        try:
            yield self._begin(response, offset, name), self._pieces(response, name)
        finally:
            response.close()

    def _begin(self, response: urllib3.BaseHTTPResponse, offset: int, name: str) -> int:
        if response.status == 200:
            return 0
        if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            return offset
        if response.status in (404, 410):
            raise NotThereError(
                f"{self} has no '{name}' (HTTP {response.status}). Publish again, or look at the address."
            )
        if 300 <= response.status < 400:
            raise SourceError(
                f"{self} sends us elsewhere for '{name}' (HTTP {response.status}, "
                f"{response.headers.get('Location', 'nowhere')[:200]!r}). Redirections are not followed: give the "
                f"final address.",
                key="update.redirected",
            )
        raise SourceError(
            f"{self} refuses '{name}' (HTTP {response.status} {response.reason or ''}). Look at the server's log.",
            key="update.refused_by_server",
        )

    def _pieces(self, response: urllib3.BaseHTTPResponse, name: str) -> Iterator[bytes]:
        with self._failures(name):
            yield from response.stream(CHUNK_BYTES, decode_content=False)

    @contextmanager
    def _failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except SSLError as error:
            raise SourceError(self._about_tls(error), key="update.certificate") from error
        except ProtocolError as error:
            raise SourceError(
                f"{self} broke off while it sent '{name}': {error}. What was fetched is kept; run the command again.",
                key="update.broken_off",
            ) from error
        except (HTTPError, OSError) as error:
            raise SourceError(
                f"{self} cannot be reached: {error}. Check address, network and server; what was fetched is kept.",
                key="update.unreachable",
            ) from error

    def _about_tls(self, error: SSLError) -> str:
        now = datetime.now(timezone.utc)
        text = f"The TLS connection to {self} is refused: {error}."
        if now < _EARLIEST:
            return (
                f"{text} The clock of this board says {now:%Y-%m-%d}, so that every certificate looks as if it were "
                f"not valid yet. Wait for the time server; the model that runs is not touched."
            )
        return (
            f"{text} The server's certificate must be signed by the authorities in ca (or the system's), be valid now "
            f"({now:%Y-%m-%d}) and name the host; a server that asks for ours wants cert and key."
        )


def open_source(
    address: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> HttpsSource | DirectorySource:
    """The source at an address: https://…, or a directory.

    Raises:
        ConfigError: It is neither.
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme == "file":
        return DirectorySource(Path(urlsplit(address).path))
    return HttpsSource(address, ca=ca, cert=cert, key=key) if scheme else DirectorySource(Path(address))


def _bounded(content: bytes, max_bytes: int, name: str, source: object) -> bytes:
    if len(content) > max_bytes:
        raise SourceError(
            f"'{name}' of {source} is larger than it may be. It was changed, or is of another program.",
            key="update.too_large",
        )
    return content
