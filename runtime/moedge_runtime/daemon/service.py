"""The composition root: opens the model, then the broker, then the cameras, and takes them down in the other order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.config import CameraConfig, Config, ModelConfig, WatchConfig
from moedge_runtime.config.camera import without_credentials
from moedge_runtime.daemon.answerer import Answerer
from moedge_runtime.daemon.bridge import Bridge
from moedge_runtime.daemon.cameras import check_of, open_camera, policy_of
from moedge_runtime.daemon.job_queue import JobQueue
from moedge_runtime.daemon.preflight import check_config, question_of
from moedge_runtime.daemon.reader import CameraReader, Watch
from moedge_runtime.daemon.request_handler import RequestHandler
from moedge_runtime.daemon.supervision import Supervision
from moedge_runtime.daemon.worker import Worker
from moedge_runtime.mqtt.address import BrokerAddress, parse_broker_url
from moedge_runtime.mqtt.broker import EmbeddedBroker

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

OpenAnswerer = Callable[[Bundle, ModelConfig], Answerer]

log = logging.getLogger(__name__)


class Daemon:
    """`moedge run`.

    Args:
        config: The configuration.
        open_answerer: Loads the model; called after the bundle was verified.
        exit_when_done: End when every camera has ended, whatever the configuration says.
        verify: Takes the place of `model.verify` unless None.
    """

    def __init__(
        self,
        config: Config,
        open_answerer: OpenAnswerer,
        *,
        exit_when_done: bool = False,
        verify: bool | None = None,
    ) -> None:
        self._config, self._open_answerer, self._verify = config, open_answerer, verify
        self._exit_when_done = exit_when_done or config.exit_when_done
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._jobs = JobQueue()
        self._supervision = Supervision.from_environment(os.environ)
        self.stuck = False
        """The model did not notice the request to stop: the process has to be ended without it."""

    @property
    def stopping(self) -> bool:
        """Whether `request_stop` was called."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Make `run` end soon. May be called from any thread."""
        self._stop.set()
        self._wake.set()

    def run(self) -> int:
        """Run until stopped, or done.

        Returns:
            The exit code: 0, or 1 if answers were not delivered, or if with exit_when_done a camera failed.

        Raises:
            ConfigError: The scheme of a camera is not known, or the model would refuse a watch.
            MoedgeError: The bundle or the embedded broker is not usable.
        """
        config = self._config
        check_config(config, exit_when_done=self._exit_when_done)
        self._supervision.starting("Checking the bundle and loading the model.")
        bundle = open_bundle(config.model, self._verify)
        answerer = self._supervision.answerer(self._open_answerer(bundle, config.model))
        try:
            check_config(config, answerer.check)
            embedded = _embedded_broker(config)
            try:
                address = embedded.start() if embedded else parse_broker_url(config.mqtt.url or "")
                return self._serve(bundle, answerer, address)
            finally:
                if embedded:
                    embedded.stop()
        finally:
            if not self.stuck:
                answerer.close()

    def _serve(self, bundle: Bundle, answerer: Answerer, address: BrokerAddress) -> int:
        bridge = Bridge(self._config, bundle, address, self._jobs)
        readers = {
            name: self._reader(name, camera, bridge) for name, camera in self._config.cameras.items() if camera.enabled
        }
        bridge.readers = readers
        handler = RequestHandler(
            bridge.topics,
            self._jobs,
            readers,
            publish=bridge.client.publish,
            answer=bridge.answer,
            readers={"health": bridge.health, "info": bridge.info, "config": self._config.public},
        )
        bridge.on_request = handler.handle
        worker = Worker(self._jobs, answerer)
        bridge.start()
        worker.start()
        for reader in readers.values():
            reader.start()
        log.info("Device '%s' runs with %d cameras.", self._config.device, len(readers))
        self._supervision.ready(bridge.health)
        self._wait(bridge, readers)
        self._supervision.stopping()
        done = not self._stop.is_set()
        if done:
            self._await_delivery(bridge)
        self._take_down(bridge, handler, worker, readers)
        undelivered = bridge.client.backlog()[0]
        if undelivered:
            log.error(
                "Answers or responses that no broker has acknowledged are lost: %d. Check the broker.", undelivered
            )
        failed = any(reader.failed for reader in readers.values())
        return 1 if undelivered or (done and failed) else 0

    def _wait(self, bridge: Bridge, readers: dict[str, CameraReader]) -> None:
        """Publish health until asked to stop, or until all cameras have ended if that ends the daemon."""
        interval_s = self._config.health.interval
        next_health_s = time.monotonic() + interval_s
        while not self._stop.is_set():
            if self._exit_when_done and all(reader.finished for reader in readers.values()) and self._jobs.idle:
                log.info("Every camera has ended.")
                return
            self._wake.wait(max(0.0, next_health_s - time.monotonic()))
            self._wake.clear()
            if time.monotonic() >= next_health_s:
                bridge.publish_health()
                next_health_s += interval_s

    def _await_delivery(self, bridge: Bridge) -> None:
        deadline_s = time.monotonic() + DELIVERY_S
        while bridge.client.backlog()[0] and time.monotonic() < deadline_s and not self._stop.wait(0.05):
            pass

    def _take_down(
        self, bridge: Bridge, handler: RequestHandler, worker: Worker, readers: dict[str, CameraReader]
    ) -> None:
        for reader in readers.values():
            reader.stop()
        for job in self._jobs.close():
            handler.refuse(job)
        self.stuck = not worker.stop(finish_within_s=FINISH_S, give_up_after_s=CANCEL_S)
        for reader in readers.values():
            reader.join(CAMERA_STOP_S)
        bridge.publish_health()
        if not bridge.client.close(FAREWELL_S):
            log.error("The broker did not confirm the status 'stopped'.")

    def _reader(self, name: str, camera: CameraConfig, bridge: Bridge) -> CameraReader:
        watches = [_watch(watch) for watch in self._config.watches if watch.camera == name]
        return CameraReader(
            name,
            without_credentials(camera.source),
            lambda: self._supervision.source(
                name, camera, open_camera(camera, [watch.interval_s for watch in watches])
            ),
            watches,
            self._jobs,
            policy=policy_of(camera, gives_up=self._exit_when_done),
            check=check_of(camera),
            deliver=bridge.deliver,
            on_state=bridge.camera_state,
            on_due=bridge.watches_due,
            on_end=self._wake.set,
        )


def open_bundle(config: ModelConfig, verify: bool | None = None) -> Bundle:
    """Open the bundle and check it as `verify`, or if that is None the configuration, says: see ModelConfig.verify.

    Raises:
        BundleError: It cannot be used.
    """
    bundle = Bundle.open(config.bundle)
    verify = config.verify if verify is None else verify
    if verify is not False:
        began_s = time.monotonic()
        verify_bundle(bundle, experts=verify is True)
        log.info("Bundle '%s' is as it was written (checked in %.1f s).", bundle.path, time.monotonic() - began_s)
    return bundle


def _embedded_broker(config: Config) -> EmbeddedBroker | None:
    embedded = config.mqtt.embedded
    return EmbeddedBroker(embedded.host, embedded.port) if embedded else None


def _watch(config: WatchConfig) -> Watch:
    return Watch(config.name, question_of(config), config.interval, config.publish_reasoning)
