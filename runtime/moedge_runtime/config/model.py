"""The typed objects of moedge.yaml, version 1. Docstrings become descriptions in docs/moedge.schema.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from moedge_runtime.config.camera import CameraSource, CheckDelay, FrameSize, camera_problems, without_credentials
from moedge_runtime.config.values import (
    Duration,
    ExistingFile,
    Identifier,
    Interval,
    JsonSchema,
    ResolvedPath,
    Size,
)
from moedge_runtime.mqtt.address import parse_broker_url
from moedge_runtime.mqtt.topics import RESERVED_LEVELS, check_base_topic

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


def _snapshots_switch(value: object) -> object:
    return {"publish": value} if isinstance(value, bool) else value


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelConfig(_Frozen):
    """The model that answers."""

    bundle: ResolvedPath
    """Directory that `moedge export` wrote."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads that compute; null for one a core."""
    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """ONNX Runtime execution provider of the dense parts. Only cpu has been run so far."""
    max_context: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of a prompt and its answer together; null for the runtime's default. The KV cache is
    allocated for it at start."""
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
    verify: bool | None = None
    """Compare the SHA-256 of the bundle's files at start: true for every one, false for none, null for all but the
    experts, whose records are checked as they are read."""


class EmbeddedBrokerConfig(_Frozen):
    """The broker that the daemon starts itself. It speaks MQTT 5 only and knows no passwords."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback lets everyone on that network read and ask."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """TCP port to listen on."""


class SpoolConfig(_Frozen):
    """Answers on disk while the broker is away."""

    directory: ResolvedPath | None = None
    """Where they are kept; every device has its own. null for `spool` in the directory that systemd gives the daemon
    (STATE_DIRECTORY), and for memory only where there is none."""
    max_size: Annotated[Size, Field(ge=MIN_SPOOL_BYTES)] = 64 << 20
    """Bytes of all of them, or a number with k, M or G (powers of 1024), 1M at least; beyond it the oldest are
    dropped."""
    max_age: Duration = 7 * 86400.0
    """Older ones are not delivered any more."""


class SnapshotsConfig(_Frozen):
    """Pictures on MQTT."""

    publish: bool = False
    """Publish the picture of every answer. Without it there are pictures on request only."""
    max_size: Annotated[Size, Field(ge=MIN_SNAPSHOT_BYTES, le=MAX_SNAPSHOT_BYTES)] = 256 << 10
    """Bytes of a JPEG, or a number with k or M (powers of 1024), 4k to 16M; larger ones are encoded smaller."""
    quality: Annotated[int, Field(ge=30, le=95)] = 85
    """JPEG quality to begin with."""


class HomeAssistantConfig(_Frozen):
    """Entities in Home Assistant by MQTT discovery."""

    prefix: Annotated[str, AfterValidator(check_base_topic)] = "homeassistant"
    """Home Assistant's discovery prefix."""


class MqttConfig(_Frozen):
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
    remote_config: bool = True
    """Whether the request `config` may replace this file. It may never add commands (`exec:`)."""


class CameraConfig(_Frozen):
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
    enabled: bool = True
    """false: the camera is listed as disabled and never opened."""

    @model_validator(mode="after")
    def _keys_fit_the_source(self) -> CameraConfig:
        problems = camera_problems(self.source, self.model_fields_set)
        if self.password is not None and self.username is None:
            problems.append("a password needs a username")
        if self.format != "mjpeg" and self.size is None:
            problems.append(f"raw frames ({self.format}) need a size, for example 1280x720")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class WatchConfig(_Frozen):
    """A standing question to a camera."""

    name: Identifier
    """Unique among all watches; in every answer."""
    camera: Identifier
    """Key in `cameras`."""
    question: Annotated[str, Field(min_length=1, max_length=8000)]
    """What to ask about each frame."""
    interval: Interval = 5.0
    """Time of the camera between two answers; every_frame for no gap."""
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


class HealthConfig(_Frozen):
    """The retained health message."""

    interval: Duration = 60.0
    """Time between two messages."""


class LogConfig(_Frozen):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""


@dataclass(frozen=True)
class Origin:
    """The file that a configuration was read from, and the line (from 1) of every path in it."""

    path: Path
    lines: dict[tuple[str | int, ...], int]


class Config(_Frozen):
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
    watches: list[WatchConfig] = []
    """Standing questions. Without any, the daemon only answers requests."""
    exit_when_done: bool = False
    """End when every camera has come to its end. Refuses cameras that loop."""
    health: HealthConfig = HealthConfig()
    log: LogConfig = LogConfig()

    @property
    def path(self) -> Path | None:
        """The file that this was read from; None if it was none."""
        return self._origin.path if self._origin else None

    def public(self) -> dict[str, Any]:
        """The configuration as JSON values without secrets, for the info message."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for camera in values["cameras"].values():
            camera["source"] = without_credentials(camera["source"])
        return values
