"""What /healthz and /readiness say: whether this process lives, how what it depends on is, whether it answers. Pure."""

from __future__ import annotations

from typing import Any

from moedge_runtime.mqtt.payloads import DeviceHealth, ErrorInfo

STUCK_S = 300.0
"""A model that gave no sign of life for so long while it answers hangs. In ONNX
Runtime a vision tower gives none before its end."""


def liveness(health: DeviceHealth | None, model_silent_s: float) -> tuple[bool, dict[str, Any]]:
    """Whether the process lives, so that a restart would not help, and the details.

    Args:
        health: What `health` says; None while the daemon starts or reloads.
        model_silent_s: Seconds since the model's last sign of life while it answers.
    """
    if health is None:
        return True, {"status": "starting", "model": None, "cameras": {}, "mqtt": None}
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


def readiness(serving: bool, model_silent_s: float) -> tuple[bool, dict[str, Any]]:
    """Whether the model answers questions now, and if not, why.

    Args:
        serving: Whether the model is loaded, and questions are taken.
        model_silent_s: Seconds since its last sign of life while it answers.
    """
    reason = None
    if not serving:
        reason = _reason("model.not_loaded", "The model is not loaded: the daemon starts, reloads, or ends.")
    elif model_silent_s > STUCK_S:
        reason = _reason(
            "model.stuck",
            f"The model gave no sign of life for {model_silent_s:.0f} s while it answers; {STUCK_S:.0f} s are allowed.",
        )
    return reason is None, {"ready": reason is None, "reason": reason}


def _reason(key: str, message: str) -> dict[str, Any]:
    return ErrorInfo(key=key, message=message).model_dump()
