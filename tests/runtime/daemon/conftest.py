"""Fixtures: brokers, a bundle, a clip."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures_checkpoint import save_checkpoint
from moedge_runtime.mqtt.address import BrokerAddress
from runtime.bundle.sample import write_sample
from runtime.camera.videos import write_video
from runtime.mqtt.brokers import running_embedded, running_mosquitto
from runtime.mqtt.listener import Listener


@pytest.fixture(scope="session", params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerAddress]:
    if request.param == "mosquitto":
        yield from running_mosquitto(tmp_path_factory.mktemp("mosquitto"))
    else:
        yield from running_embedded()


@pytest.fixture(autouse=True)
def _nothing_retained(request: pytest.FixtureRequest) -> None:
    """Remove what earlier tests left on the shared broker."""
    if "broker" not in request.fixturenames:
        return
    with Listener(request.getfixturevalue("broker"), "t/#") as listener:
        listener.publish("t/end", b"end")
        listener.message("t/end")
        for topic in {message.topic for message in listener.messages if message.retain}:
            listener.publish(topic, b"", retain=True)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("bundles") / "sample")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as an int4 bundle."""
    from moedge_export.options import ExportOptions
    from moedge_export.pipeline import export_bundle

    checkpoint = tmp_path_factory.mktemp("daemon") / "checkpoint"
    save_checkpoint(checkpoint)
    destination = checkpoint.with_name("tiny-int4")
    export_bundle(checkpoint, destination, ExportOptions(precision="int4", form="paged"))
    return destination


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with panel.mp4: 40 frames, 10 a second."""
    write_video(tmp_path / "panel.mp4", frames=40, fps=10)
    return tmp_path
