"""The local page: its files, and the JSON behind it. What the daemon does for it is a port, `PageHost`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import resources
from typing import Any, Protocol

from moedge_runtime.web.hosts import same_origin
from moedge_runtime.web.http import (
    HttpError,
    HttpRequest,
    HttpResponse,
    json_response,
    method_not_allowed,
    not_found,
)
from moedge_runtime.web.sessions import Sessions, cookie_of

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

_CAMERA_PATH = re.compile(r"/api/cameras/([A-Za-z0-9_-]{1,64})/(picture|masks|zones|masks/remove|enabled)")
_ASKED_PATH = re.compile(r"/api/asked/([A-Za-z0-9_-]{1,64})")


class PageHost(Protocol):
    """What the page shows and does. Called on the server's threads; each method may raise MoedgeError."""

    def status(self) -> dict[str, Any]:
        """How the device, its cameras and its model are, as JSON values."""
        ...

    def answers(self) -> list[dict[str, Any]]:
        """The last answers, the newest first."""
        ...

    def picture(self, camera: str) -> bytes:
        """The newest frame of `camera` with its masks painted, as a JPEG."""
        ...

    def ask(self, request: bytes) -> str:
        """Put a question, a request `ask` of docs/mqtt.md, into the model's queue; returns its identifier."""
        ...

    def asked(self, identifier: str) -> dict[str, Any]:
        """What became of a question of `ask`."""
        ...

    def add_polygon(self, camera: str, kind: str, body: Mapping[str, Any]) -> str:
        """Add a mask or a zone to the configuration and apply it; returns the identifier of the change."""
        ...

    def remove_mask(self, camera: str, body: Mapping[str, Any]) -> str:
        """Take the mask `polygon` of `body` out of the configuration and apply it; the identifier of the change."""
        ...

    def enable(self, camera: str, body: Mapping[str, Any]) -> str:
        """Pause `camera`, or let it go on if `on` of `body` is true; returns the identifier of the change."""
        ...


Route = Callable[[HttpRequest], HttpResponse]


class Page:
    """Answers browsers. Everything but the page's own files and the login needs a session.

    Args:
        host: The daemon.
        sessions: Who may use it.
    """

    def __init__(self, host: PageHost, sessions: Sessions) -> None:
        self._host, self._sessions = host, sessions
        self._files = _files()
        self._routes: dict[str, dict[str, Route]] = {
            "/api/status": {"GET": lambda request: json_response(host.status())},
            "/api/answers": {"GET": lambda request: json_response({"answers": host.answers()})},
            "/api/ask": {"POST": self._ask},
            "/api/logout": {"POST": self._log_out},
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer `request`."""
        path = "/index.html" if request.path == "/" else request.path
        if path in self._files:
            if request.method not in ("GET", "HEAD"):
                raise method_not_allowed(request, ("GET", "HEAD"))
            return self._files[path]
        if request.method not in ("GET", "HEAD"):
            _refuse_other_sites(request)
        if path == "/api/login":
            return self._log_in(request)
        if not path.startswith("/api/"):
            raise not_found()
        if not self._sessions.valid(request.headers.get("cookie", "")):
            raise HttpError(HTTPStatus.UNAUTHORIZED, "Log in with the token first.", "web.login")
        return self._routed(request, path)

    def _routed(self, request: HttpRequest, path: str) -> HttpResponse:
        methods = self._routes.get(path)
        if methods is None and (match := _CAMERA_PATH.fullmatch(path)):
            camera, what = match.groups()
            if what == "picture":
                methods = {"GET": lambda request: HttpResponse(self._host.picture(camera), "image/jpeg")}
            elif what == "enabled":
                methods = {"POST": lambda request: _accepted(self._host.enable(camera, request.json_object()))}
            elif what == "masks/remove":
                methods = {"POST": lambda request: _accepted(self._host.remove_mask(camera, request.json_object()))}
            else:
                methods = {
                    "POST": lambda request: _accepted(self._host.add_polygon(camera, what, request.json_object()))
                }
        if methods is None and (match := _ASKED_PATH.fullmatch(path)):
            identifier = match[1]
            methods = {"GET": lambda request: json_response(self._host.asked(identifier))}
        if methods is None:
            raise not_found()
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            raise method_not_allowed(request, methods)
        return route(request)

    def _log_in(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            raise method_not_allowed(request, ("POST",))
        token = request.json_object().get("token")
        if not isinstance(token, str):
            raise HttpError(HTTPStatus.BAD_REQUEST, "The body has no token.", "web.no_token")
        wait_s = self._sessions.wait_s(request.remote)
        if wait_s > 0:
            raise HttpError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many wrong tokens. Try again in {wait_s:.0f} s.",
                "web.too_many_logins",
                {"Retry-After": str(int(wait_s) + 1)},
            )
        session = self._sessions.begin(token, request.remote)
        if session is None:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "This is not the token. It is web.token, or the first line of web.token_file, in moedge.yaml.",
                "web.wrong_token",
            )
        return json_response({}, headers={"Set-Cookie": cookie_of(session)})

    def _log_out(self, request: HttpRequest) -> HttpResponse:
        self._sessions.end(request.headers.get("cookie", ""))
        return json_response({}, headers={"Set-Cookie": cookie_of("", lasts_s=0)})

    def _ask(self, request: HttpRequest) -> HttpResponse:
        request.json_object()
        return _accepted(self._host.ask(request.body))


def _accepted(identifier: str) -> HttpResponse:
    """What was asked for is under way, and its outcome will be known as `identifier`."""
    return json_response({"id": identifier}, HTTPStatus.ACCEPTED)


def _refuse_other_sites(request: HttpRequest) -> None:
    """A browser says where a request comes from; one that another site has made is refused."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if (site is not None and site not in ("same-origin", "none")) or (
        origin is not None and not same_origin(origin, request.headers.get("host", ""))
    ):
        raise HttpError(HTTPStatus.FORBIDDEN, "Another site has made this request.", "web.cross_site")


def _files() -> dict[str, HttpResponse]:
    """The page's files by path: looked up, never joined to a directory."""
    folder = resources.files("moedge_runtime.web") / "static"
    return {
        f"/{entry.name}": HttpResponse(entry.read_bytes(), _TYPES[entry.name[entry.name.rindex(".") :]])
        for entry in folder.iterdir()
        if entry.name.endswith(tuple(_TYPES))
    }
