"""The value types of moedge.yaml: durations, sizes, identifiers, paths beside the file, JSON Schemas."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from moedge_runtime.strict_json import check_json, parse_json

EVERY_FRAME = 0.0
"""The interval that `every_frame` stands for: no time has to pass between two answers."""

SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MAX_DURATION_S = 366 * 86400
"""A year: more is a mistake, and waits longer than some clocks can count."""

BYTES_BY_UNIT = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MAX_SIZE_BYTES = 1 << 50
"""A pebibyte: more is a mistake."""

KEYS_DISAGREE = "keys_disagree"

SIZE_PATTERN = r"^(\d{1,20}|\d{1,20}(\.\d{1,20})?\s*[kMG])$"
DURATION_PATTERN = r"^\d+(\.\d+)?\s*(ms|s|m|min|h)?$"


def keys_disagree(problem: str) -> PydanticCustomError:
    """What is wrong with keys of a section together; reported at the section.

    To be raised by the field validator of the last of them, where `info.data` has those before it that are right: a
    validator of the model would not run, and its problem not be told, as long as anything else in the section is wrong.
    """
    return PydanticCustomError(KEYS_DISAGREE, "{problem}", {"problem": problem})


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or a text such as `500ms`, `5s`, `2m`, `1h`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) > MAX_DURATION_S:  # perhaps too large for a float
            return math.inf if value > 0 else -math.inf
        return float(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write seconds as a number, or a number with ms, s, m or h, for example 5s")
    return float(match[1]) * SECONDS_BY_UNIT[match[2] or "s"]


def parse_size(value: object) -> int:
    """Bytes from a number of bytes or a text such as `512M`, `5G`, `1.5G`; k, M and G are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError("write bytes as a number, or a number with k, M or G (powers of 1024), for example 5G")
    number = text.rstrip("kMG")
    return int(Fraction(number.strip()) * BYTES_BY_UNIT[text[len(number) :]])


def _parse_interval(value: object) -> float:
    return EVERY_FRAME if value == "every_frame" else parse_duration(value)


def _base_dir(info: ValidationInfo) -> Path:
    return Path(info.context["base_dir"]) if info.context else Path()


def _for_another_machine(info: ValidationInfo) -> bool:
    """Whether this is the configuration of a board elsewhere: paths stay as written, nobody looks for files."""
    return bool(info.context and info.context.get("another_machine"))


def resolve_path(path: Path, info: ValidationInfo) -> Path:
    """`path`, relative to the configuration file unless absolute; as it is if it is one of another machine."""
    if "\0" in str(path):
        raise ValueError("a path holds no null character")
    if _for_another_machine(info):
        return path
    try:
        return _base_dir(info) / path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the directory in full") from error


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    resolved = resolve_path(path, info)
    if not _for_another_machine(info) and not resolved.is_file():
        raise ValueError(f"there is no file '{resolved}'")
    return resolved


def read_json_schema(path: Path) -> object:
    """The JSON value in a file.

    Raises:
        ValueError: It cannot be read or is no JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the JSON Schema '{path}' cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"'{path}' is not valid JSON ({error})") from error


def _load_json_schema(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        path = resolve_path(Path(value), info)
        coming = info.context.get("coming", {}) if info.context else {}
        value = parse_json(coming[path].decode()) if path in coming else read_json_schema(path)
    if not isinstance(value, dict):
        raise ValueError("a JSON Schema is an object, or the path of a file that holds one")
    try:
        check_json(value)
    except ValueError as error:
        raise ValueError(f"the JSON Schema is not valid: {error}") from error
    return value


_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DURATION_S},
        {"type": "string", "pattern": DURATION_PATTERN},
    ]
}
_INTERVAL_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": MAX_DURATION_S},
        {"type": "string", "pattern": DURATION_PATTERN},
        {"const": "every_frame"},
    ]
}
_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_SIZE_BYTES},
        {"type": "string", "pattern": SIZE_PATTERN},
    ]
}

NAME_PATTERN = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Identifier = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""A name that becomes one level of a topic."""

Duration = Annotated[
    float, BeforeValidator(parse_duration), Field(gt=0, le=MAX_DURATION_S), WithJsonSchema(_DURATION_SCHEMA)
]
"""Seconds, more than 0, a year at most."""

Interval = Annotated[
    float, BeforeValidator(_parse_interval), Field(ge=0, le=MAX_DURATION_S), WithJsonSchema(_INTERVAL_SCHEMA)
]
"""Seconds of camera time between two answers; `EVERY_FRAME` for each frame."""

Size = Annotated[int, BeforeValidator(parse_size), Field(ge=1, le=MAX_SIZE_BYTES), WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes, 1 at least."""

ResolvedPath = Annotated[Path, AfterValidator(resolve_path)]
"""A path, relative to the configuration file unless absolute."""

ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
"""A `ResolvedPath` that must be a file when the configuration is read."""

JsonSchema = Annotated[
    dict[str, Any],
    BeforeValidator(_load_json_schema),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string", "description": "Path of a JSON file."}]}),
]
"""A JSON Schema, written in place or as the path of a file."""
