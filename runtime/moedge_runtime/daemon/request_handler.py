"""Answers requests that arrive over MQTT."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from moedge_runtime.camera import Frame
from moedge_runtime.daemon.answerer import Question
from moedge_runtime.daemon.answers import error_info
from moedge_runtime.daemon.commands import Command, Commands
from moedge_runtime.daemon.job_queue import JobQueue, stopping
from moedge_runtime.daemon.reader import CameraReader, newest
from moedge_runtime.daemon.schedule import DropReason, Job, Result
from moedge_runtime.daemon.switches import Switches
from moedge_runtime.errors import CameraError, MoedgeError, RequestError
from moedge_runtime.mqtt.line import one_line
from moedge_runtime.mqtt.message import Message, Received
from moedge_runtime.mqtt.payloads import AnswerPayload, Payload, Response, Snapshot
from moedge_runtime.mqtt.requests import (
    AskCommand,
    BackupCommand,
    ConfigCommand,
    LogLevelCommand,
    Request,
    SnapshotCommand,
    UpdateCommand,
    parse_request,
    parse_switch,
    transaction_of,
)
from moedge_runtime.mqtt.topics import Topics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ReturnAddress:
    topic: str
    correlation: bytes | None
    transaction: str | int | None


class RequestHandler:
    """Handles one request at a time, on the network's thread; never blocks.

    Args:
        topics: The device's topic tree.
        jobs: Where questions go.
        cameras: Readers by name.
        switches: What switches them off and on.
        publish: Publishes a message.
        answer: Makes the payload of a finished job.
        readers: What `health`, `info` and `config` return.
        snapshot: Publishes the picture of a frame of a camera.
        commands: Where requests go that change the daemon itself, or take a while.
    """

    def __init__(
        self,
        topics: Topics,
        jobs: JobQueue,
        cameras: Mapping[str, CameraReader],
        switches: Switches,
        *,
        publish: Callable[[Message], None],
        answer: Callable[[Job, Result], AnswerPayload],
        readers: Mapping[str, Callable[[], Payload | dict[str, Any]]],
        snapshot: Callable[[str, Frame], Snapshot],
        commands: Commands,
    ) -> None:
        self._topics, self._jobs, self._cameras, self._switches = topics, jobs, cameras, switches
        self._publish, self._answer, self._readers = publish, answer, readers
        self._snapshot, self._commands = snapshot, commands

    def handle(self, message: Received) -> None:
        """Answer `message`, now or when the model has."""
        switch = self._topics.switch(message.topic)
        verb = "set" if switch else self._topics.verb(message.topic)
        if verb is None:
            log.warning("Ignored a message on '%s', which is no request.", one_line(message.topic))
            return
        sender = _ReturnAddress(self._topics.response(verb), message.correlation, transaction_of(message.payload))
        try:
            sender = self._return_address(message, sender)
            if switch:
                self.switch(*switch, parse_switch(message.payload), partial(self._respond_outcome, sender))
                return
            request = parse_request(verb, message.payload)
            if isinstance(request, AskCommand):
                self._ask(request, sender)
            elif isinstance(request, SnapshotCommand):
                reader = self.camera(request.camera)
                self._respond(
                    sender, data=self._snapshot(reader.name, fresh(reader, request.freshness)).model_dump(mode="json")
                )
            elif isinstance(request, LogLevelCommand):
                self._respond(sender, data={"level": _log_level(request)})
            elif verb in ("restart", "reload", "backup", "update") or (
                isinstance(request, ConfigCommand) and not request.reads_only
            ):
                self._command(verb, request, sender)
            else:
                self._read(verb, request, sender)
        except MoedgeError as error:
            self._respond(sender, error=error)

    def refuse(self, job: Job) -> None:
        """Tell the sender of a waiting request that the daemon ends."""
        job.drop(job, "stopping")

    def _return_address(self, message: Received, default: _ReturnAddress) -> _ReturnAddress:
        topic = message.response_topic
        if topic is None:
            return default
        if not self._topics.may_respond_on(topic):
            raise RequestError(
                f"No response can be published to the topic {topic[:200]!r}. Choose one without wildcards that does "
                f"not belong to this device.",
                key="request.response_topic",
            )
        return _ReturnAddress(topic, default.correlation, default.transaction)

    def _read(self, verb: str, request: Request, sender: _ReturnAddress) -> None:
        value = self._readers[verb]()
        self._respond(sender, data=value.model_dump(mode="json") if isinstance(value, Payload) else value)

    def _command(self, verb: str, request: Request, sender: _ReturnAddress) -> None:
        new = request if isinstance(request, ConfigCommand) else ConfigCommand()
        hot_set = not isinstance(request, BackupCommand) or request.hot_set
        self._commands.add(
            Command(
                cast(Any, "history" if new.history else verb),
                partial(self._respond_outcome, sender),
                new.config,
                device_file=new.device_file,
                hot_set=hot_set,
                check=isinstance(request, UpdateCommand) and request.check,
                rollback=new.rollback,
            )
        )

    def switch(self, camera: str, feature: str, on: bool, deliver: Callable[[Any | MoedgeError], None]) -> None:
        """Switch a feature of a camera; `deliver` gets the outcome, on any thread.

        Raises:
            RequestError: There is no such camera or feature.
        """
        self._switches.request(camera, feature, on, deliver)

    def ask(self, command: AskCommand, deliver: Callable[[AnswerPayload | MoedgeError], None]) -> None:
        """Put the question of a request into the model's queue; `deliver` gets the answer, on any thread.

        Raises:
            MoedgeError: It cannot be asked.
        """
        reader = self.camera(command.camera)
        frame = fresh(reader, command.freshness)
        question = Question(
            text=command.question,
            system=command.system,
            json_schema=command.json_schema,
            thinking=command.thinking,
            thinking_budget=command.thinking_budget,
            max_tokens=command.max_tokens,
            camera=reader.name,
        )

        # The model's thread may be busy at the deadline, and cameras may be silent.
        timer = threading.Timer(command.deadline or 0.0, self._jobs.drop_stale)
        timer.daemon = True

        def answered(job: Job, result: Result) -> None:
            timer.cancel()
            deliver(result.outcome if isinstance(result.outcome, MoedgeError) else self._answer(job, result))

        def dropped(job: Job, reason: DropReason) -> None:
            timer.cancel()
            deliver(_too_late(command) if reason == "stale" else stopping())

        deadline_s = None if command.deadline is None else time.monotonic() + command.deadline
        self._jobs.ask(
            Job(reader.name, None, question, frame, command.reasoning, answered, dropped, deadline_s=deadline_s)
        )
        if command.deadline is not None:
            timer.start()

    def _ask(self, command: AskCommand, sender: _ReturnAddress) -> None:
        def deliver(outcome: AnswerPayload | MoedgeError) -> None:
            if isinstance(outcome, MoedgeError):
                self._respond(sender, error=outcome)
            else:
                self._respond(sender, data=outcome.model_dump(mode="json"))

        self.ask(command, deliver)

    def camera(self, name: str | None) -> CameraReader:
        """The camera of that name, or the only one if None.

        Raises:
            RequestError: There is none, or there are several.
        """
        running = {name: reader for name, reader in self._cameras.items() if reader.enabled}
        known = ", ".join(running) or "none"
        if name is None and len(running) == 1:
            return next(iter(running.values()))
        if name is None:
            raise RequestError(f"Say which camera is meant; known are: {known}.", key="request.camera_missing")
        if name not in running:
            raise RequestError(
                f"There is no camera '{name}' that runs; known are: {known}.", key="request.camera_unknown"
            )
        return running[name]

    def _respond_outcome(self, sender: _ReturnAddress, outcome: Any | MoedgeError) -> None:
        if isinstance(outcome, MoedgeError):
            self._respond(sender, error=outcome)
        else:
            self._respond(sender, data=outcome)

    def _respond(self, sender: _ReturnAddress, *, data: Any = None, error: MoedgeError | None = None) -> None:
        response = Response(
            status="error" if error else "ok",
            data=data,
            error=error_info(error) if error else None,
            transaction=sender.transaction,
        )
        self._publish(Message(sender.topic, response.encode(), correlation=sender.correlation))


def fresh(reader: CameraReader, freshness_s: float | None) -> Frame:
    """The newest frame of a camera, at most `freshness_s` seconds old unless None.

    Raises:
        CameraError: There is none.
    """
    frame = newest(reader)
    age_s = time.monotonic() - frame.monotonic_s
    if freshness_s is not None and age_s > freshness_s:
        raise CameraError(
            f"The newest frame of camera '{reader.name}' is {age_s:.1f} s old; freshness={freshness_s:g} s. See the "
            f"camera's status, ask again later, or allow an older one.",
            key="camera.frame_old",
        )
    return frame


def _too_late(command: AskCommand) -> RequestError:
    return RequestError(
        f"There was no answer within deadline={command.deadline:g} s. Ask again later, ask for fewer tokens, or allow "
        f"more time.",
        key="request.deadline",
    )


def _log_level(command: LogLevelCommand) -> str:
    """Set the level if there is one to set, and say what it is."""
    root = logging.getLogger()
    if command.level is not None:
        root.setLevel(command.level.upper())
        log.info("The log level is %s now.", command.level)
    return logging.getLevelName(root.getEffectiveLevel()).lower()
