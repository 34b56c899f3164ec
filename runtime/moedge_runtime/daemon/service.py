"""The composition root: opens the model, then the broker, then the cameras, and takes them down in the other order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import CameraConfig, Config, ModelConfig
from moedge_runtime.config.camera import without_credentials
from moedge_runtime.counted import counted
from moedge_runtime.daemon import reload
from moedge_runtime.daemon.answerer import Answerer
from moedge_runtime.daemon.backup import backup_response
from moedge_runtime.daemon.bridge import Bridge
from moedge_runtime.daemon.broker import spool_directory
from moedge_runtime.daemon.bundle_check import open_bundle
from moedge_runtime.daemon.cameras import check_of, gate_of, open_camera, policy_of, preparation_of, watch_of
from moedge_runtime.daemon.clock import clock_synced
from moedge_runtime.daemon.commands import Command, Commands
from moedge_runtime.daemon.config_history import ConfigHistory
from moedge_runtime.daemon.config_lock import ConfigLock
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.model_state import ModelState
from moedge_runtime.daemon.outlets import Outlets, Serving
from moedge_runtime.daemon.preflight import check_config
from moedge_runtime.daemon.reader import CameraReader
from moedge_runtime.daemon.request_handler import RequestHandler
from moedge_runtime.daemon.setup import OpenAnswerer, Setup
from moedge_runtime.daemon.supervision import Supervision
from moedge_runtime.daemon.switches import Switches, on_off
from moedge_runtime.daemon.system import state_directory
from moedge_runtime.daemon.updates import Updates
from moedge_runtime.daemon.watcher import Watch, Watcher
from moedge_runtime.daemon.worker import Worker
from moedge_runtime.errors import MoedgeError, RequestError
from moedge_runtime.mqtt.message import Message
from moedge_runtime.mqtt.session import MAX_PACKET_BYTES
from moedge_runtime.mqtt.topics import ENABLED

FINISH_S = 2.0
"""A running answer may take so long after the request to stop; then it is cancelled."""

CANCEL_S = 5.0
"""The model notices a cancellation between two tokens, and only after the prefill."""

CAMERA_STOP_S = 2.0
"""A source ends within one frame."""

FAREWELL_S = 5.0
"""For the answers that wait and the status `stopped`; systemd waits 90 s."""

DELIVERY_S = 30.0
"""With exit_when_done, for answers that the broker has not acknowledged when the last camera has ended."""

RELOAD_FINISH_S = 120.0
"""A reload waits so long for the answer under way; then it is stopped as at the end."""

UPDATE_STEP_S = 2.0
"""While an update is made, how it gets on is looked at so often; else with every health."""

_STEP_S = 0.05

log = logging.getLogger(__name__)


class Daemon:
    """`moedge run`.

    Args:
        config: The configuration.
        open_answerer: Loads the model; called after the bundle was verified.
        exit_when_done: End when every camera has ended, whatever the configuration says.
        verify: Takes the place of `model.verify` unless None.
        log_level: Takes the place of `log.level` after a reload unless None.

    Attributes:
        restart: The process is to be started again when `run` has ended.
        stuck: The model did not notice the request to stop: the process has to be ended without it.
    """

    def __init__(
        self,
        config: Config,
        open_answerer: OpenAnswerer,
        *,
        exit_when_done: bool = False,
        verify: bool | None = None,
        log_level: str | None = None,
    ) -> None:
        self._config, self._open_answerer, self._verify = config, open_answerer, verify
        self._asked_to_exit_when_done, self._log_level = exit_when_done, log_level
        self._log_format = config.log.format
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._commands = Commands(self._wake.set)
        self._switches = Switches.of_unit(self._wake.set)
        self._updates = Updates()
        self._jobs = JobQueue()
        self._reload: reload.Reload | None = None
        self._carried: list[Message] = []
        self._supervision = Supervision.from_environment(os.environ)
        self._state = ModelState.of_unit()
        self._history = ConfigHistory(state_directory())
        self._lock = ConfigLock()
        self.restart = False
        self.stuck = False

    @property
    def stopping(self) -> bool:
        """Whether `request_stop` was called."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Make `run` end soon. May be called from any thread."""
        self._stop.set()
        self._wake.set()

    def request_reload(self) -> None:
        """Read the configuration's file again, as the request `reload`; the outcome is logged. From any thread."""
        with suppress(RequestError):  # enough of these wait already
            self._commands.add(Command("reload", self._state.reload_ended))

    def run(self) -> int:
        """Run until stopped, or done.

        Returns:
            The exit code: 0, or 1 if answers were not delivered, or if with exit_when_done a camera failed.

        Raises:
            ConfigError: The scheme of a camera is not known, or the model would refuse a watch.
            MoedgeError: The bundle or the embedded broker is not usable.
        """
        check_config(self._config, exit_when_done=self._exit_when_done)
        self._supervision.starting("Checking the bundle and loading the model.")
        self._outlets = Outlets(self._config, self._commands)
        self._outlets.start()
        try:
            self._hold_configuration()
            return self._run()
        finally:
            self._outlets.stop()
            self._lock.close()

    def _run(self) -> int:
        self._state.begin()
        bundle = open_bundle(self._config.model, self._verify)
        setup = Setup(self._config, bundle, self._watched_answerer)
        try:
            before: Config | None = None
            while True:
                self._state.loaded(self._config.model.bundle, setup.bundle)
                self._history.keep(self._config)
                code = self._serve(setup, before)
                if self._reload is None:
                    return code
                before, self._config, self._reload = self._config, setup.config, None
                self._outlets.reconfigure(self._config)
                logging.getLogger().setLevel((self._log_level or self._config.log.level).upper())
        finally:
            self._state.close()
            setup.close(stuck=self.stuck)

    def _hold_configuration(self) -> None:
        path, spool = self._config.path, spool_directory(self._config)
        if path is not None and (spool is None or spool.resolve() != path.resolve().parent):  # which has its own lock
            self._lock.hold(path)

    @property
    def _exit_when_done(self) -> bool:
        return self._asked_to_exit_when_done or self._config.exit_when_done

    def _serve(self, setup: Setup, before: Config | None) -> int:
        """Run with one configuration, to the end or until `_reload` is set; the exit code."""
        config = self._config
        self._switches.configure(config)
        self._updates.configure(config)
        self._jobs = JobQueue()
        bridge = Bridge(config, setup.bundle, setup.address, self._jobs)
        watchers = {name: self._watcher(name, camera, bridge) for name, camera in config.cameras.items()}
        readers = {name: self._reader(name, camera, watchers[name], bridge) for name, camera in config.cameras.items()}
        bridge.readers, bridge.watchers = readers, watchers
        handler = RequestHandler(
            bridge.topics,
            self._jobs,
            readers,
            self._switches,
            publish=bridge.client.publish,
            answer=bridge.answer,
            readers={"health": bridge.health, "info": bridge.info, "config": config.public},
            snapshot=bridge.snapshot,
            commands=self._commands,
        )
        bridge.on_request = handler.handle
        bridge.restart_required = config.log.format != self._log_format
        bridge.on_asked = self._state.answer
        bridge.updates = self._updates.state
        worker = Worker(self._jobs, setup.answerer)
        self._outlets.serve(Serving(config, bridge, self._jobs, handler, worker))
        for message in self._carried:
            bridge.client.publish(message)
        bridge.start(self._switches.states(), before=before)
        worker.start()
        for reader in readers.values():
            reader.start()
        running = sum(reader.enabled for reader in readers.values())
        log.info("Device '%s' runs with %s, by '%s'.", config.device, counted(running, "camera"), config.source)
        self._supervision.ready(bridge.health)
        self._wait(bridge, readers, setup)
        if self._reload is not None or self.restart:
            self._supervision.reloading()
        else:
            self._supervision.stopping()
        done = self._reload is None and not self._stop.is_set()
        if done:
            self._await_delivery(bridge)
        self._outlets.rest()
        self._take_down(handler, worker, readers)
        bridge.publish_health()
        tell = self._change(self._reload, setup) if self._reload is not None else _nothing
        stays = self._reload is not None and reload.keeps_status(config, setup.config)
        if not stays:
            tell()
        if not bridge.close(FAREWELL_S, farewell=not stays) and not stays:
            log.error("The broker did not confirm the status 'stopped'.")
        if stays:
            tell()  # over the next connection, so that whoever hears it can send the next request
        self._carried = bridge.client.rest()
        if self._reload is not None:
            return 0
        undelivered = len(self._carried)
        if undelivered:
            log.error(
                "Answers, events or responses that no broker has acknowledged are lost: %d. Check the broker.",
                undelivered,
            )
        failed = any(reader.failed for reader in readers.values())
        return 1 if undelivered or (done and failed) else 0

    def _watched_answerer(self, bundle: Bundle, config: ModelConfig) -> Answerer:
        return self._supervision.answerer(self._open_answerer(bundle, config))

    def _change(self, change: reload.Reload, setup: Setup) -> Callable[[], None]:
        """Take over a new configuration now that nothing runs; a model that does not end needs a new process.

        Returns:
            What tells the sender.
        """
        if not self.stuck:
            return reload.apply(change, setup)
        change.new.discard()
        self.restart, self._reload = True, None
        error = RequestError(
            "The model did not end its answer, so the daemon restarts with the configuration that it had. "
            "Send the request again.",
            key="request.stuck",
        )
        return lambda: change.command.respond(error)

    def _wait(self, bridge: Bridge, readers: dict[str, CameraReader], setup: Setup) -> None:
        """Publish health until asked to stop or to reload, or until all cameras have ended if that ends the daemon."""
        interval_s = self._config.health.interval
        next_health_s = time.monotonic() + interval_s
        while not self._stop.is_set():
            self._switches.carry_out(partial(self._switch, bridge))
            done = all(reader.finished or not reader.enabled for reader in readers.values())
            if self._exit_when_done and done and self._jobs.idle:
                log.info("Every camera has ended.")
                return
            self._obey_commands(setup, bridge)
            if self._reload is not None or self._stop.is_set():
                return
            updating = self._updates.busy
            pause_s = max(0.0, next_health_s - time.monotonic())
            self._wake.wait(min(pause_s, UPDATE_STEP_S) if updating else pause_s)
            self._wake.clear()
            if updating:
                bridge.publish_update_state()
            if time.monotonic() >= next_health_s:
                bridge.publish_health()
                next_health_s += interval_s

    def _obey_commands(self, setup: Setup, bridge: Bridge) -> None:
        while self._reload is None and (command := self._commands.take()) is not None:
            if command.verb == "restart":
                log.info("Restarting, as a request asks for.")
                command.respond({"restarting": True})
                self.restart = True
                self.request_stop()
            elif command.verb == "backup":
                command.respond(_backed_up(setup.config, command, bridge))
            elif command.verb == "update":
                command.respond(self._start_update(command))
                bridge.publish_update_state()
            elif command.verb == "history":
                command.respond(self._history.told())
            else:
                self._reload = reload.prepare(
                    command, setup, self._history, exit_when_done=self._asked_to_exit_when_done, verify=self._verify
                )

    def _start_update(self, command: Command) -> Any | MoedgeError:
        try:
            return self._updates.start(check=command.check).model_dump(mode="json")
        except MoedgeError as error:
            return error

    def _await_delivery(self, bridge: Bridge) -> None:
        deadline_s = time.monotonic() + DELIVERY_S
        while bridge.client.backlog()[0] and time.monotonic() < deadline_s and not self._stop.wait(_STEP_S):
            pass

    def _take_down(self, handler: RequestHandler, worker: Worker, readers: dict[str, CameraReader]) -> None:
        for reader in readers.values():
            reader.stop()
        for job in self._jobs.close():
            handler.refuse(job)
        deadline_s = time.monotonic() + RELOAD_FINISH_S
        while self._reload is not None and not self._stop.is_set() and time.monotonic() < deadline_s:
            if worker.join(_STEP_S):
                break
        self.stuck = not worker.stop(finish_within_s=FINISH_S, give_up_after_s=CANCEL_S)
        for reader in readers.values():
            reader.join(CAMERA_STOP_S)

    def _watcher(self, name: str, camera: CameraConfig, bridge: Bridge) -> Watcher:
        watches = [watch for watch in self._config.watches if watch.camera == name]
        watcher = Watcher(
            name,
            self._watches(name),
            gate_of(camera, watches, self._config.time),
            self._jobs,
            bridge,
            lossless=policy_of(camera, gives_up=self._exit_when_done).lossless,
            new_identifier=bridge.new_identifier,
            clock_synced=clock_synced,
        )
        for (of, feature), on in self._switches.states().items():
            if of == name and feature != ENABLED:
                watcher.switch(feature, on)
        return watcher

    def _watches(self, camera: str) -> list[Watch]:
        """The watches of a camera, with the zones that are on."""
        config, off = self._config, self._switches.zones_off(camera)
        return [watch_of(config.cameras[camera], watch, off) for watch in config.watches if watch.camera == camera]

    def _switch(self, bridge: Bridge, camera: str, feature: str, on: bool) -> None:
        log.info("%s/%s is switched %s.", camera, feature, on_off(on))
        if feature == ENABLED:
            bridge.readers[camera].enable(on)
        else:
            bridge.watchers[camera].switch(feature, on)
            bridge.watchers[camera].look_at(self._watches(camera))
        bridge.switched(camera, feature, on)

    def _reader(self, name: str, camera: CameraConfig, watcher: Watcher, bridge: Bridge) -> CameraReader:
        intervals_s = [watch.interval for watch in self._config.watches if watch.camera == name]
        preparation = preparation_of(camera)
        return CameraReader(
            name,
            without_credentials(camera.source),
            lambda: self._supervision.source(name, camera, open_camera(camera, intervals_s, preparation)),
            watcher,
            policy=policy_of(camera, gives_up=self._exit_when_done),
            check=check_of(camera, preparation),
            on_state=bridge.camera_state,
            on_end=self._wake.set,
            enabled=self._switches.is_on(name),
        )


def _backed_up(config: Config, command: Command, bridge: Bridge) -> Any | MoedgeError:
    """What a request for a backup is answered with. As large as a client of ours takes it, and the broker."""
    waiting_bytes = bridge.client.waiting_bytes()
    if waiting_bytes > MAX_PACKET_BYTES:
        return RequestError(
            f"{waiting_bytes:,} bytes of answers and responses wait for the broker. Ask again when it has them.",
            key="request.busy",
        )
    largest = min(MAX_PACKET_BYTES, bridge.client.largest_packet_bytes or MAX_PACKET_BYTES)
    try:
        if config.path is None:
            raise RequestError("The configuration of this daemon is of no file.", key="request.no_config_file")
        return backup_response(config.path, hot_set=command.hot_set, largest_bytes=largest)
    except MoedgeError as error:
        return error


def _nothing() -> None:
    pass
