import json
from pathlib import Path

import yaml
from click.testing import CliRunner
from devices.fleet.devices import device
from devices.fleet.sample import FLEET, sample, write
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.load import Fleet
from moedge_devices.fleet.show import layer_of, show_text


def test_the_shown_text_is_the_configuration_with_the_place_of_every_value(tmp_path: Path) -> None:
    fleet = sample(tmp_path)
    text = show_text(fleet, fleet.devices["panel-01"])
    assert yaml.safe_load(text) == fleet.devices["panel-01"].values
    written = FLEET.splitlines()
    places = {
        "  memory: 6G": ("defaults", "memory: 6G"),
        "  interval: 30": ("sites.berlin", "interval: 30"),
        "    interval: 20s": ("sites.berlin.groups.press", "interval: 20s"),
        "    username: moedge": ("sites.berlin.groups.press.devices.panel-01", "username: moedge"),
    }
    for start, (layer, source) in places.items():
        line = next(line for line in text.splitlines() if line.startswith(start))
        number = next(number for number, content in enumerate(written, 1) if source in content)
        assert line.endswith(f"# {layer}, line {number}"), line
    assert all("# " in line for line in text.splitlines() if not line.endswith(":") and line != "version: 1")


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.text(max_size=9)))
def test_whatever_a_value_is_the_text_stays_yaml(question: str, schema: dict[str, object]) -> None:
    value = question.strip() or "x"
    if any("\ud800" <= character <= "\udfff" for character in value + "".join(map(str, schema.items()))):
        return
    shown = device({"watches": [{"name": "a", "question": value, "json_schema": schema}]})
    text = show_text(Fleet(Path("fleet.yaml"), {"d": shown}, {(): 1}), shown)
    assert yaml.safe_load(text) == {**shown.values, "device": "d"}


def test_json_lists_every_value_with_layer_and_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["show", "panel-02", "-f", str(write(tmp_path)), "--json"])
    shown = json.loads(result.output)
    assert shown["config"]["watches"] == [
        {"name": "level", "camera": "gate", "question": "How full is it?", "interval": "20s"}
    ]
    origins = {origin["path"]: (origin["value"], origin["layer"], origin["line"]) for origin in shown["origins"]}
    assert origins["config.model.memory"] == ("6G", "defaults", 6)
    assert origins["config.watches.level.interval"] == ("20s", "sites.berlin.groups.press", 19)
    assert origins["update.channel"] == ("stable", "defaults", 4)


def test_layers_are_told_from_what_is_in_them() -> None:
    assert layer_of(("defaults", "config", "log")) == "defaults"
    assert layer_of(("sites", "a", "config", "cameras", "devices", "fps")) == "sites.a"
    assert layer_of(("sites", "a", "groups", "b", "config")) == "sites.a.groups.b"
    assert layer_of(("sites", "a", "groups", "b", "devices", "c")) == "sites.a.groups.b.devices.c"
