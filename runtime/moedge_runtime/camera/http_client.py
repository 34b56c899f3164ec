"""GET of one URL with login and TLS, whose waiting another thread can end."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from moedge_runtime.camera.credentials import Credentials, Tls, unauthorized
from moedge_runtime.camera.http_login import Login, login_for
from moedge_runtime.errors import CameraError

PICTURE_TYPES = "multipart/x-mixed-replace, image/*"


class HttpClient:
    """Gets one URL again and again.

    Basic and digest logins are answered when the camera asks for them, and do not follow it to another host.

    Args:
        url: `http://…` or `https://…`, without user and password.
        credentials: For the camera; None for none.
        tls: For https.
    """

    def __init__(self, url: str, credentials: Credentials | None = None, tls: Tls | None = None) -> None:
        self._url, self._credentials = url, credentials
        self._lock = threading.Lock()
        self._closed = False
        self._login: Login | None = None
        """Answers the camera's last challenge; it is sent along from then on."""
        self._socket: socket.socket | None = None
        self._opener = urllib.request.OpenerDirector()
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler(),
            _Http(self._watch),
            _Https(self._watch, _context(tls or Tls())),
            urllib.request.HTTPRedirectHandler(),
            _Errors(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ]
        for handler in handlers:
            self._opener.add_handler(handler)

    def get(self, headers: Mapping[str, str], timeout_s: float) -> http.client.HTTPResponse:
        """The camera's response, with status 2xx or 304; its body is not read yet.

        Args:
            headers: More request headers.
            timeout_s: For connecting, and for every piece of the response.

        Raises:
            CameraError: There is none.
        """
        url, answered = self._url, False
        while True:
            request = urllib.request.Request(url, headers={"Accept": PICTURE_TYPES, **headers})
            if self._login is not None:
                request.add_unredirected_header("Authorization", self._login.header("GET", request.selector))
            try:
                response: http.client.HTTPResponse = self._opener.open(request, timeout=timeout_s)
                return response
            except urllib.error.HTTPError as error:
                error.close()
                if answered or not self._is_challenged(error):
                    raise self._refused(error.code, error.reason) from None
                url, answered = error.url, True
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._unreachable(error) from None

    def _is_challenged(self, error: urllib.error.HTTPError) -> bool:
        """Whether the camera itself asks for a login, and `_login` is now the answer."""
        if error.code != http.HTTPStatus.UNAUTHORIZED or self._credentials is None:
            return False
        if _origin(error.url) != _origin(self._url):
            return False
        self._login = login_for(error.headers.get_all("WWW-Authenticate", []), self._credentials)
        return self._login is not None

    def limit(self, timeout_s: float) -> None:
        """From now on, wait so long for every piece of the response."""
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.settimeout(timeout_s)

    def close(self) -> None:
        """End all waiting, now and later; may be called from any thread."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _watch(self, connected: socket.socket) -> None:
        with self._lock:
            self._socket = connected
            if self._closed:
                raise ConnectionAbortedError("it was closed")

    def _refused(self, status: int, phrase: str) -> CameraError:
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            return unauthorized(self._credentials)
        if status == http.HTTPStatus.NOT_FOUND:
            return CameraError(
                "The camera answers, but has nothing at this address (HTTP 404). Check the path after the host.",
                key="camera.not_found",
            )
        return CameraError(f"The camera answers HTTP {status} ({phrase}).", key="camera.refused")

    def _unreachable(self, error: Exception) -> CameraError:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CameraError(
                f"The camera's certificate is not trusted: {cause.verify_message}. Give the file of who signed it, or "
                "its own, as `ca`.",
                key="camera.certificate",
            )
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        return CameraError(
            f"It cannot be reached: {text}. Check address, port and cable, and that it is switched on.",
            key="camera.unreachable",
        )


class _Errors(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        """A picture that has not changed is no error."""
        return response if response.status == http.HTTPStatus.NOT_MODIFIED else super().http_response(request, response)

    https_response = http_response


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: Any) -> None:
        super().__init__()
        self._connection = _watched(http.client.HTTPConnection, watch)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: Any, context: ssl.SSLContext) -> None:
        super().__init__()
        self._connection, self._tls = _watched(http.client.HTTPSConnection, watch), context

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request, context=self._tls)


def _watched(kind: type[http.client.HTTPConnection], watch: Any) -> type[http.client.HTTPConnection]:
    """Made once for a camera: a class for each request would be garbage in cycles, megabytes before Python looks."""

    class Watched(kind):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            watch(self.sock)

    return Watched


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    except ssl.SSLError as error:
        raise CameraError(
            f"'{tls.ca}' holds no certificate that can be read. Give a PEM file as `ca`.", key="camera.certificate"
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
