"""What outlives a reload as long as its part of the configuration stays the same: the model and the embedded broker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config, ModelConfig
from moedge_runtime.daemon.answerer import Answerer
from moedge_runtime.daemon.preflight import check_config
from moedge_runtime.errors import MoedgeError
from moedge_runtime.mqtt.address import BrokerAddress, parse_broker_url
from moedge_runtime.mqtt.broker import EmbeddedBroker

OpenAnswerer = Callable[[Bundle, ModelConfig], Answerer]

log = logging.getLogger(__name__)


class Setup:
    """A loaded model, and a broker if the daemon has its own.

    Args:
        config: The configuration.
        bundle: Of its model, verified.
        open_answerer: Loads the model.

    Attributes:
        config: The one that is in force.
        bundle: Of its model.
        answerer: The loaded model.
        address: Where the broker is.

    Raises:
        ConfigError: The model would refuse a watch.
        MoedgeError: The model or the embedded broker cannot be started.
    """

    def __init__(self, config: Config, bundle: Bundle, open_answerer: OpenAnswerer) -> None:
        self.config, self.bundle, self._open_answerer = config, bundle, open_answerer
        self.answerer = open_answerer(bundle, config.model)
        self._broker: EmbeddedBroker | None = None
        try:
            check_config(config, self.answerer.check)
            self.address = self._start_broker(config)
        except BaseException:
            self.answerer.close()
            raise
        self.answerer.keep_cameras(config.cameras)

    def change(self, config: Config, bundle: Bundle) -> bool:
        """Take another configuration, whose watches fit its model if that stays the same.

        Args:
            config: The new one.
            bundle: Of its model.

        Returns:
            Whether the model was loaded again.

        Raises:
            MoedgeError: A part cannot be started; everything is as it was before.
        """
        before, loads = self.config, config.model != self.config.model or bundle is not self.bundle
        if loads:
            self._load(config, bundle)
        if config.mqtt.embedded != before.mqtt.embedded:
            self._stop_broker()
            try:
                self.address = self._start_broker(config)
            except MoedgeError:
                self.address = self._start_broker(before)
                if loads:
                    self._load(before, self.bundle)
                raise
        elif config.mqtt.embedded is None:
            self.address = parse_broker_url(config.mqtt.url or "")
        self.config, self.bundle = config, bundle
        self.answerer.keep_cameras(config.cameras)
        return loads

    def close(self, *, stuck: bool) -> None:
        """Stop the broker, and the model unless it is `stuck` in a question."""
        self._stop_broker()
        if not stuck:
            self.answerer.close()

    def _load(self, config: Config, bundle: Bundle) -> None:
        """Load another model in the place of the loaded one, which comes back if that fails."""
        log.info("Loading the model '%s'.", bundle.path)
        self.answerer.close()
        try:
            answerer = self._open_answerer(bundle, config.model)
            try:
                check_config(config, answerer.check)
            except MoedgeError:
                answerer.close()
                raise
        except MoedgeError:
            self.answerer = self._open_answerer(self.bundle, self.config.model)
            raise
        self.answerer = answerer

    def _start_broker(self, config: Config) -> BrokerAddress:
        embedded = config.mqtt.embedded
        if embedded is None:
            return parse_broker_url(config.mqtt.url or "")
        broker = EmbeddedBroker(embedded.host, embedded.port)
        address = broker.start()
        self._broker = broker
        return address

    def _stop_broker(self) -> None:
        if self._broker is not None:
            self._broker.stop()
            self._broker = None
