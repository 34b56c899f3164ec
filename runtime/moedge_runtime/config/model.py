"""The typed objects of moedge.yaml, version 1. Docstrings become descriptions in docs/moedge.schema.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from moedge_runtime.config.camera import CameraSource, CheckDelay, FrameSize, without_credentials
from moedge_runtime.config.frames import (
    AlertConfig,
    BoxValue,
    Frozen,
    MotionConfig,
    PolygonValue,
    TimeConfig,
    WindowText,
    crop_problem,
    is_numeric,
    missing_in,
    motion_switch,
)
from moedge_runtime.config.values import (
    Duration,
    ExistingFile,
    Identifier,
    Interval,
    JsonSchema,
    ResolvedPath,
    Size,
    keys_disagree,
)
from moedge_runtime.config.web import MetricsConfig, ProtectionConfig, WebConfig
from moedge_runtime.frames.polygon import WHOLE, Polygon, overlaps
from moedge_runtime.mqtt.address import parse_broker_url
from moedge_runtime.mqtt.requests import QuestionText
from moedge_runtime.mqtt.topics import RESERVED_LEVELS, check_base_topic
from moedge_runtime.packs import load_pack, pack_names

CONFIG_VERSION: Literal[1] = 1
"""The version of moedge.yaml that this code reads."""

MIN_SPOOL_BYTES = 1 << 20
MIN_SNAPSHOT_BYTES, MAX_SNAPSHOT_BYTES = 4 << 10, 16 << 20

Positive = Annotated[int, Field(ge=1)]


def _broker_url(url: str) -> str:
    parse_broker_url(url)
    return url


def _camera_name(name: str) -> str:
    if name in RESERVED_LEVELS:
        raise ValueError(f"'{name}' is a topic of the device itself; choose another name")
    return name


def _embedded_switch(value: object) -> object:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def _log_switch(value: object) -> object:
    return {True: "warning", False: None}[value] if isinstance(value, bool) else value


def _snapshots_switch(value: object) -> object:
    return {"publish": value} if isinstance(value, bool) else value


class ModelConfig(Frozen):
    """The model that answers."""

    bundle: ResolvedPath
    """Directory that `moedge export` wrote."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads that compute; null for one a core."""
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """ONNX Runtime execution provider of the dense parts. Only cpu has been run so far."""
    layers: Literal["auto", "core", "onnxruntime"] = "auto"
    """What computes the dense layers and the vision tower of a paged bundle: the native core, ONNX Runtime, or auto for
    the core where provider and bundle allow it."""
    max_context: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of a prompt and its answer together; null for the runtime's default. The KV cache is
    allocated for it at start."""
    prefill_together: Annotated[int, Field(ge=1, le=8)] = 4
    """Most waiting frames whose prompts go through one prefill, so that each expert is read from flash once for all of
    them; fewer share it where computing takes longer than reading, or where they do not fit into max_context together.
    1 for each alone."""
    memory: Size | None = None
    """Memory for the whole process with a paged bundle: bytes, or a number with k, M or G (powers of 1024). The experts
    get what the other parts leave. null for what the machine, or its control group, has available, less a tenth and
    512 MiB at least."""
    expert_memory: Size | None = None
    """Of it for the experts, buffers included; null for what the other parts leave."""
    max_pixels: Positive | None = None
    """Largest area of a picture after resizing; null for the checkpoint's own, or what the memory can hold."""
    hot_set: ResolvedPath | None = None
    """File that keeps how often each expert was chosen, so that those needed most are read first after a start; written
    at most once an hour and at the end. null for no such file."""
    mlock: bool = False
    """Lock the memory of the experts at the start: it is there before the first frame and never swapped out, to a
    compressed part of the memory either."""
    verify: bool | None = None
    """Compare the SHA-256 of the bundle's files at start: true for every one, false for none, null for all but the
    experts, whose records are checked as they are read."""


class EmbeddedBrokerConfig(Frozen):
    """The broker that the daemon starts itself. It speaks MQTT 5 only and knows no passwords."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback lets everyone on that network read and ask."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """TCP port to listen on."""


class SpoolConfig(Frozen):
    """Answers on disk while the broker is away."""

    directory: ResolvedPath | None = None
    """Where they are kept; every device has its own. null for `spool` in the directory that systemd gives the daemon
    (STATE_DIRECTORY), and for memory only where there is none."""
    max_size: Annotated[Size, Field(ge=MIN_SPOOL_BYTES)] = 64 << 20
    """Bytes of all of them, or a number with k, M or G (powers of 1024), 1M at least; beyond it the oldest are
    dropped."""
    max_age: Duration = 7 * 86400.0
    """Older ones are not delivered any more."""


class SnapshotsConfig(Frozen):
    """Pictures on MQTT."""

    publish: bool = False
    """Publish the picture of every answer. Without it there are pictures on request only."""
    max_size: Annotated[Size, Field(ge=MIN_SNAPSHOT_BYTES, le=MAX_SNAPSHOT_BYTES)] = 256 << 10
    """Bytes of a JPEG, or a number with k or M (powers of 1024), 4k to 16M; larger ones are encoded smaller."""
    quality: Annotated[int, Field(ge=30, le=95)] = 85
    """JPEG quality to begin with."""


class HomeAssistantConfig(Frozen):
    """Entities in Home Assistant by MQTT discovery."""

    prefix: Annotated[str, AfterValidator(check_base_topic)] = "homeassistant"
    """Home Assistant's discovery prefix."""


class MqttConfig(Frozen):
    """The broker, and how to reach it. Exactly one of `url` and `embedded` is given."""

    url: Annotated[str, AfterValidator(_broker_url)] | None = None
    """mqtt://host:1883 or mqtts://host:8883, without user and password."""
    embedded: Annotated[
        EmbeddedBrokerConfig | None,
        BeforeValidator(_embedded_switch, json_schema_input_type=bool | EmbeddedBrokerConfig | None),
    ] = None
    """true, or an address: start a broker inside the daemon. Needs `pip install 'moedge[broker]'`."""
    base_topic: Annotated[str, AfterValidator(check_base_topic)] = "moedge"
    """First levels of every topic."""
    client_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """MQTT client id; null for moedge-<device>. Two daemons with one id disconnect each other for ever."""
    username: str | None = None
    """User that the broker knows."""
    password: SecretStr | None = None
    """Password; write ${NAME} to take it from the environment."""
    protocol: Literal["5", "3.1.1"] = "5"
    """MQTT version. 3.1.1 has no reason codes, response topics or correlation data."""
    ca: ExistingFile | None = None
    """PEM file of the authorities that may sign the broker's certificate; null for the system's."""
    cert: ExistingFile | None = None
    """PEM file of the client certificate, for mqtts."""
    key: ExistingFile | None = None
    """PEM file of the client certificate's key."""
    keepalive: Annotated[Duration, Field(ge=5, le=3600)] = 30.0
    """The broker publishes the will after 1.5 times this without a sign of life. Whole seconds, 5 to 3,600."""
    spool: SpoolConfig = SpoolConfig()
    snapshots: Annotated[
        SnapshotsConfig,
        BeforeValidator(_snapshots_switch, json_schema_input_type=bool | SnapshotsConfig),
    ] = SnapshotsConfig()
    """true, or options: publish the picture of every answer."""
    home_assistant: Annotated[
        HomeAssistantConfig | None,
        BeforeValidator(_embedded_switch, json_schema_input_type=bool | HomeAssistantConfig | None),
    ] = None
    """true, or options: announce the device to Home Assistant."""
    log: Annotated[
        Literal["error", "warning", "info"] | None,
        BeforeValidator(_log_switch, json_schema_input_type=Literal["error", "warning", "info"] | bool | None),
    ] = "warning"
    """Least level of the lines of the log that are published; off for none. `log.level` holds as well."""
    remote_config: bool = True
    """Whether the request `config` may replace this file, never to add commands (`exec:`), and `update` start one."""


class CameraConfig(Frozen):
    """One source of frames. Keys that do not concern its kind of source are errors."""

    source: CameraSource
    """rtsp://, rtsps://, http://, https://, v4l2:DEVICE, csi:NUMBER, exec:COMMAND, file:VIDEO or folder:DIRECTORY."""
    username: str | None = None
    """rtsp, http: user that the camera knows."""
    password: SecretStr | None = None
    """rtsp, http: password; write ${NAME} to take it from the environment."""
    transport: Literal["tcp", "udp"] = "tcp"
    """rtsp: how the video comes. udp loses packets where tcp would be late."""
    ca: ExistingFile | None = None
    """rtsps, https: PEM file of the authorities that may sign the camera's certificate, or of that certificate itself;
    null for the system's."""
    tls_verify: bool = True
    """rtsps, https: false accepts any certificate."""
    size: FrameSize | None = None
    """v4l2, csi, exec: WIDTHxHEIGHT to ask for, or of raw frames."""
    format: Literal["mjpeg", "rgb24", "bgr24", "gray", "yuv420p", "nv12", "yuyv422"] = "mjpeg"
    """exec: what the command writes, with FFmpeg's names. Anything but mjpeg is raw frames and needs `size`."""
    loop: bool = False
    """file, folder: begin again at the end."""
    realtime: bool = False
    """file, folder: false: every frame waits for its answers, time is the video's. true: the source plays as a live
    camera would, and a frame whose turn has not come is replaced by a newer one."""
    fps: Annotated[float, Field(ge=0.001, le=240)] | None = None
    """At most so many frames a second. null: of a file all, of a folder 1, of a live camera as many as its watches ask
    for, 1 at least."""
    first_frame_timeout: Duration = 15.0
    """Live cameras: longest time from opening to the first frame."""
    stall_timeout: Duration = 10.0
    """Live cameras: longest time without a sign of life before it is opened again."""
    frozen_after: CheckDelay = 60.0
    """Live cameras: the very same picture for so long is reported; never to leave that out."""
    black_after: CheckDelay = 10.0
    """Live cameras: black pictures for so long are reported; never to leave that out."""
    masks: Annotated[tuple[PolygonValue, ...], Field(max_length=32)] = ()
    """Polygons, 32 at most, that are painted black before anything else sees a frame."""
    crop: BoxValue = WHOLE
    """[left, top, right, bottom] of the part of the picture that is used; the rest is cut off."""
    zones: dict[Identifier, PolygonValue] = {}  # noqa: RUF012 (pydantic copies it)
    """Named polygons. Like masks and crop in fractions of the whole picture as the camera gives it."""
    motion: Annotated[
        MotionConfig | None, BeforeValidator(motion_switch, json_schema_input_type=bool | MotionConfig | None)
    ] = None
    """true, or what counts as motion: watches ask only when something moved."""
    schedule: tuple[WindowText, ...] = ()
    """Days and times at which its watches ask, such as mon-fri 07:00-18:00; empty for always."""
    enabled: bool = True
    """false: the camera is listed as disabled, and not opened until it is switched on over MQTT."""

    @field_validator("zones")
    @classmethod
    def _zones_are_in_the_picture(cls, zones: dict[str, Polygon], info: ValidationInfo) -> dict[str, Polygon]:
        crop = info.data.get("crop")
        problems = [
            crop_problem(name, polygon, crop)
            for name, polygon in zones.items()
            if crop is not None and not overlaps(polygon, crop)
        ]
        if problems:
            raise keys_disagree("; ".join(problems))
        return zones


def _pack_exists(name: str) -> str:
    load_pack(name)
    return name


def _question_or_pack(schema: dict[str, Any]) -> None:
    """In the file a question may be missing where a pack brings it."""
    schema["required"] = [key for key in schema["required"] if key != "question"]
    schema["anyOf"] = [{"required": ["question"]}, {"required": ["pack"]}]


def _check_property(key: str, field: str, schema: dict[str, Any]) -> None:
    missing = missing_in(field, schema)
    if missing is not None:
        raise keys_disagree(f"{key} is '{field}', but the json_schema has no property '{missing}'")


class WatchConfig(Frozen):
    """A standing question to a camera."""

    model_config = ConfigDict(json_schema_extra=_question_or_pack)

    name: Identifier
    """Unique among all watches; in every answer."""
    camera: Identifier
    """Key in `cameras`."""
    pack: Annotated[str, AfterValidator(_pack_exists)] | None = None
    """A ready-made watch (`moedge watch packs`) whose keys hold where this one has none."""
    question: QuestionText
    """What to ask about each frame."""
    interval: Interval = 5.0
    """Time of the camera between two answers; every_frame for no gap. With motion, the least time between two."""
    json_schema: JsonSchema | None = None
    """The answer must fit this JSON Schema, written in place or as a path; it is then in the answer's `data`."""
    system: Annotated[str, Field(max_length=8000)] | None = None
    """System prompt."""
    thinking: bool = False
    """Let a Thinking model reason before it answers."""
    thinking_budget: Positive | None = None
    """Reasoning is cut after so many tokens; null for no limit but `max_tokens`."""
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 256
    """Longest answer, reasoning included."""
    publish_reasoning: bool = False
    """Put the reasoning into the answer's `reasoning`."""
    zones: tuple[Identifier, ...] = ()
    """Zones of the camera that it looks at: motion counts there, and the picture is cut to their rectangle."""
    view: Literal["zones", "camera"] = "zones"
    """camera: the whole picture goes to the model although `zones` are given."""
    motion: bool | None = None
    """Ask only when something moved; null for true if the camera has `motion`."""
    refresh: Duration | None = None
    """With motion: ask after so long without a question however still it is; null for never."""
    schedule: tuple[WindowText, ...] = ()
    """Days and times at which it asks; empty for always. Those of the camera hold as well."""
    freshness: Duration | None = None
    """A frame is not asked about when it has waited so long, and an answer that is later is marked late."""
    priority: Literal["high", "normal", "low"] = "normal"
    """A waiting question of a higher class always goes first."""
    alert: AlertConfig | None = None
    """An alert that the answers raise and end; needs `json_schema`."""
    state: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Key in the answer's `data`, as `alert.field`, whose value is the state in Home Assistant; needs `json_schema`."""
    unit: Annotated[str, Field(min_length=1, max_length=32)] | None = None
    """Unit of the state in Home Assistant, which then keeps statistics; `json_schema` makes the state a number."""
    enabled: bool = True
    """false: it asks nothing until it is switched on over MQTT."""

    @model_validator(mode="before")
    @classmethod
    def _take_from_pack(cls, value: Any) -> Any:
        """Keys of the pack, if it is one, under those that were given."""
        name = value.get("pack") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in pack_names():
            return value
        return load_pack(name).watch | value

    @field_validator("view")
    @classmethod
    def _view_needs_zones(cls, view: str, info: ValidationInfo) -> str:
        if view == "camera" and info.data.get("zones") == ():
            raise keys_disagree("view: camera goes with zones; without any the whole picture is used anyway")
        return view

    @field_validator("refresh")
    @classmethod
    def _refresh_needs_motion(cls, refresh: float | None, info: ValidationInfo) -> float | None:
        if refresh is not None and info.data.get("motion") is False:
            raise keys_disagree("refresh goes with motion; remove it, or set motion to true")
        return refresh

    @field_validator("alert")
    @classmethod
    def _alert_has_a_field(cls, alert: AlertConfig | None, info: ValidationInfo) -> AlertConfig | None:
        if alert is not None and "json_schema" in info.data:
            if info.data["json_schema"] is None:
                raise keys_disagree("an alert needs a json_schema that has its field")
            _check_property("alert.field", alert.field, info.data["json_schema"])
        return alert

    @field_validator("state")
    @classmethod
    def _state_is_a_field(cls, state: str | None, info: ValidationInfo) -> str | None:
        if state is not None and "json_schema" in info.data:
            if info.data["json_schema"] is None:
                raise keys_disagree("state needs a json_schema that has this field")
            _check_property("state", state, info.data["json_schema"])
        return state

    @field_validator("unit")
    @classmethod
    def _unit_is_of_a_number(cls, unit: str | None, info: ValidationInfo) -> str | None:
        if unit is None or not {"json_schema", "state"} <= info.data.keys():
            return unit
        schema, state = info.data["json_schema"], info.data["state"]
        if schema is None or not is_numeric(state, schema):
            what = f"state is '{state}', and the" if state else "the"
            raise keys_disagree(
                f"unit is for numbers: {what} json_schema does not make it one. Give it the type number or integer, or "
                f"choose a state that has it, or leave unit out"
            )
        return unit


class HealthConfig(Frozen):
    """The retained health message."""

    interval: Duration = 60.0
    """Time between two messages."""


class LogConfig(Frozen):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "text", "json", "journal"] = "auto"
    """text: lines with the time. json: one JSON object a line. journal: a priority for journald in front of each. auto:
    journal if standard error goes to journald, else text."""


@dataclass(frozen=True)
class Origin:
    """Where a configuration is from.

    Attributes:
        path: The file that was asked for.
        source: The file that was read: `path`, what was pushed in its place, or where a link leads.
        lines: The line (from 1) of every path in it.
        text: All of it.
    """

    path: Path
    source: Path
    lines: dict[tuple[str | int, ...], int]
    text: str


class Config(Frozen):
    """All of moedge.yaml."""

    _origin: Origin | None = PrivateAttr(default=None)

    version: Literal[1]
    """Version of this file's form."""
    device: Identifier
    """This board's name in every topic."""
    model: ModelConfig
    mqtt: MqttConfig
    cameras: Annotated[dict[Annotated[Identifier, AfterValidator(_camera_name)], CameraConfig], Field(min_length=1)]
    """Cameras by name."""
    watches: list[WatchConfig] = []  # noqa: RUF012 (pydantic copies it)
    """Standing questions. Without any, the daemon only answers requests."""
    exit_when_done: bool = False
    """End when every camera has come to its end. Refuses cameras that loop."""
    time: TimeConfig = TimeConfig()
    health: HealthConfig = HealthConfig()
    log: LogConfig = LogConfig()
    metrics: Annotated[
        MetricsConfig | None,
        BeforeValidator(_embedded_switch, json_schema_input_type=bool | MetricsConfig | None),
    ] = MetricsConfig()
    """/metrics, /healthz and /readiness: where they are; false for none."""
    web: WebConfig | None = None
    """The local web page; without this section there is none."""
    protection: ProtectionConfig = ProtectionConfig()

    @property
    def path(self) -> Path | None:
        """The file that this was asked for at; None if it was none."""
        return self._origin.path if self._origin else None

    @property
    def source(self) -> Path | None:
        """The file that this was read from: `path`, or what was pushed in its place; None if it was none."""
        return self._origin.source if self._origin else None

    @property
    def text(self) -> str | None:
        """The YAML that this was read from; None if it was none."""
        return self._origin.text if self._origin else None

    def public(self) -> dict[str, Any]:
        """The configuration as JSON values without secrets, for the info message."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for camera in values["cameras"].values():
            camera["source"] = without_credentials(camera["source"])
        return values
