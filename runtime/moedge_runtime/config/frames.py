"""The values of moedge.yaml that say what happens to a camera's frames: polygons, times, motion, alerts."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from moedge_runtime.config.values import Duration, keys_disagree
from moedge_runtime.frames.polygon import MAX_CORNERS, Box, Polygon, parse_box, parse_polygon
from moedge_runtime.frames.timetable import WINDOW_PATTERN, parse_window

_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBER = r"\s*\d*\.?\d+\s*"
_DIGITS_ONLY = re.compile(r"\^-?\??(\[0-9]|\\d|\\\.|[0-9(){},?*+|])+\$")
"""A pattern of nothing but digits, points and a sign in front."""


class Frozen(BaseModel):
    """A section of moedge.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _zone_exists(name: str) -> str:
    zone_of(name)
    return name


def _window_is_one(text: str) -> str:
    parse_window(text)
    return text


@cache
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name in the system's database.

    Raises:
        ValueError: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "this machine knows no such time zone; write one such as Europe/Berlin, or install tzdata if it knows none"
        ) from None


PolygonValue = Annotated[
    Any,
    BeforeValidator(parse_polygon),
    PlainSerializer(lambda polygon: [list(point) for point in polygon], return_type=list[list[float]]),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "array",
                    "minItems": 3,
                    "maxItems": MAX_CORNERS,
                    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": _FRACTION},
                },
                {"type": "string", "pattern": f"^{_NUMBER}(,{_NUMBER}){{5,}}$"},
            ]
        }
    ),
]
"""A `Polygon`, written as pairs or, as in Frigate, as one text `x,y,x,y,...`."""

BoxValue = Annotated[
    Any,
    BeforeValidator(parse_box),
    PlainSerializer(lambda box: [box.left, box.top, box.right, box.bottom], return_type=list[float]),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "minItems": 4, "maxItems": 4, "items": _FRACTION},
                {"type": "string", "pattern": f"^{_NUMBER}(,{_NUMBER}){{3}}$"},
            ]
        }
    ),
]
"""A `Box`, written as [left, top, right, bottom]."""

WindowText = Annotated[
    str,
    AfterValidator(_window_is_one),
    WithJsonSchema({"type": "string", "examples": ["mon-fri 07:00-18:00"], "pattern": WINDOW_PATTERN}),
]
"""Days and times of a week, see `parse_window`."""

ZoneName = Annotated[str, AfterValidator(_zone_exists)]
"""A time zone that the system knows."""

Scalar = str | bool | int | float


class TimeConfig(Frozen):
    """The clock that schedules go by."""

    zone: ZoneName | None = None
    """Time zone of all schedules, for example Europe/Berlin; null for the board's own."""
    unsynced: Literal["open", "closed", "trust"] = "open"
    """What schedules mean while the system says that its clock is not set: open, closed, or what the clock says."""


class MotionConfig(Frozen):
    """What counts as motion in a camera's picture."""

    threshold: Annotated[float, Field(ge=1, le=255)] = 15.0
    """Change of brightness, of 255, of a cell (a ninetieth of the height)."""
    area: Annotated[float, Field(gt=0, le=1)] = 0.002
    """Share of the cells of a zone, or of the picture, that have to change."""


class AlertConfig(Frozen):
    """An alert that the answers of a watch raise and end. One of `equals`, `above` and `below` is given."""

    field: Annotated[str, Field(min_length=1, max_length=200)]
    """Key in the answer's `data`; with dots for keys inside of it."""
    equals: Scalar | None = None
    """Alarming is this value."""
    above: float | None = None
    """Alarming is a number above this."""
    below: Annotated[float | None, Field(validate_default=True)] = None
    """Alarming is a number below this."""
    clear: float | None = None
    """A number is harmless again only when it is not above (below) this."""
    raise_after: Annotated[int, Field(ge=1, le=1000)] = 1
    """Alarming answers in a row that raise the alert."""
    clear_after: Annotated[int, Field(ge=1, le=1000)] = 1
    """Harmless answers in a row that end it."""
    cooldown: Duration | None = None
    """Time of the camera without questions after the alert was raised."""

    @field_validator("below")
    @classmethod
    def _one_comparison(cls, below: float | None, info: ValidationInfo) -> float | None:
        others = sum(key not in info.data or info.data[key] is not None for key in ("equals", "above"))
        if others + (below is not None) != 1:
            raise keys_disagree("give exactly one of equals, above and below")
        return below

    @field_validator("clear")
    @classmethod
    def _clear_is_harmless(cls, clear: float | None, info: ValidationInfo) -> float | None:
        if clear is None or not {"above", "below"} <= info.data.keys():
            return clear
        above, below = info.data["above"], info.data["below"]
        if above is None and below is None:
            raise keys_disagree("clear goes with above or below")
        if above is not None and clear > above:
            raise keys_disagree(f"clear={clear:g} is more than above={above:g}; make it less")
        if below is not None and clear < below:
            raise keys_disagree(f"clear={clear:g} is less than below={below:g}; make it more")
        return clear


def missing_in(field: str, schema: dict[str, Any]) -> str | None:
    """The part of `field` that answers to a JSON Schema cannot have; None if none is known to be missing."""
    level: Any = schema
    for key in field.split("."):
        properties = level.get("properties") if isinstance(level, dict) else None
        if not isinstance(properties, dict):
            return None  # references and combinations are not followed
        if key not in properties:
            return key
        level = properties[key]
    return None


def is_numeric(field: str | None, schema: dict[str, Any]) -> bool:
    """Whether answers to a JSON Schema are numbers at `field`, or as a whole if that is None.

    Digits in a string count, if its pattern allows nothing else, and so does null beside a number. References are not
    followed: what they lead to is no number.
    """
    level: Any = schema
    for key in field.split(".") if field else ():
        properties = level.get("properties") if isinstance(level, dict) else None
        level = properties.get(key) if isinstance(properties, dict) else None
    kinds = _kinds(level)
    return "number" in kinds and kinds <= {"number", "null"}


def _kinds(schema: Any) -> set[str]:
    """What values of a JSON Schema are: number, null, or anything else."""
    if not isinstance(schema, dict):
        return {"other"}
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list):
            return set().union(*map(_kinds, schema[choice]))
    if isinstance(schema.get("enum"), list):
        return {_kind_of(value) for value in schema["enum"]}
    if "const" in schema:
        return {_kind_of(schema["const"])}
    types = schema.get("type")
    names = {"integer": "number", "number": "number", "null": "null"}
    if types == "string" and _DIGITS_ONLY.fullmatch(str(schema.get("pattern"))):
        return {"number"}
    return {names.get(str(name), "other") for name in (types if isinstance(types, list) else [types])}


def _kind_of(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "null" if value is None else "other"


def motion_switch(value: object) -> object:
    """`true` for the defaults, `false` for none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def crop_problem(name: str, polygon: Polygon, crop: Box) -> str:
    """What to say about a zone that `crop` cuts off."""
    return (
        f"the zone '{name}' lies outside of the crop [{crop.left:g}, {crop.top:g}, {crop.right:g}, {crop.bottom:g}]; "
        "zones are fractions of the whole picture"
    )
