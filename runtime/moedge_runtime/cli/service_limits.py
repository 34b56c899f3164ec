"""`moedge service-limits`: what systemd should let the daemon of a configuration have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from moedge_runtime.command_line import examples

if TYPE_CHECKING:
    from moedge_runtime.config import Config

CAMERA_PROCESSORS = 1
"""Beside the model's threads: cameras, MQTT, and the programs of `exec:` and `csi:` cameras."""

MIB = 1 << 20


@click.command(
    "service-limits",
    epilog=examples("moedge service-limits | sudo tee /etc/systemd/system/moedge.service.d/limits.conf"),
    short_help="Print the limits for systemd of a configuration.",
)
@click.option(
    "--config",
    "-c",
    "config_path",
    default="/etc/moedge/moedge.yaml",
    show_default=True,
    metavar="FILE",
    help="The configuration.",
)
def service_limits(config_path: str) -> None:
    """Print a systemd drop-in with the limits of memory and processors that a configuration needs.

    It belongs into /etc/systemd/system/moedge.service.d/limits.conf; then `systemctl daemon-reload`.

    A configuration without model.memory needs none: the model then divides what the unit's own limit leaves.
    """
    from moedge_runtime.config import load_config  # noqa: PLC0415

    click.echo(drop_in(load_config(config_path), config_path, os.cpu_count() or 1), nl=False)


def drop_in(config: Config, config_path: str, processors: int) -> str:
    """The drop-in's text, for a machine with so many processors.

    Raises:
        MoedgeError: The bundle cannot be used, or not with that memory.
    """
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415
    from moedge_runtime.daemon.engine import memory_plan  # noqa: PLC0415
    from moedge_runtime.inference.memory_budget import limit_for  # noqa: PLC0415

    model = config.model
    lines = [f"# `moedge service-limits --config {config_path}` printed this; print it again when that file changes."]
    limits = []
    if model.memory is None:
        lines.append("# No model.memory: the model divides what the unit's MemoryMax leaves, so that stays.")
    else:
        plan = memory_plan(Bundle.open(model.bundle), model, model.memory)
        limits.append(f"# {plan.line()}")
        limits.append("# A ninth of that, and 512 MiB at least, for the programs of cameras, page cache and growth.")
        limits.append(f"MemoryMax={-(-limit_for(plan.total) // MIB)}M")
    if model.threads is None or model.threads + CAMERA_PROCESSORS >= processors:
        lines.append(f"# The model and the cameras may use all {processors} processors, so there is no CPUQuota.")
    else:
        limits.append(f"# model.threads: {model.threads}, and one processor for cameras and MQTT.")
        limits.append(f"CPUQuota={100 * (model.threads + CAMERA_PROCESSORS)}%")
    return "\n".join([*lines, "", "[Service]", *limits, ""] if limits else [*lines, ""])
