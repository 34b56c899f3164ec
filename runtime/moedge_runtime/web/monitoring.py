"""/metrics, /healthz and /readiness: for machines, without a token, and nothing else; see docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from moedge_runtime.web.http import HttpRequest, HttpResponse, json_response, method_not_allowed, not_found

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus text exposition format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""


@dataclass(frozen=True)
class Monitoring:
    """Answers what collects metrics and what watches the process.

    Attributes:
        metrics: All metrics as text.
        health: Whether the process lives, and the details as JSON values.
        ready: Whether it answers questions, likewise.
    """

    metrics: Callable[[], bytes]
    health: Callable[[], tuple[bool, dict[str, Any]]]
    ready: Callable[[], tuple[bool, dict[str, Any]]]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer `request`."""
        if request.path not in ("/metrics", "/healthz", "/readiness"):
            raise not_found()
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request, ("GET", "HEAD"))
        if request.path == "/metrics":
            return HttpResponse(self.metrics(), METRICS_TYPE)
        well, details = self.health() if request.path == "/healthz" else self.ready()
        return json_response(details, HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
