"""What a measurement was made on and when, so that a figure can be told from those of another machine or day."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from moedge_runtime import __version__


def processor(root: Path = Path("/")) -> str:
    """The processor's name, on a board the board's; the instruction set where the system tells neither.

    Args:
        root: Where proc is; for tests.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.lower().startswith("model name"):
            return line.split(":", 1)[1].strip()
    try:
        return (root / "proc/device-tree/model").read_text(encoding="utf-8").rstrip("\0\n")
    except OSError:
        return platform.machine()


def machine() -> str:
    """Processor, cores, system and the versions that matter, in one line."""
    return (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, Linux {platform.release()}, "
        f"moedge {__version__}, onnxruntime {version('onnxruntime')}"
    )


def now() -> str:
    """Date and time, UTC, by the minute."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
