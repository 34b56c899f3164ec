"""A mosquitto for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.brokers import running_mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[BrokerAddress]:
    """Of its own for every test: what one has stored is no matter of the next."""
    yield from running_mosquitto(tmp_path)
