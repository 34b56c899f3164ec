"""An HTTP server that slow, silent and endless clients cannot hold up: waitress with limits, on a thread of its own."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server

from moedge_runtime.web.hosts import Hosts
from moedge_runtime.web.http import MAX_BODY_BYTES, Handler, wsgi_of

MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 40
"""Sockets at once; more wait for one of these to end."""

IDLE_S = 15
"""A connection on which nothing comes or goes for so long is closed."""

REQUEST_S = 20.0
"""A request that has not come completely after so long is given up, however steadily it drips."""

RETRY_S = 15.0
"""An address that cannot be listened on, say because the network is not up yet, is tried again so often."""

THREADS = 2
_LOOP_S = 0.5
_STOP_S = 5.0
_IN_MEMORY_BYTES = 8 * 1024 * 1024
"""Nothing that is received or sent is that long, so nothing is ever written to a temporary file."""

log = logging.getLogger(__name__)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection whose requests have to come in time."""

    _began_s: float | None = None

    def received(self, data: bytes) -> bool:
        """See HTTPChannel: `data` has come; False if it is no use."""
        now_s = time.monotonic()
        if self._began_s is not None and now_s - self._began_s > REQUEST_S:
            self.will_close = True
            return False
        useful: bool = super().received(data)
        if self.request is None:
            self._began_s = None  # complete
        elif self._began_s is None:
            self._began_s = now_s
        return useful


class HttpServer:
    """Serves one handler on one address.

    Args:
        name: For people, as the subject of a sentence.
        listen: Address.
        port: TCP port.
        handler: Answers requests, on up to THREADS threads at once.
        hosts: The names that requests may use.
    """

    def __init__(self, name: str, listen: str, port: int, handler: Handler, hosts: Hosts) -> None:
        self._name, self._listen, self._port = name, listen, port
        self._application = wsgi_of(handler, hosts)
        self._ended = threading.Event()
        self._listening = threading.Event()
        self._lock = threading.Lock()
        self._server: Any = None
        self._thread = threading.Thread(target=self._run, name=f"http-{port}", daemon=True)

    def start(self) -> None:
        """Begin to listen, as soon as that is possible; never fails and never blocks."""
        self._thread.start()

    def wait_until_listening(self, timeout_s: float) -> bool:
        """Whether it listens, within `timeout_s` seconds."""
        return self._listening.wait(timeout_s)

    def stop(self) -> None:
        """Close all connections and end."""
        self._ended.set()
        with self._lock:
            if self._server is not None:
                self._server.pull_trigger()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        reason = ""
        while not self._ended.is_set():
            try:
                server, sockets = self._open()
            except (OSError, ValueError) as error:
                if str(error) != reason:
                    reason = str(error)
                    log.error(
                        "%s cannot listen on %s port %d (%s). Change its address in moedge.yaml, or end what uses it; "
                        "trying again every %.0f s.",
                        self._name,
                        self._listen,
                        self._port,
                        error,
                        RETRY_S,
                    )
                self._ended.wait(RETRY_S)
                continue
            log.info("%s is on http://%s.", self._name, _authority(self._listen, self._port))
            self._serve(server, sockets)

    def _open(self) -> tuple[Any, dict[int, Any]]:
        sockets: dict[int, Any] = {}
        family = socket.AF_INET6 if ":" in self._listen else socket.AF_INET
        # Bound before waitress is asked: it starts threads first, and leaves them behind when it cannot bind.
        listening = socket.create_server((self._listen, self._port), family=family)
        logging.getLogger("waitress").setLevel(logging.ERROR)  # what clients do wrong is not worth a line each
        server = create_server(
            self._application,
            map=sockets,
            sockets=[listening],
            threads=THREADS,
            ident=None,
            channel_timeout=IDLE_S,
            cleanup_interval=1,
            connection_limit=MAX_CONNECTIONS,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            inbuf_overflow=_IN_MEMORY_BYTES,
            outbuf_overflow=_IN_MEMORY_BYTES,
            log_socket_errors=False,
            asyncore_use_poll=True,
        )
        server.channel_class = _Channel
        return server, sockets

    def _serve(self, server: Any, sockets: dict[int, Any]) -> None:
        with self._lock:
            self._server = server
        self._listening.set()
        try:
            while not self._ended.is_set():
                wasyncore.loop(timeout=_LOOP_S, use_poll=True, map=sockets, count=1)
        except Exception:
            log.exception("%s failed; it starts again.", self._name)
        finally:
            self._listening.clear()
            with self._lock:
                self._server = None
            wasyncore.close_all(sockets, ignore_all=True)
            server.task_dispatcher.shutdown(timeout=1)


def _authority(listen: str, port: int) -> str:
    return f"[{listen}]:{port}" if ":" in listen else f"{listen}:{port}"
