"""One JSON object a line: name, value, unit, and bound and ok where there is a bound."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from machine import machine


def report(
    name: str,
    values: Sequence[float],
    unit: str,
    bound: float | None = None,
    better: Literal["lower", "higher"] = "lower",
    **details: Any,
) -> bool:
    """Print the median of `values` with its spread; whether it keeps to the bound (True without one)."""
    value = float(statistics.median(values))
    line: dict[str, Any] = {"name": name, "value": _short(value), "unit": unit}
    ok = True
    if bound is not None:
        ok = value <= bound if better == "lower" else value >= bound
        line |= {"bound": bound, "ok": ok}
    if len(values) > 1:
        line["spread"] = [_short(min(values)), _short(max(values))]
    print(json.dumps(line | details | {"machine": machine()}), flush=True)
    return ok


def _short(value: float) -> float:
    return float(f"{value:.4g}")
