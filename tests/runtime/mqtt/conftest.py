"""Fixtures: a broker of either kind, and mosquitto alone."""

from collections.abc import Iterator

import pytest
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.mqtt.brokers import running_embedded, running_mosquitto


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    """Both brokers have to keep the same contract."""
    if request.param == "mosquitto":
        yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))
    else:
        yield from running_embedded()


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))
