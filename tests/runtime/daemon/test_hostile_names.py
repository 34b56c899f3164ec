"""Names in a configuration that try to be more than one level of a topic."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from moedge_runtime.config import load_config
from moedge_runtime.errors import ConfigError
from moedge_runtime.mqtt.topics import RESERVED_LEVELS, Topics, check_topic

HOSTILE = [
    "",
    "gate/answer",
    "../other/gate",
    "+",
    "#",
    "gate#",
    "$SYS",
    "gate\n",
    "gate\x00",
    "gate gate",
    "tür",
    "x" * 65,
]
WATCH = {"name": "w", "camera": "gate", "question": "?", "interval": 1}


def config(**changes: object) -> dict[str, object]:
    sections: dict[str, object] = {
        "version": 1,
        "device": "d",
        "model": {"bundle": "b"},
        "mqtt": {"url": "mqtt://h"},
        "cameras": {"gate": {"source": "file:x.mp4"}},
        "watches": [WATCH],
    }
    return sections | changes


def refused(directory: Path, sections: dict[str, object]) -> str:
    path = directory / "moedge.yaml"
    path.write_text(yaml.safe_dump(sections))
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_device_camera_watch_or_zone_reaches_another_topic(tmp_path: Path, name: str) -> None:
    camera = {"source": "file:x.mp4"}
    assert "device" in refused(tmp_path, config(device=name))
    assert "cameras" in refused(tmp_path, config(cameras={name: camera}, watches=[WATCH | {"camera": name}]))
    assert "watches[0].name" in refused(tmp_path, config(watches=[WATCH | {"name": name}]))
    zones = {"gate": camera | {"zones": {name: "0,0,1,0,1,1"}}}
    assert "zones" in refused(tmp_path, config(cameras=zones))


@pytest.mark.parametrize("name", RESERVED_LEVELS)
def test_no_camera_takes_the_place_of_what_the_device_says(tmp_path: Path, name: str) -> None:
    cameras = {name: {"source": "file:x.mp4"}}
    assert f"cameras.{name}" in refused(tmp_path, config(cameras=cameras, watches=[WATCH | {"camera": name}]))


@pytest.mark.parametrize("base", ["a/+", "#", "$share/g/moedge", "a\x00b", "x" * 70_000])
def test_no_base_topic_listens_elsewhere(tmp_path: Path, base: str) -> None:
    assert "mqtt.base_topic" in refused(tmp_path, config(mqtt={"url": "mqtt://h", "base_topic": base}))


@pytest.mark.parametrize("name", ["gate", "A-z_0", "x" * 64])
def test_a_name_that_is_taken_is_exactly_one_level(tmp_path: Path, name: str) -> None:
    path = tmp_path / "moedge.yaml"
    path.write_text(
        yaml.safe_dump(config(cameras={name: {"source": "file:x.mp4"}}, watches=[WATCH | {"camera": name}]))
    )
    assert list(load_config(path, {}).cameras) == [name]
    topics = Topics("t", "d")
    for topic in (topics.camera_status(name), topics.answer(name), topics.event(name), topics.snapshot(name)):
        check_topic(topic)
        assert topic.split("/")[:3] == ["t", "d", name] and len(topic.split("/")) == 4
