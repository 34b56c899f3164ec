"""The daemon over HTTP: opens and closes the monitoring endpoints and the page as the configuration says."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from moedge_runtime.config import Config, MetricsConfig, WebConfig
from moedge_runtime.daemon.bridge import Bridge
from moedge_runtime.daemon.commands import Commands
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.liveness import liveness, readiness
from moedge_runtime.daemon.metrics import DaemonMetrics, Snapshot, pace
from moedge_runtime.daemon.page_host import DaemonPage
from moedge_runtime.daemon.protection import Protection
from moedge_runtime.daemon.request_handler import RequestHandler
from moedge_runtime.daemon.schedule import Job, Result
from moedge_runtime.daemon.web_token import token_of
from moedge_runtime.daemon.worker import Worker
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.payloads import AnswerPayload, BoardHealth
from moedge_runtime.web.hosts import Hosts
from moedge_runtime.web.monitoring import Monitoring
from moedge_runtime.web.page import Page
from moedge_runtime.web.server import HttpServer
from moedge_runtime.web.sessions import Sessions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """The parts of a daemon that serves with one configuration."""

    config: Config
    bridge: Bridge
    jobs: JobQueue
    handler: RequestHandler
    worker: Worker


class Outlets:
    """Outlives reloads, so that sessions and counts do.

    Args:
        config: The configuration.
        commands: Where changes of the configuration go.

    Raises:
        ConfigError: The page's token cannot be read.

    Attributes:
        protection: Spaces answers out.
    """

    def __init__(self, config: Config, commands: Commands) -> None:
        self._serving: Serving | None = None
        self.protection = Protection(config.protection)
        self._metrics = DaemonMetrics(self.protection, self._snapshot)
        self._page = DaemonPage(commands)
        self._servers: dict[str, HttpServer] = {}
        self._settings: dict[str, MetricsConfig | WebConfig | None] = {}
        self._token = token_of(config.web) if config.web else None
        self._config = config

    def start(self) -> None:
        """Listen, and look at the board."""
        self.protection.start()
        self._open(self._config)

    def reconfigure(self, config: Config) -> None:
        """Take another configuration; servers that stay as they are go on."""
        self.protection.configure(config.protection)
        self._open(config)

    def serve(self, serving: Serving) -> None:
        """These are the daemon's parts from now on; call before they are started."""
        serving.jobs.pause_s = self.protection.pause_s
        serving.bridge.on_answer = self._note
        serving.bridge.board = self._board
        self._page.serve(serving.config, serving.bridge, serving.handler)
        self._serving = serving
        self.protection.on_change = serving.bridge.publish_health

    def rest(self) -> None:
        """There are no such parts for now."""
        self._serving = None
        self.protection.on_change = lambda: None
        self._page.rest()

    def stop(self) -> None:
        """Close everything."""
        for server in self._servers.values():
            server.stop()
        self._servers = {}
        self.protection.stop()

    def _open(self, config: Config) -> None:
        try:
            token = token_of(config.web) if config.web else None
        except ConfigError as error:  # it was right when the configuration was checked
            log.error("%s The page stays closed.", error)
            config = config.model_copy(update={"web": None})
            token = None
        wanted: dict[str, MetricsConfig | WebConfig | None] = {"metrics": config.metrics, "web": config.web}
        changed = [
            name
            for name, settings in wanted.items()
            if self._settings.get(name) != settings or (name == "web" and token != self._token)
        ]
        self._token = token
        for name in changed:
            server = self._servers.pop(name, None)
            if server is not None:
                server.stop()
        for name in changed:
            settings = self._settings[name] = wanted[name]
            if settings is not None:
                self._servers[name] = server = self._server(settings)
                server.start()

    def _server(self, settings: MetricsConfig | WebConfig) -> HttpServer:
        hosts = Hosts(settings.hosts)
        if isinstance(settings, MetricsConfig):
            monitoring = Monitoring(self._metrics.text, self._liveness, self._readiness)
            return HttpServer("The monitoring", settings.listen, settings.port, monitoring, hosts)
        page = Page(self._page, Sessions(self._token or ""))
        return HttpServer("The page", settings.listen, settings.port, page, hosts)

    def _note(self, job: Job, result: Result, answer: AnswerPayload) -> None:
        self._metrics.answers.note(job, result, answer)
        self._page.note(answer)

    def _board(self) -> BoardHealth:
        reading = self.protection.reading
        return BoardHealth.model_validate(
            {
                "temperature_c": reading.hottest_c,
                "under_voltage": reading.under_voltage,
                "power_mode": reading.power_mode,
                "pace": pace(self.protection.level),
            }
        )

    def _snapshot(self) -> Snapshot | None:
        serving = self._serving
        if serving is None:
            return None
        waiting, oldest_s = serving.jobs.waiting()
        return Snapshot(serving.config.device, serving.bridge.model_name, serving.bridge.health(), waiting, oldest_s)

    def _liveness(self) -> tuple[bool, dict[str, Any]]:
        serving = self._serving
        if serving is None:
            return liveness(None, 0.0)
        return liveness(serving.bridge.health(), serving.worker.silent_s())

    def _readiness(self) -> tuple[bool, dict[str, Any]]:
        serving = self._serving
        return readiness(serving is not None, serving.worker.silent_s() if serving is not None else 0.0)
