"""What moedge.yaml says about masks, zones, motion, times, freshness, priorities and alerts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from moedge_runtime.config import Config, load_config
from moedge_runtime.config.frames import is_numeric
from moedge_runtime.config.schema import config_schema
from moedge_runtime.daemon.cameras import gate_of, preparation_of, watch_of
from moedge_runtime.daemon.schedule import Priority
from moedge_runtime.errors import ConfigError
from moedge_runtime.frames.polygon import WHOLE, Box

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SQUARE = [[0.5, 0.5], [0.75, 0.5], [0.75, 0.75], [0.5, 0.75]]
CAMERA: dict[str, Any] = {
    "source": "rtsp://h/s",
    "masks": ["0,0,0.2,0,0.2,0.2", SQUARE],
    "crop": [0.25, 0.25, 1, 1],
    "zones": {"door": SQUARE},
    "motion": {"threshold": 20, "area": 0.01},
    "schedule": ["mon-fri 07:00-18:00"],
}
WATCH: dict[str, Any] = {
    "name": "w",
    "camera": "c",
    "question": "?",
    "json_schema": SCHEMA,
    "zones": ["door"],
    "refresh": "10m",
    "schedule": ["12:00-24:00", "sat 22:00-02:00"],
    "freshness": "30s",
    "priority": "high",
    "alert": {"field": "n", "above": 4, "clear": 2, "raise_after": 2, "cooldown": "1m"},
}


def load(directory: Path, camera: dict[str, Any], watch: dict[str, Any], **sections: Any) -> Config:
    content = {
        "version": 1,
        "device": "d",
        "model": {"bundle": "b"},
        "mqtt": {"url": "mqtt://h"},
        "cameras": {"c": {"source": "rtsp://h/s"} | camera},
        "watches": [{"name": "w", "camera": "c", "question": "?"} | watch],
        **sections,
    }
    (directory / "moedge.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    config = load_config(directory / "moedge.yaml", {})
    jsonschema.validate(content, config_schema())
    return config


def refusal(directory: Path, camera: dict[str, Any], watch: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(directory, camera, watch, **sections)
    return str(caught.value)


def test_everything_is_typed_and_published_as_it_was_written(tmp_path: Path) -> None:
    config = load(tmp_path, CAMERA, WATCH, time={"zone": "Europe/Berlin", "unsynced": "closed"})
    camera, watch = config.cameras["c"], config.watches[0]
    assert camera.masks[0] == ((0.0, 0.0), (0.2, 0.0), (0.2, 0.2))
    assert camera.crop == Box(0.25, 0.25, 1.0, 1.0)
    assert (watch.refresh, watch.freshness, watch.priority) == (600.0, 30.0, "high")
    public = json.loads(json.dumps(config.public()))
    assert public["cameras"]["c"]["masks"] == [[[0, 0], [0.2, 0], [0.2, 0.2]], SQUARE]
    assert public["cameras"]["c"]["crop"] == [0.25, 0.25, 1, 1]
    assert public["watches"][0]["alert"]["above"] == 4
    made = watch_of(camera, watch)
    view = made.view
    assert (view.left, view.top, view.right, view.bottom) == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))
    assert made.priority == Priority.HIGH
    gate_of(camera, config.watches, config.time)


def test_without_a_word_nothing_is_masked_cut_or_gated(tmp_path: Path) -> None:
    config = load(tmp_path, {}, {})
    camera, watch = config.cameras["c"], config.watches[0]
    assert preparation_of(camera).changes_nothing
    assert (camera.crop, camera.motion, watch.freshness, watch.priority) == (WHOLE, None, None, "normal")
    assert watch_of(camera, watch).view == WHOLE
    assert config.time.unsynced == "open"


def test_a_watch_may_see_all_of_the_picture_and_zones_may_reach_over_the_crop(tmp_path: Path) -> None:
    zones = {"door": [[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]}
    config = load(tmp_path, {"crop": [0.25, 0.25, 1, 1], "zones": zones}, {"zones": ["door"]})
    view = watch_of(config.cameras["c"], config.watches[0]).view
    assert (view.left, view.top) == (0.0, 0.0)
    assert (view.right, view.bottom) == pytest.approx((1 / 3, 1 / 3))
    config = load(tmp_path, {"zones": zones}, {"zones": ["door"], "view": "camera"})
    assert watch_of(config.cameras["c"], config.watches[0]).view == WHOLE


@pytest.mark.parametrize(
    ("camera", "watch", "problem"),
    [
        (
            {"masks": ["0,0,1,1"]},
            {},
            "cameras.c.masks[0]: got '0,0,1,1'; a polygon has 3 to 64 corners, this one has 2",
        ),
        (
            {"masks": [[[0, 0], [1, 1], [1, 0], [0, 1]]]},
            {},
            "cameras.c.masks[0]: the sides that begin at corners 1 and",
        ),
        ({"zones": {"a b": SQUARE}}, {}, "cameras.c.zones.a b: got 'a b'; use 1 to 64 of the characters"),
        ({"crop": [0.5, 0, 0.4, 1]}, {}, "cameras.c.crop: left must be less than right"),
        (
            {"crop": [0, 0, 0.4, 1], "zones": {"door": SQUARE}},
            {},
            "cameras.c: the zone 'door' lies outside of the crop [0, 0, 0.4, 1]; zones are fractions of the whole",
        ),
        ({"motion": {"threshold": 0}}, {}, "cameras.c.motion.threshold: got 0; should be greater than or equal to 1"),
        ({"motion": {"treshold": 9}}, {}, "cameras.c.motion.treshold: unknown key. Did you mean 'threshold'?"),
        ({"schedule": ["all day"]}, {}, "cameras.c.schedule[0]: got 'all day'; write days and times such as"),
        ({}, {"zones": ["door"]}, "watches[0].zones[0]: camera 'c' has no zone 'door'; known are: none"),
        ({}, {"view": "camera"}, "watches[0]: view: camera goes with zones"),
        ({}, {"motion": False, "refresh": 5}, "watches[0]: refresh goes with motion"),
        ({}, {"priority": "urgent"}, "watches[0].priority: got 'urgent'; should be 'high', 'normal' or 'low'"),
        ({}, {"state": "n"}, "watches[0]: state needs a json_schema that has this field"),
        (
            {},
            {"json_schema": SCHEMA, "state": "m"},
            "watches[0]: state is 'm', but the json_schema has no property 'm'",
        ),
        ({}, {"unit": "m³"}, "watches[0]: unit is for numbers: the json_schema does not make it one. Give it the type"),
        (
            {},
            {"unit": "m³", "json_schema": {**SCHEMA, "properties": {"n": {"type": "string"}}}, "state": "n"},
            "watches[0]: unit is for numbers: state is 'n', and the json_schema does not make it one. Give it the type",
        ),
        ({}, {"unit": "m³", "json_schema": SCHEMA}, "watches[0]: unit is for numbers: the json_schema does not"),
        ({}, {"unit": ""}, "watches[0].unit: got ''; "),
        ({}, {"enabled": "perhaps"}, "watches[0].enabled: got 'perhaps'; "),
        ({}, {"alert": {"field": "n", "above": 1}}, "watches[0]: an alert needs a json_schema that has its field"),
        (
            {},
            {"json_schema": SCHEMA, "alert": {"field": "m", "above": 1}},
            "watches[0]: alert.field is 'm', but the json_schema has no property 'm'",
        ),
        (
            {},
            {"json_schema": SCHEMA, "alert": {"field": "n"}},
            "watches[0].alert: give exactly one of equals, above and below",
        ),
        (
            {},
            {"json_schema": SCHEMA, "alert": {"field": "n", "above": 1, "clear": 2}},
            "watches[0].alert: clear=2 is more than above=1; make it less",
        ),
        (
            {},
            {"json_schema": SCHEMA, "alert": {"field": "n", "equals": 1, "clear": 2}},
            "watches[0].alert: clear goes with above or below",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, camera: dict[str, Any], watch: dict[str, Any], problem: str) -> None:
    assert problem in refusal(tmp_path, camera, watch)


def test_a_time_zone_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, {}, {}, time={"zone": "Europe/Atlantis"})
    assert "time.zone: got 'Europe/Atlantis'; this machine knows no such time zone" in text
    assert "knows no such time zone" in refusal(tmp_path, {}, {}, time={"zone": "../../etc/passwd"})


def test_everything_wrong_is_told_together(tmp_path: Path) -> None:
    text = refusal(tmp_path, {"masks": ["0,0"], "crop": [1]}, {"zones": ["x"], "freshness": 0})
    assert " has 4 errors:" in text


def test_what_keys_ask_of_each_other_is_told_beside_a_wrong_key(tmp_path: Path) -> None:
    watch = {
        "interval": "5 parsecs",
        "motion": False,
        "refresh": 5,
        "view": "camera",
        "state": "n",
        "unit": "m",
        "alert": {"field": "n", "raise_after": 0},
    }
    text = refusal(tmp_path, {"fps": 0, "crop": [0, 0, 0.4, 1], "zones": {"door": SQUARE}}, watch, web={"port": 0})
    for problem in (
        "watches[0].interval: got '5 parsecs'; ",
        "watches[0]: view: camera goes with zones",
        "watches[0]: refresh goes with motion",
        "watches[0]: state needs a json_schema",
        "watches[0].alert: give exactly one of equals, above and below",
        "watches[0].alert.raise_after: got 0; ",
        "cameras.c.fps: got 0; ",
        "cameras.c: the zone 'door' lies outside of the crop",
        "web: give exactly one of token and token_file",
        "web.port: got 0; ",
    ):
        assert problem in text
    assert " has 10 errors:" in text


def test_a_wrong_key_brings_no_problem_of_those_that_go_with_it(tmp_path: Path) -> None:
    watch = {"json_schema": 5, "alert": {"field": "n", "above": "much"}, "state": "n", "unit": "m", "view": "camera"}
    text = refusal(tmp_path, {}, {**watch, "zones": 5}, web={"token": "short"})
    assert " has 4 errors:" in text


def test_the_example_of_four_cameras_is_valid(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples/four_cameras/moedge.yaml"
    environment = dict.fromkeys(("BUNDLE", "VIDEO", "COMMAND"), "x")
    addresses = {"BROKER_URL": "mqtt://h", "RTSP_URL": "rtsp://h/s", "HTTP_URL": "http://h/s"}
    config = load_config(example, environment | addresses)
    assert [camera.source.partition(":")[0] for camera in config.cameras.values()] == ["rtsp", "http", "file", "exec"]
    assert {watch.camera for watch in config.watches} == set(config.cameras)


METER = r"^[0-9]{1,9}(\.[0-9]{1,4})?$"


@pytest.mark.parametrize(
    ("schema", "numeric"),
    [
        ({"type": "number"}, True),
        ({"type": "integer", "minimum": 0}, True),
        ({"type": ["number", "null"]}, True),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, True),
        ({"enum": [1, 2.5, None]}, True),
        ({"const": 4}, True),
        ({"type": "string", "pattern": METER}, True),
        ({"anyOf": [{"type": "string", "pattern": METER}, {"type": "null"}]}, True),
        ({"type": "string", "pattern": r"^-?\d+$"}, True),
        ({"type": "string", "pattern": "[0-9]+"}, False),
        ({"type": "string", "pattern": "^[0-9]+ m3$"}, False),
        ({"type": "string"}, False),
        ({"type": "boolean"}, False),
        ({"type": ["number", "string"]}, False),
        ({"enum": [1, "many"]}, False),
        ({"enum": [True, False]}, False),
        ({"const": None}, False),
        ({"type": "null"}, False),
        ({"$ref": "#/$defs/n"}, False),
        ({}, False),
    ],
)
def test_what_a_json_schema_makes_a_number(schema: dict[str, Any], numeric: bool) -> None:
    assert is_numeric(None, schema) is numeric
    inside = {"type": "object", "properties": {"n": {"type": "object", "properties": {"m": schema}}}}
    assert is_numeric("n.m", inside) is numeric
    assert not is_numeric("n.other", inside)
    assert not is_numeric("other", inside)


def test_a_pack_takes_a_unit(tmp_path: Path) -> None:
    watch = {"name": "water", "camera": "c", "pack": "meter_reading", "unit": "m³"}
    text = yaml.safe_dump(
        {
            "version": 1,
            "device": "d",
            "model": {"bundle": "b"},
            "mqtt": {"url": "mqtt://h"},
            "cameras": {"c": {"source": "rtsp://h/s"}},
            "watches": [watch],
        }
    )
    (tmp_path / "moedge.yaml").write_text(text)
    assert load_config(tmp_path / "moedge.yaml").watches[0].unit == "m³"
