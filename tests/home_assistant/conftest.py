"""Fixtures: Home Assistant on a mosquitto, and a device beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from home_assistant.device import Device
from home_assistant.instance import HomeAssistant
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.bundle.sample import write_sample
from runtime.mqtt.brokers import running_mosquitto

CAMERA = "gate"


@pytest.fixture(scope="session")
def program() -> Path:
    """`hass` of the release that `make test-home-assistant` has installed."""
    if "MOEDGE_HASS" not in os.environ:
        pytest.skip("needs Home Assistant: `make test-home-assistant` installs it")
    return Path(os.environ["MOEDGE_HASS"]).absolute()


@pytest.fixture(scope="session")
def broker(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))


@pytest.fixture(scope="session")
def running_home(
    program: Path, broker: BrokerAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HomeAssistant]:
    home = HomeAssistant(program, tmp_path_factory.mktemp("home-assistant"))
    try:
        home.start(broker)
        home.complaints()
        yield home
    finally:
        home.stop()


@pytest.fixture
def home(running_home: HomeAssistant) -> Iterator[HomeAssistant]:
    """Home Assistant, which has nothing to complain about at the end."""
    yield running_home
    assert running_home.complaints() == []


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("bundles") / "sample")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of the device: the test's."""
    return request.node.originalname.removeprefix("test_")[:64]


@pytest.fixture
def device(name: str, home: HomeAssistant, broker: BrokerAddress, tmp_path: Path, bundle: Path) -> Device:
    """A device of the test's own; it does not run yet."""
    return Device(name, home, broker, tmp_path, bundle)


@pytest.fixture
def camera() -> str:
    """Of the camera that runs."""
    return CAMERA


@pytest.fixture(autouse=True)
def _running(device: Device, camera: str) -> Iterator[None]:
    with device.running(camera):
        yield
