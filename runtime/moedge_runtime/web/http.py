"""Requests and responses between the server and what answers, and the rules that hold for all of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from moedge_runtime.errors import MoedgeError
from moedge_runtime.strict_json import parse_json
from moedge_runtime.web.hosts import Hosts

MAX_BODY_BYTES = 128 * 1024
"""A question with its JSON Schema, as over MQTT 64 KiB, and the rest of a request."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""With every response. Nothing is loaded from elsewhere, nothing inline runs, no other page shows this one."""

log = logging.getLogger(__name__)


class HttpError(Exception):
    """A request that is answered with an error; the text is for people, `key` is stable."""

    def __init__(self, status: HTTPStatus, message: str, key: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.key, self.headers = status, key, dict(headers or {})


@dataclass(frozen=True)
class HttpRequest:
    """A whole request.

    Attributes:
        method: In capitals.
        path: Decoded, without the query.
        query: The last value of each name.
        headers: Names in lower case.
        body: All of it, MAX_BODY_BYTES at most.
        remote: Address of the sender.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    remote: str

    def json_object(self) -> dict[str, Any]:
        """The body, which must be a JSON object sent as one.

        Raises:
            HttpError: 415 or 400.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.", "web.not_json"
            )  # no form of another site can
        try:
            value = parse_json(self.body.decode("utf-8"))
        except ValueError as error:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {error}.", "web.invalid_json"
            ) from error
        if not isinstance(value, dict):
            raise HttpError(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.", "web.invalid_json")
        return value


@dataclass(frozen=True)
class HttpResponse:
    """What is sent back."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[HttpRequest], HttpResponse]


def json_response(
    value: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """`value` as JSON."""
    return HttpResponse(
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
        "application/json; charset=utf-8",
        status,
        headers or {},
    )


def error_response(error: HttpError) -> HttpResponse:
    """An error as JSON, with the keys that errors have on MQTT."""
    return json_response({"error": {"key": error.key, "message": str(error)}}, error.status, error.headers)


def method_not_allowed(request: HttpRequest, allowed: Iterable[str]) -> HttpError:
    """For a path that is known."""
    names = ", ".join(sorted(allowed))
    return HttpError(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"{request.path} takes {names}, not {request.method[:20]}.",
        "web.method",
        {"Allow": names},
    )


def not_found() -> HttpError:
    """For a path that is not known."""
    return HttpError(HTTPStatus.NOT_FOUND, "There is nothing here.", "web.not_found")


def wsgi_of(handler: Handler, hosts: Hosts) -> Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]:
    """`handler` as a WSGI application (PEP 3333) that never raises."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        method = str(environ.get("REQUEST_METHOD", ""))
        response = _answer(handler, hosts, environ)
        headers = {
            **SECURITY_HEADERS,
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            **response.headers,
        }
        start_response(f"{response.status.value} {response.status.phrase}", list(headers.items()))
        return [b"" if method == "HEAD" else response.body]

    return application


def _answer(handler: Handler, hosts: Hosts, environ: dict[str, Any]) -> HttpResponse:
    try:
        request = _request(environ)
        if not hosts.allows(request.headers.get("host", "")):
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "This name is not known here. Use the address, or add the name to `hosts` in moedge.yaml.",
                "web.host",
            )
        return handler(request)
    except HttpError as error:
        return error_response(error)
    except MoedgeError as error:
        return error_response(HttpError(HTTPStatus.BAD_REQUEST, str(error), error.key))
    except Exception:
        log.exception("A request over HTTP failed.")
        failed = HttpError(
            HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed; the daemon's log has the details.", "internal"
        )
        return error_response(failed)


def _request(environ: dict[str, Any]) -> HttpRequest:
    """Take the request out of the WSGI environment. The server has read all of the body already."""
    headers = {
        name[5:].replace("_", "-").lower(): str(value) for name, value in environ.items() if name.startswith("HTTP_")
    }
    headers["content-type"] = str(environ.get("CONTENT_TYPE", ""))
    try:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8")
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=16))
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, "The address is not valid.", "web.address") from error
    body: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_BODY_BYTES:,} bytes are read.", "web.too_large"
        )
    return HttpRequest(
        str(environ.get("REQUEST_METHOD", "")), path, query, headers, body, str(environ.get("REMOTE_ADDR", ""))
    )
