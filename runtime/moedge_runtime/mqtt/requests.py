"""Reads requests. What arrives is anybody's bytes: everything that is not right becomes a RequestError with a key."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from moedge_runtime.errors import RequestError
from moedge_runtime.mqtt.payloads import LogLevel
from moedge_runtime.strict_json import parse_json

MAX_REQUEST_BYTES = 64 * 1024
"""A question with its JSON Schema is a few kB."""

MAX_CONFIG_REQUEST_BYTES = 512 * 1024
"""A configuration may hold many questions with their schemas."""


def _not_blank(question: str) -> str:
    if not question.strip():
        raise ValueError("a question is more than blanks")
    return question


QuestionText = Annotated[
    str, Field(min_length=1, max_length=8000, json_schema_extra={"pattern": r"\S"}), AfterValidator(_not_blank)
]
Freshness = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] | None
Transaction = Annotated[str, Field(max_length=256)] | int


class Request(BaseModel):
    """What every request may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    transaction: Transaction | None = None
    """Comes back in the response."""


class AskCommand(Request):
    """A question about the newest frame of a camera."""

    question: QuestionText
    camera: Annotated[str, Field(max_length=64)] | None = None
    """May be left out if there is one camera."""
    json_schema: dict[str, Any] | None = None
    system: Annotated[str, Field(max_length=8000)] | None = None
    thinking: bool = False
    thinking_budget: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 256
    reasoning: bool = False
    """Put the reasoning into the answer."""
    deadline: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    """Seconds from now after which nobody wants the answer any more."""
    freshness: Freshness = None
    """Seconds that the frame may be old; null for any age."""


class SnapshotCommand(Request):
    """The newest frame of a camera as a picture."""

    camera: Annotated[str, Field(max_length=64)] | None = None
    """May be left out if there is one camera."""
    freshness: Freshness = None
    """As for `ask`."""


class ConfigCommand(Request):
    """The configuration, a new one, or those that were."""

    config: str | None = None
    """The full new configuration as YAML text; without it the running one is given."""
    device_file: str | None = None
    """device.json of `moedge fleet render` as text, put beside the configuration; only with `config`."""
    history: bool = False
    """Give those that the daemon has run with."""
    rollback: Annotated[str, Field(max_length=64)] | None = None
    """The `id` of one of these, which is to run again."""

    @property
    def reads_only(self) -> bool:
        """Whether the running configuration is asked for."""
        return self.config is None and self.rollback is None and not self.history

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> ConfigCommand:
        if self.device_file is not None and self.config is None:
            raise ValueError("device_file goes with config; send both")
        if (self.config is not None) + (self.rollback is not None) + self.history > 1:
            raise ValueError("config, history and rollback are different requests; send one of them")
        return self


class BackupCommand(Request):
    """Everything that makes the device what it is."""

    hot_set: bool = True
    """With what was learnt about experts, most of its size."""


class UpdateCommand(Request):
    """An update now, as the timer would make it."""

    check: bool = False
    """Only look whether there is one for the model."""


class LogLevelCommand(Request):
    """How much is logged."""

    level: LogLevel | None = None
    """Until the next start or reload; without it the level is given."""


COMMANDS: dict[str, type[Request]] = {
    "ask": AskCommand,
    "snapshot": SnapshotCommand,
    "health": Request,
    "info": Request,
    "config": ConfigCommand,
    "backup": BackupCommand,
    "update": UpdateCommand,
    "reload": Request,
    "restart": Request,
    "log_level": LogLevelCommand,
}


def parse_request(verb: str, payload: bytes) -> Request:
    """The request in `payload`; no bytes at all count as an empty object.

    Raises:
        RequestError: With the key request.unknown_verb, request.too_large, request.invalid_json or request.invalid.
    """
    command = COMMANDS.get(verb)
    if command is None:
        raise RequestError(
            f"There is no request '{verb}'. Known are {', '.join(COMMANDS)}.", key="request.unknown_verb"
        )
    try:
        limit = MAX_CONFIG_REQUEST_BYTES if verb == "config" else MAX_REQUEST_BYTES
        return command.model_validate(_json_object(payload, limit))
    except ValidationError as error:
        problems = "; ".join(_problem(detail) for detail in error.errors()[:10])
        raise RequestError(f"The request '{verb}' is not valid: {problems}.", key="request.invalid") from error


def parse_switch(payload: bytes) -> bool:
    """Whether `payload`, of a topic that ends with /set, is ON; or OFF.

    Raises:
        RequestError: It is neither; the key is request.invalid.
    """
    if payload not in (b"ON", b"OFF"):
        raise RequestError(
            f"The payload is {payload[:20]!r}, and a switch takes ON or OFF, as text and in capitals.",
            key="request.invalid",
        )
    return payload == b"ON"


def transaction_of(payload: bytes) -> str | int | None:
    """The transaction of a payload that may be wrong otherwise; None if it has none that can be given back."""
    try:
        return Request.model_validate(
            {"transaction": _json_object(payload, MAX_CONFIG_REQUEST_BYTES).get("transaction")}
        ).transaction
    except (RequestError, ValidationError):
        return None


def _json_object(payload: bytes, limit: int) -> dict[str, Any]:
    if len(payload) > limit:
        raise RequestError(
            f"The request has {len(payload):,} bytes; at most {limit:,} are read.", key="request.too_large"
        )
    try:
        value = parse_json(payload.decode("utf-8")) if payload else {}
    except ValueError as error:
        raise RequestError(f"The request is not valid JSON: {error}.", key="request.invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The request is not a JSON object.", key="request.invalid_json")
    return value


def _problem(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])[:100]
    text = {"extra_forbidden": "unknown key", "missing": "is required"}.get(
        detail["type"], detail["msg"].removeprefix("Value error, ")
    )
    return f"{where}: {text}" if where else str(text)
