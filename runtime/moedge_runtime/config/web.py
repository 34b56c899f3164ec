"""The values of moedge.yaml that say where the daemon listens for browsers and for what collects its metrics."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from moedge_runtime.config.frames import Frozen
from moedge_runtime.config.values import ResolvedPath, keys_disagree

MIN_TOKEN_CHARACTERS = 16
MAX_TOKEN_CHARACTERS = 256

DEFAULT_METRICS_PORT = 9740
DEFAULT_WEB_PORT = 8740

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("write an IP address of this machine, 127.0.0.1 for itself only, 0.0.0.0 for all") from None


def _host_name(name: str) -> str:
    lowered = name.lower()
    if len(name) > 253 or not _HOST_NAME.fullmatch(lowered):
        raise ValueError("write a host name without scheme and port, for example gate.example.com")
    return lowered


ListenAddress = Annotated[str, AfterValidator(_ip_address)]
"""An address of this machine to listen on."""

HostName = Annotated[str, AfterValidator(_host_name)]
"""A name under which this machine is reached."""

Port = Annotated[int, Field(ge=1, le=65535)]


def token_problem(token: str) -> str | None:
    """What is wrong with a token; None if nothing is."""
    if not MIN_TOKEN_CHARACTERS <= len(token) <= MAX_TOKEN_CHARACTERS:
        return f"a token has {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters, this one has {len(token)}"
    if not token.isascii() or not token.isprintable() or " " in token:
        return "a token holds printable ASCII characters without blanks"
    return None


def _token_is_one(token: SecretStr | None) -> SecretStr | None:
    problem = token_problem(token.get_secret_value()) if token is not None else None
    if problem:
        raise ValueError(f"{problem}; make one with: openssl rand -hex 24")
    return token


class MetricsConfig(Frozen):
    """/metrics for Prometheus, /healthz and /readiness for what watches the process, over HTTP."""

    listen: ListenAddress = "127.0.0.1"
    """Address to listen on. They say names of cameras and watches to whoever can reach it."""
    port: Port = DEFAULT_METRICS_PORT
    """TCP port to listen on."""
    hosts: tuple[HostName, ...] = ()
    """Further host names by which it is reached. Addresses, localhost and the machine's own name always work."""


class WebConfig(Frozen):
    """The local web page. Exactly one of `token` and `token_file` is given."""

    listen: ListenAddress = "127.0.0.1"
    """Address to listen on. It speaks HTTP: on a network that others use, put a proxy with TLS in front."""
    port: Port = DEFAULT_WEB_PORT
    """TCP port to listen on."""
    token: Annotated[SecretStr | None, AfterValidator(_token_is_one)] = None
    """What opens the page, 16 characters at least; write ${NAME} to take it from the environment."""
    token_file: Annotated[ResolvedPath | None, Field(validate_default=True)] = None
    """File whose first line is the token; read at start and whenever another configuration is taken over."""
    hosts: tuple[HostName, ...] = ()
    """Further host names by which it is reached. Addresses, localhost and the machine's own name always work."""
    allow_changes: bool = False
    """Whether the page may add masks and zones to this file, remove masks, and pause cameras."""

    @field_validator("token_file")
    @classmethod
    def _one_token(cls, token_file: Path | None, info: ValidationInfo) -> Path | None:
        has_token = "token" not in info.data or info.data["token"] is not None
        if has_token == (token_file is not None):
            raise keys_disagree("give exactly one of token and token_file")
        return token_file


class ProtectionConfig(Frozen):
    """Slowing down before the kernel or the power supply does."""

    slow_at: Annotated[float, Field(ge=30, le=110)] | None = None
    """Temperature in °C from which answers are spaced out; null for 10 below the one at which the kernel, or the
    firmware of a Raspberry Pi, slows the processor down; never where that is not known."""
    enabled: bool = True
    """false: temperatures and under-voltage are reported and nothing is done about them."""
