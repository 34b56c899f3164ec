"""Every payload that leaves the board, typed. docs/mqtt.md shows each as tests/runtime/mqtt/golden/ holds it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds, e.g. 2026-11-23T08:15:30.250Z."""
    assert moment.utcoffset() is not None and not moment.utcoffset()
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(rfc3339, return_type=str)]
Seconds = Annotated[float, PlainSerializer(lambda value: round(value, 4), return_type=float)]


class Payload(BaseModel):
    """A JSON object; every key is always there, null when there is no value."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def encode(self) -> bytes:
        """UTF-8 JSON without spaces."""
        return self.model_dump_json().encode()


class ErrorInfo(Payload):
    """Why something did not work."""

    key: str
    """Stable across versions and languages."""
    message: str
    """Whole sentences for people."""


class DeviceStatus(Payload):
    """`<base>/<device>/status`."""

    state: Literal["online", "stopped", "offline"]


CameraState = Literal["connecting", "online", "frozen", "black", "stalled", "offline", "disabled"]


class CameraStatus(Payload):
    """`<base>/<device>/<camera>/status`."""

    state: CameraState
    reason: ErrorInfo | None = None
    """Why the camera is neither online nor disabled."""


class AnswerModel(Payload):
    """Which model answered."""

    name: str
    bundle: str
    version: str | None = None
    """As in `info`."""
    precision: str
    """Of the experts."""


class AnswerTiming(Payload):
    """Where the time went."""

    queue_s: Seconds
    """From the frame to the moment the model began with it."""
    vision_s: Seconds
    """Preprocessing and vision tower."""
    prefill_s: Seconds
    decode_s: Seconds
    decode_tok_s: float | None
    """Tokens a second, after the first token."""
    total_s: Seconds
    """From the frame to the answer."""


class AnswerTokens(Payload):
    """What was computed."""

    prompt: int
    """Image tokens included."""
    image: int
    cached: int
    """Of the prompt, taken over from the question before."""
    answer: int
    reasoning: int


class AnswerFrame(Payload):
    """Which frame was asked about."""

    index: int
    pts_s: Seconds


class SnapshotRef(Payload):
    """The picture that an answer is about, on its own topic."""

    topic: str
    bytes: int
    width: int
    height: int
    sha256: str
    """Of the JPEG; which also holds the answer's id as its comment, and with MQTT 5 as the user property `id`."""


class AnswerPayload(Payload):
    """`<base>/<device>/<camera>/answer`, and `data` of a response to `ask`."""

    id: str
    """ULID: unique, and sorted by time."""
    type: Literal["new"] = "new"
    status: Literal["ok", "error"]
    error: ErrorInfo | None = None
    camera: str
    watch: str | None
    """null for an answer to a request."""
    zones: list[str] = []
    """Of the event: where something moved, or what the watch looks at."""
    question: str
    schema_id: str | None = None
    """`$id` of the JSON Schema, or sha256- and the first 12 digits of its digest; null without one."""
    question_id: str
    """Of all that the model was told beside the picture: sha256- and the first 12 digits of its digest."""
    captured_at: Timestamp
    answered_at: Timestamp
    clock_synced: bool | None
    """Whether the board's clock was set by a time server; null if the system does not say."""
    replayed: bool = False
    """Made before the connection over which it was delivered: it waited for the broker, or may come twice."""
    text: str | None = None
    reasoning: str | None = None
    data: Any = None
    """The answer as JSON, if a JSON Schema was given."""
    finish_reason: Literal["stop", "length"] | None = None
    """length: cut at max_tokens."""
    model: AnswerModel
    timing: AnswerTiming | None = None
    tokens: AnswerTokens | None = None
    frame: AnswerFrame
    snapshot: SnapshotRef | None = None
    """null if it was not published."""


class WatchState(Payload):
    """`<base>/<device>/<camera>/watch/<watch>`, for Home Assistant."""

    state: str
    """255 characters at most: the answer's text, or `error: ` and its key."""
    answer: AnswerPayload
    """In full."""


class Snapshot(Payload):
    """`data` of a response to `snapshot`."""

    id: str
    camera: str
    captured_at: Timestamp
    clock_synced: bool | None
    snapshot: SnapshotRef


EventStatus = Literal["pending", "answered", "late", "dropped", "failed"]


class EventAlert(Payload):
    """The alert of a watch, as of an answer."""

    state: Literal["on", "off", "unknown"]
    changed: bool
    """By this answer."""


class EventPayload(Payload):
    """`<base>/<device>/<camera>/event`: a watch asks, and what became of it, under one id."""

    id: str
    """ULID; the answer has the same."""
    type: Literal["new", "end"]
    status: EventStatus
    """pending with new; any other with end."""
    reason: ErrorInfo | None = None
    """Why there is no answer, or why it is late."""
    camera: str
    watch: str
    trigger: Literal["interval", "motion", "refresh"]
    """It is time, something moved, or nothing did for so long."""
    zones: list[str]
    """In which something moved; for another trigger, those that the watch looks at."""
    captured_at: Timestamp
    at: Timestamp
    clock_synced: bool | None
    replayed: bool = False
    text: str | None = None
    data: Any = None
    alert: EventAlert | None = None
    """null if the watch has none."""
    frame: AnswerFrame


class AlertPayload(Payload):
    """`<base>/<device>/<camera>/alert/<watch>`."""

    state: Literal["on", "off", "unknown"]
    """unknown from the start to the first answer that says something."""
    since: Timestamp
    clock_synced: bool | None
    id: str | None = None
    """Of the event whose answer has changed it."""
    data: Any = None
    """Of that answer."""


class MotionPayload(Payload):
    """`<base>/<device>/<camera>/motion`."""

    state: Literal["on", "off", "unknown"]
    """unknown until there were two pictures to compare."""
    zones: list[str]
    """In which something has moved since it is on."""
    at: Timestamp
    clock_synced: bool | None


class ModelInfo(Payload):
    """The model in `info`."""

    name: str
    architecture: str
    bundle: str
    """Last part of `model.bundle`."""
    version: str | None = None
    """If `model.bundle` is a link: last part of what it points to, its version in a bundle store."""
    form: Literal["paged", "inline"]
    precision: str
    manifest_sha256: str


class SystemUpdateFault(Payload):
    """Why the last update of the system failed, in `info`."""

    version: str | None
    """That was to come; null if it was not known yet."""
    key: str
    message: str


class SystemInfo(Payload):
    """The operating system in `info`."""

    board: str | None = None
    """What its device tree or firmware calls the machine; null if they do not say."""
    name: str | None
    """As os-release has it; null if it has none."""
    image_version: str | None
    """Of a system image of `moedge flash`; null on other systems."""
    slot: str | None
    """Of such an image, from which it was booted: A or B."""
    confirmed: bool | None = None
    """Of such an image, whether its daemon has answered, so that it counts."""
    update_fault: SystemUpdateFault | None = None
    """Of the last update of such an image; null if it went well."""


class DeviceInfo(Payload):
    """`<base>/<device>/info`."""

    device: str
    version: str
    """Of moedge."""
    started_at: Timestamp
    """Counted back from now, so that it is right once the clock is."""
    clock_synced: bool | None
    """As in an answer."""
    system: SystemInfo
    model: ModelInfo
    restart_required: bool = False
    """The configuration has another value of a key that is read at start only."""
    config_file: str | None
    """Where it was read from: `--config`, or what was pushed in its place."""
    config: dict[str, Any]
    """The configuration without secrets."""
    config_schema: dict[str, Any]


class CameraHealth(Payload):
    """A camera in `health`."""

    state: CameraState
    frames: int
    """Given by the camera; = skipped + answered + dropped + waiting."""
    skipped: int
    """No watch asked about them."""
    answered: int
    """At least one watch that asked got an answer."""
    dropped: int
    """Watches asked, and none got an answer."""
    waiting: int
    """For the model, or being answered."""
    reasons: dict[str, int]
    """Why frames were skipped or dropped, one reason each."""
    last_frame_age_s: Seconds | None


class WatchHealth(Payload):
    """A watch in `health`; due = answered + failed + dropped + what is waiting."""

    due: int
    answered: int
    late: int
    """Of the answered ones: later than `freshness`."""
    failed: int
    dropped: int
    """Replaced by a newer frame, or too old before their turn."""


class SpoolHealth(Payload):
    """Answers on disk in `health`."""

    messages: int
    bytes: int
    dropped: int
    """The oldest, because the bound in bytes was reached."""
    expired: int
    """Older than the bound in age."""
    damaged: int
    """Not readable any more."""
    replayed: int
    """Published from there."""
    written_bytes: int
    """Wear of the flash: what was written for all that."""
    syncs: int
    """Times that the disk was told to make it last."""
    error: str | None
    """What the disk says; null if it works."""


class MqttHealth(Payload):
    """The connection in `health`."""

    connected: bool
    connects: int
    published: int
    received: int
    queued: int
    """Answers and responses that the broker has not acknowledged, in memory and on disk."""
    dropped: int
    """From memory."""
    refused: int
    """By the broker's access list or limits."""
    log_dropped: int = 0
    """Lines of the log that were not published: there was no broker, or too many came."""
    certificate_ends_at: Timestamp | None
    """That of the device, `mqtt.cert`; null without one, or if it cannot be read."""
    spool: SpoolHealth | None
    """null without one."""


class BoardHealth(Payload):
    """The board in `health`."""

    temperature_c: float | None = None
    """Of the hottest sensor; null if there is none."""
    under_voltage: bool | None = None
    """Whether the power supply is too weak now; null where nothing says so."""
    power_mode: str | None = None
    """Of a Jetson, by its name; null elsewhere."""
    pace: Literal["normal", "slow", "slower"] = "normal"
    """slow and slower: answers are spaced out, because of heat or weak power."""


class DeviceHealth(Payload):
    """`<base>/<device>/health`."""

    at: Timestamp
    uptime_s: Seconds
    rss_bytes: int | None
    clock_synced: bool | None
    last_answer_age_s: Seconds | None
    cameras: dict[str, CameraHealth]
    watches: dict[str, WatchHealth]
    requests_waiting: int
    board: BoardHealth = BoardHealth()
    mqtt: MqttHealth


class Response(Payload):
    """`<base>/<device>/response/<verb>`."""

    status: Literal["ok", "error"]
    data: Any = None
    error: ErrorInfo | None = None
    transaction: str | int | None = None
    """As in the request."""


class ConfigResult(Payload):
    """`data` of a response to `reload`, and to `config` with a new configuration."""

    changed: bool
    """Whether the configuration differs from the one before."""
    model_loaded: bool
    """Whether the model had to be loaded again."""


class ConfigChanges(Payload):
    """Keys in which a configuration differs from the one before it, as written: `watches.level.question`."""

    added: list[str] = []
    removed: list[str] = []
    changed: list[str] = []


class KeptConfig(Payload):
    """A configuration that the daemon has run with."""

    id: str
    """Of its text and its questions: sha256- and the first 12 digits of its digest."""
    at: Timestamp
    """Since when, the last time."""
    clock_synced: bool | None
    """At that time; as in an answer."""
    changes: ConfigChanges
    """From the one that ran before."""
    watches: dict[str, str]
    """The `question_id` of the answers of each, while all its zones are on."""


class ConfigHistoryResult(Payload):
    """`data` of a response to `config` with `history`."""

    running: str | None
    """The `id` of the one that runs; null if this daemon keeps none."""
    configurations: list[KeptConfig]
    """The last one first."""
    problems: list[str]
    """What cannot be read, or is not kept, and why."""


LogLevel = Literal["debug", "info", "warning", "error"]


class LogPayload(Payload):
    """`<base>/<device>/log`."""

    at: Timestamp
    clock_synced: bool | None
    level: LogLevel
    namespace: str
    """Which part of moedge says it."""
    message: str
    dropped: int
    """Lines that were not published, since the start or the last reload."""


class BackupResult(Payload):
    """`data` of a response to `backup`."""

    name: str
    """For a file."""
    bytes: int
    """Of the zip."""
    sha256: str
    """Of the zip."""
    left_out: list[str]
    """What the configuration names and is not in it."""
    zip: str
    """The zip in base64."""


class UpdateState(Payload):
    """`<base>/<device>/update/state`: updates of the model."""

    installed_version: str | None = None
    """As `model.version` in `info`."""
    latest_version: str | None = None
    """The newest one for this device, as far as the updater has seen; null before its first look."""
    in_progress: bool = False
    """An update is being started, fetched or tried."""
    can_start: bool = False
    """Whether the request `update` starts one here."""
    looked_at: Timestamp | None = None
    """When the updater has last said something."""
    status: Literal["current", "updated", "available", "waiting", "updating", "stopped", "failed"] | None = None
    text: str | None = None
    """The same in a sentence."""
    error: ErrorInfo | None = None
    """Of `failed`."""


class UpdateStarted(Payload):
    """`data` of a response to `update`."""

    started: list[Literal["model", "system"]]
    """Whose updater was started."""
    check: bool
    """It only looks."""


class HomeAssistantDevice(Payload):
    """`<prefix>/device/<device>/config`; Home Assistant's MQTT discovery for devices gives the keys."""

    device: dict[str, Any]
    origin: dict[str, Any]
    availability: list[dict[str, Any]]
    qos: int
    components: dict[str, dict[str, Any]]
