"""JSON that every part can carry: finite numbers, whole characters, moderate depth."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Levels of arrays and objects. Python, pydantic and llguidance recurse over them; a JSON Schema has about ten."""

MAX_INTEGER = 2**63 - 1
"""Largest magnitude of an integer; what other parsers keep exactly."""


def parse_json(text: str) -> Any:
    """The value of `text`.

    Raises:
        ValueError: It is not JSON, or not such as `check_json` allows; the text says why.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_json(value)
    return value


def check_json(value: Any) -> None:
    """Check a value that is to be used as JSON.

    Raises:
        ValueError: Something in it is no JSON value, a number is not finite or an integer beyond ±MAX_INTEGER, a text
            holds half a character (a lone surrogate), or it is nested deeper than MAX_DEPTH.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise ValueError(_TOO_DEEP)
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        raise ValueError(f"the key {_shown(key)} is no text")
                    _check_scalar(key)
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            else:
                _check_scalar(item)
        level = inner


def is_text(value: str) -> bool:
    """Whether `value` has whole characters only; a byte of a command line that is no UTF-8 becomes half of one."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


def _check_scalar(value: object) -> None:
    if isinstance(value, str):
        if not is_text(value):
            raise ValueError(f"the text {_shown(value)} holds half a character, a lone surrogate")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no JSON number")
    elif isinstance(value, int):
        if not isinstance(value, bool) and abs(value) > MAX_INTEGER:
            raise ValueError(f"an integer is beyond ±{MAX_INTEGER}")
    elif value is not None:
        raise ValueError(f"{_shown(value)} is no JSON value")


def _shown(value: object) -> str:
    return ascii(value)[:100]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
