"""One JSON object a line for each measured value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def report(name: str, value: float, unit: str, bound: float | None = None, *, least: bool = False, **more: Any) -> bool:
    """Print a value; `bound` is the largest that is right, or with `least` the smallest. Whether it is right."""
    ok = bound is None or (value >= bound if least else value <= bound)
    line = {"name": name, "value": round(value, 4), "unit": unit, "bound": bound, "ok": ok, **more}
    print(json.dumps(line), flush=True)
    return ok


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
