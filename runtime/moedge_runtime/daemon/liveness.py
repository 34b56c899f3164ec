"""What /healthz says: whether this process does its work, and how what it depends on is. Pure."""

from __future__ import annotations

from typing import Any

from moedge_runtime.mqtt.payloads import DeviceHealth

STUCK_S = 300.0
"""A model that gave no sign of life for so long while it answers hangs. In ONNX
Runtime a vision tower gives none before its end."""


def liveness(health: DeviceHealth | None, model_silent_s: float) -> tuple[bool, dict[str, Any]]:
    """Whether the process works, and the details.

    Args:
        health: What `health` says; None while the daemon starts or reloads.
        model_silent_s: Seconds since the model's last sign of life while it answers.
    """
    if health is None:
        return False, {"status": "starting", "model": None, "cameras": {}, "mqtt": None}
    stuck = model_silent_s > STUCK_S
    bad = {name for name, camera in health.cameras.items() if camera.state not in ("online", "disabled")}
    degraded = bool(bad) or not health.mqtt.connected or health.board.pace != "normal"
    return not stuck, {
        "status": "stuck" if stuck else "degraded" if degraded else "ok",
        "model": {"silent_s": round(model_silent_s, 1), "limit_s": STUCK_S},
        "cameras": {name: camera.state for name, camera in health.cameras.items()},
        "mqtt": {"connected": health.mqtt.connected},
        "board": health.board.model_dump(mode="json"),
    }
