import copy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from devices.fleet.devices import device
from devices.fleet.layer_strategies import CONFIG
from devices.fleet.sample import FLEET, sample, write
from hypothesis import given
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.diff import ABSENT, Change, consequences, diff_devices, diff_fleets, diff_text, meaning


def patched(old: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    """`old` with `changes` made: written without the code under test."""
    new = copy.deepcopy(old)
    new["watches"] = {watch["name"]: watch for watch in new["watches"]}
    for change in changes:
        assert change.path[0] == "config"
        where = new
        for part in change.path[1:-1]:
            where = where[part]
        last = change.path[-1]
        assert where.get(last, ABSENT) == change.old
        if change.new is ABSENT:
            del where[last]
        else:
            where[last] = change.new
    return new


@given(CONFIG, CONFIG)
def test_the_changes_are_exactly_what_makes_the_old_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = device(old), device(new)
    expected = meaning(after)
    expected["watches"] = {watch["name"]: watch for watch in expected["watches"]}
    assert patched(meaning(before), diff_devices(before, after)) == expected


@given(CONFIG, CONFIG)
def test_the_way_back_is_the_same_changes_turned_round(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = device(old), device(new)
    there = {(change.path, repr(change.old), repr(change.new)) for change in diff_devices(before, after)}
    back = {(change.path, repr(change.new), repr(change.old)) for change in diff_devices(after, before)}
    assert there == back


@given(CONFIG)
def test_nothing_differs_from_itself(config: dict[str, Any]) -> None:
    assert diff_devices(device(config), device(copy.deepcopy(config))) == []


def test_another_way_to_write_the_same_is_no_change(tmp_path: Path) -> None:
    old = sample(tmp_path)
    text = FLEET.replace("interval: 1m}", "interval: 60, max_tokens: 256}").replace("memory: 6G", "memory: 6144M")
    assert diff_fleets(old, sample(tmp_path, text)).empty


def test_another_system_is_said(tmp_path: Path) -> None:
    old, new = (FLEET.replace("defaults:\n", f'defaults:\n  system: "{version}"\n') for version in ("1.0", "1.1"))
    text = diff_text(diff_fleets(sample(tmp_path, old), sample(tmp_path, new)))
    assert "is to have another system" in text and "system: 1.0 -> 1.1" in text


def test_devices_with_the_same_changes_are_said_together(tmp_path: Path) -> None:
    old = sample(tmp_path)
    text = FLEET.replace("memory: 6G", "memory: 5G").replace("remove: [watches.lamps]", "remove: []")
    text = text.replace("          panel-04:", "          panel-05:").replace("{channel: stable}", "{channel: beta}")
    diff = diff_fleets(old, sample(tmp_path, text))
    assert diff.added == ["panel-05"] and diff.removed == ["panel-04"]
    lines = diff_text(diff).splitlines()
    assert lines[:3] == [
        "+ panel-05: new",
        "- panel-04: gone",
        "~ 2 devices (panel-01, panel-03): loads the model again, is updated from elsewhere or at other times",
    ]
    assert "    config.model.memory: 6442450944 -> 5368709120" in lines
    assert [line for line in lines if "config.watches.lamps: new, {" in line]
    assert "    update.channel: stable -> beta" in lines


def test_bundle_and_windows_are_said_key_by_key(tmp_path: Path) -> None:
    text = FLEET.replace('version: "2026.11"', 'version: "2026.12"').replace(
        "{channel: stable}", '{channel: stable, windows: [{days: [mon], start: "02:00", end: "04:00"}]}'
    )
    lines = diff_text(diff_fleets(sample(tmp_path), sample(tmp_path, text))).splitlines()
    window = '{"days": ["mon"], "start": "02:00", "end": "04:00", "timezone": "UTC"}'
    assert lines[1:] == ["    bundle.version: 2026.11 -> 2026.12", f"    update.windows: null -> [{window}]"]
    back = diff_text(diff_fleets(sample(tmp_path), sample(tmp_path, FLEET.replace("  bundle: {name", "  # {name"))))
    assert "    bundle: {" in back and back.splitlines()[1].endswith(" -> null")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("memory: 6G", "memory: 5G"), ["loads the model again"]),
        (("interval: 1m", "interval: 2m"), ["keeps its model loaded"]),
        (
            ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1884"),
            ["moves to another broker or topic", "keeps its model loaded"],
        ),
        (('version: "2026.11"', 'version: "2026.12"'), ["is to have another bundle"]),
        (("      press:", "      presses:"), ["belongs elsewhere in the fleet"]),
    ],
)
def test_what_a_change_means_is_said(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    changed = diff_fleets(sample(tmp_path), sample(tmp_path, FLEET.replace(*change))).changed["panel-01"]
    assert consequences(changed) == words


@pytest.mark.parametrize(
    ("change", "code"), [(("", ""), 0), (("memory: 6G", "memory: 5G"), 1), (("memory: 6G", "memory: x"), 2)]
)
def test_the_exit_code_is_that_of_diff(tmp_path: Path, change: tuple[str, str], code: int) -> None:
    paths = [write(tmp_path, FLEET, "old.yaml"), write(tmp_path, FLEET.replace(*change), "new.yaml")]
    result = CliRunner().invoke(command, ["diff", *map(str, paths), "--json"], standalone_mode=False)
    assert (result.return_value if result.exception is None else result.exception.exit_code) == code
    if code == 1:
        assert '{"path": "config.model.memory", "old": 6442450944, "new": 5368709120}' in result.output
