"""Checks of the model that a configuration names."""

from __future__ import annotations

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import ModelConfig
from moedge_runtime.daemon.engine import engine_options
from moedge_runtime.errors import ConfigError
from moedge_runtime.inference.memory_budget import plan_for

from moedge_devices.doctor.finding import Finding


def check_memory_plan(bundle: Bundle, model: ModelConfig) -> Finding:
    """Whether the memory that is available now, or that the configuration gives, is enough for the bundle."""
    try:
        plan = plan_for(bundle, engine_options(model))
    except ConfigError as error:
        return Finding(
            "memory.plan", "failed", str(error), "if the daemon runs, stop it first: its memory is not available"
        )
    if plan is None:
        return Finding("memory.plan", "skipped", "an inline bundle is in memory as a whole")
    return Finding("memory.plan", "ok", plan.line(), value=plan.parts())
