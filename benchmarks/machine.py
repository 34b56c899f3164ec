"""The machine that a measurement was made on, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from moedge_runtime.bench.machine import processor


def machine() -> str:
    """Processor, cores, kernel and the versions that matter, e.g. for the foot of a table."""
    return (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, numpy {version('numpy')}"
    )
