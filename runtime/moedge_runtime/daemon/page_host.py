"""What the local page shows and does, see PageHost. Called on the HTTP server's threads."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

from moedge_runtime import __version__
from moedge_runtime.camera import Frame
from moedge_runtime.config import Config
from moedge_runtime.config.edit import Kind, rounded, with_polygon, without_mask
from moedge_runtime.config.load import load_config
from moedge_runtime.config.pushed import in_force
from moedge_runtime.config.values import NAME_PATTERN
from moedge_runtime.daemon.answers import error_info
from moedge_runtime.daemon.bridge import Bridge
from moedge_runtime.daemon.clock import Ulids
from moedge_runtime.daemon.commands import Command, Commands
from moedge_runtime.daemon.reader import newest
from moedge_runtime.daemon.request_handler import RequestHandler
from moedge_runtime.daemon.snapshot import encode_jpeg
from moedge_runtime.errors import ConfigError, MoedgeError, RequestError
from moedge_runtime.frames.polygon import parse_polygon
from moedge_runtime.mqtt.payloads import AnswerPayload, Payload
from moedge_runtime.mqtt.requests import AskCommand, parse_request
from moedge_runtime.mqtt.topics import ENABLED

MAX_ANSWERS = 50
MAX_ASKED = 32

IN_THE_FILE = "Change the file on the board and send the request reload"

PICTURE_BYTES = 200 * 1024
PICTURE_QUALITY = 80


class DaemonPage:
    """The daemon behind the page. Keeps the last answers and what became of questions, over reloads.

    Args:
        commands: Where changes of the configuration go.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._lock = threading.Lock()
        self._answers: deque[AnswerPayload] = deque(maxlen=MAX_ANSWERS)
        self._asked: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._pictures: dict[str, tuple[Frame, bytes]] = {}
        self._identifiers = Ulids()
        self._parts: tuple[Config, Bridge, RequestHandler] | None = None
        self._drawing = threading.Lock()

    def serve(self, config: Config, bridge: Bridge, handler: RequestHandler) -> None:
        """These are the daemon's parts from now on."""
        self._parts = config, bridge, handler

    def rest(self) -> None:
        """There are no such parts for now."""
        self._parts = None
        with self._drawing:
            self._pictures.clear()  # a frame is megabytes, and the next ones may have other masks

    def note(self, answer: AnswerPayload) -> None:
        """An answer was made."""
        with self._lock:
            self._answers.appendleft(answer)

    def status(self) -> dict[str, Any]:
        """See PageHost."""
        config, bridge, _ = self._serving()
        return {
            "device": config.device,
            "version": __version__,
            "model": bridge.model_name,
            "allow_changes": bool(config.web and config.web.allow_changes),
            "health": bridge.health().model_dump(mode="json"),
            "cameras": {
                name: {
                    "crop": [camera.crop.left, camera.crop.top, camera.crop.right, camera.crop.bottom],
                    "masks": [[list(point) for point in mask] for mask in camera.masks],
                    "zones": {zone: [list(point) for point in polygon] for zone, polygon in camera.zones.items()},
                    "watches": [watch.name for watch in config.watches if watch.camera == name],
                    "enabled": bridge.readers[name].enabled,
                }
                for name, camera in config.cameras.items()
            },
        }

    def answers(self) -> list[dict[str, Any]]:
        """See PageHost."""
        with self._lock:
            return [answer.model_dump(mode="json") for answer in self._answers]

    def picture(self, camera: str) -> bytes:
        """See PageHost. The frames of a reader have their masks painted (frames/masked.py)."""
        _, _, handler = self._serving()
        frame = newest(handler.camera(camera))
        with self._drawing:  # one at a time: the model needs the cores
            kept = self._pictures.get(camera)
            if kept is None or kept[0] is not frame:
                jpeg = encode_jpeg(frame.image, max_bytes=PICTURE_BYTES, quality=PICTURE_QUALITY, comment="moedge")
                kept = self._pictures[camera] = frame, jpeg.content
        return kept[1]

    def ask(self, request: bytes) -> str:
        """See PageHost."""
        _, _, handler = self._serving()
        command = parse_request("ask", request)
        assert isinstance(command, AskCommand)
        return self._expected(partial(handler.ask, command))

    def asked(self, identifier: str) -> dict[str, Any]:
        """See PageHost."""
        with self._lock:
            known = self._asked.get(identifier)
        if known is None:
            raise RequestError(
                "Nothing is known of this question any more. Ask it again.", key="request.identifier_unknown"
            )
        return known

    def add_polygon(self, camera: str, kind: str, body: Mapping[str, Any]) -> str:
        """See PageHost."""
        config, _, handler = self._serving()
        handler.camera(camera)
        return self._apply(_with_polygon(config, camera, cast(Kind, kind), body))

    def remove_mask(self, camera: str, body: Mapping[str, Any]) -> str:
        """See PageHost."""
        config, _, handler = self._serving()
        handler.camera(camera)
        return self._apply(_without_mask(config, camera, body))

    def enable(self, camera: str, body: Mapping[str, Any]) -> str:
        """See PageHost."""
        config, _, handler = self._serving()
        _require_leave(config, "pause cameras or resume them", "Switch them over MQTT")
        on = body.get("on")
        if not isinstance(on, bool):
            raise RequestError("Say with `on` whether the camera is to run: true or false.", key="request.invalid")
        return self._expected(lambda deliver: handler.switch(camera, ENABLED, on, deliver))

    def _apply(self, text: str) -> str:
        """Take over a configuration; the identifier under which the outcome will be known."""
        return self._expected(lambda deliver: self._commands.add(Command("config", deliver, text, "web")))

    def _expected(self, begin: Callable[[Callable[[Any], None]], None]) -> str:
        """Begin something that delivers its outcome; the identifier under which that will be known."""
        identifier = self._expect()
        try:
            begin(lambda outcome: self._ended(identifier, outcome))
        except MoedgeError:
            self._forget(identifier)
            raise
        return identifier

    def _serving(self) -> tuple[Config, Bridge, RequestHandler]:
        parts = self._parts
        if parts is None:
            raise RequestError("The daemon starts or reloads. Try again in a moment.", key="request.starting")
        return parts

    def _expect(self) -> str:
        identifier = self._identifiers.next()
        with self._lock:
            self._asked[identifier] = {"state": "waiting"}
            while len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)
        return identifier

    def _forget(self, identifier: str) -> None:
        with self._lock:
            self._asked.pop(identifier, None)

    def _ended(self, identifier: str, outcome: Any) -> None:
        value: dict[str, Any]
        if isinstance(outcome, MoedgeError):
            value = {"state": "failed", "error": error_info(outcome).model_dump(mode="json")}
        else:
            data = outcome.model_dump(mode="json") if isinstance(outcome, Payload) else outcome
            value = {"state": "done", "data": data}
        with self._lock:
            if identifier in self._asked:
                self._asked[identifier] = value


def _with_polygon(config: Config, camera: str, kind: Kind, body: Mapping[str, Any]) -> str:
    """The configuration's file with one more polygon.

    Raises:
        RequestError: The polygon is none, or changes are not allowed.
        ConfigError: The file cannot be changed.
    """
    _require_leave(config, f"add {kind}", IN_THE_FILE)
    name: Literal[None] | str = None
    try:
        polygon = parse_polygon(body.get("polygon"))
        parse_polygon(rounded(polygon))
        if kind == "zones":
            name = body.get("name")
            if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
                raise ValueError("a zone's name has 1 to 64 of the characters a-z, A-Z, 0-9, _ and -")
    except ValueError as error:
        raise RequestError(f"This cannot be drawn: {error}.", key="request.invalid") from error
    return with_polygon(_text_in_force(config), camera, kind, polygon, name)


def _without_mask(config: Config, camera: str, body: Mapping[str, Any]) -> str:
    """The configuration's file without the mask that has exactly these corners.

    Raises:
        RequestError: There is no such mask, or changes are not allowed.
        ConfigError: The file cannot be changed.
    """
    _require_leave(config, "remove masks", IN_THE_FILE)
    masks = [[list(corner) for corner in mask] for mask in config.cameras[camera].masks]
    polygon = body.get("polygon")
    if polygon not in masks:
        raise RequestError(
            f"Camera '{camera}' has no mask with these corners any more. Look at those that it has, and choose again.",
            key="request.mask_unknown",
        )
    return without_mask(_text_in_force(config), camera, masks.index(polygon))


def _require_leave(config: Config, what: str, instead: str) -> None:
    """Raises RequestError, which says `what` is refused and what to do `instead`, unless the page may change things."""
    if not (config.web and config.web.allow_changes):
        raise RequestError(
            f"The page may not {what}: web.allow_changes is false. {instead}.",
            key="request.config_not_allowed",
        )


def _text_in_force(config: Config) -> str:
    """The text of the configuration's file.

    Raises:
        RequestError: There is no file.
        ConfigError: It is not what the daemon runs with.
    """
    path = config.path
    if path is None:
        raise RequestError("The configuration of this daemon is of no file.", key="request.no_config_file")
    if load_config(path).model_dump() != config.model_dump():
        raise ConfigError(
            f"'{in_force(path)}' has changes that are not in force yet. Reload the daemon first, then try again.",
            key="config.changed_on_disk",
        )
    return in_force(path).read_text(encoding="utf-8")
