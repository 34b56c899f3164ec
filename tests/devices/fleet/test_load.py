import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from devices.fleet.sample import FLEET, sample, write
from moedge_devices.fleet import load_fleet
from moedge_devices.fleet.cli import fleet as command
from moedge_runtime.cli.main import main
from moedge_runtime.config import load_config
from moedge_runtime.errors import ConfigError

PLANTED = """\
version: 1
defaults:
  update: {channel: stable, windws: []}  # 1
  bundle: {name: qwen3-vl-30b-int4}  # 2
  config:
    model: {bundle: /var/lib/moedge/qwen, memry: 6G}  # 3
    mqtt:
      url: mqtts://broker.example:8883
      username: moedge
      password: hunter2  # 4
      keepalive: 2  # 5
    watches:
      - name: level
        camera: gaet  # 6
        question: How full is it?
        interval: 10 parsecs  # 7
      - name: lamps
        camera: gate
        question: ""  # 8
        json_schema: lamps.json  # 9
sites:
  berlin:
    profile: orin-nano-8bg  # 10
    config:
      device: panel  # 11
      log: {level: verbose}  # 12
    groups:
      press:
        remove: [watches.lamp]  # 13
        update:
          windows:
            - {start: 12:30, end: "25:00", timezone: Europe/Berlln}  # 14 15 16
        devices:
          panel-01:
            config:
              cameras:
                gate: {source: "rtsp://moedge:hunter2@10.0.0.1/s"}  # 17
          panel-02:
            config:
              cameras:
                gate: {source: "rtsp://10.0.0.2/s", fps: 0}  # 18
                gate2: {transport: tcp}  # 19
      paint:
        devices:
          panel-01:  # 20
            config: {cameras: {gate: {source: "rtsp://10.0.0.3/s"}}}
"""

FOUND = {
    1: ("defaults.update.windws", "unknown key. Did you mean 'windows'?"),
    2: ("defaults.bundle.version", "this key is required"),
    3: ("defaults.config.model.memry", "unknown key. Did you mean 'memory'?"),
    4: ("defaults.config.mqtt.password", "no secret may be in a fleet file: write ${NAME} and set the"),
    5: ("defaults.config.mqtt.keepalive", "got 2; should be greater than or equal to 5"),
    6: ("defaults.config.watches[0].camera", "there is no camera 'gaet'; known are: gate. Did you mean 'gate'?"),
    7: ("defaults.config.watches[0].interval", "got '10 parsecs'; write seconds as a number"),
    8: ("defaults.config.watches[1].question", "got ''; it has to have at least 1 character"),
    9: ("defaults.config.watches[1].json_schema", "got 'lamps.json'; the JSON Schema"),
    10: ("sites.berlin.profile", "there is no profile 'orin-nano-8bg'. Did you mean 'orin-nano-8gb'?"),
    11: ("sites.berlin.config.device", "the device's name is its key in the fleet file; remove it"),
    12: ("sites.berlin.config.log.level", "got 'verbose'; should be 'debug', 'info', 'warning' or 'error'"),
    13: ("sites.berlin.groups.press.remove[0]", "nothing is inherited as 'lamp'. Did you mean 'lamps'?"),
    14: ("sites.berlin.groups.press.update.windows[0].start", "got 750; write the time in quotes"),
    15: ("sites.berlin.groups.press.update.windows[0].end", "got '25:00'; write hours and minutes"),
    16: ("sites.berlin.groups.press.update.windows[0].timezone", "Did you mean 'Europe/Berlin'?"),
    17: ("sites.berlin.groups.press.devices.panel-01.config.cameras.gate.source", "no secret may be in a fleet file"),
    18: ("sites.berlin.groups.press.devices.panel-02.config.cameras.gate.fps", "got 0; should be greater than or"),
    19: ("sites.berlin.groups.press.devices.panel-02.config.cameras.gate2.source", "this key is required"),
    20: ("sites.berlin.groups.paint.devices.panel-01", "there is another device 'panel-01' in sites.berlin.groups"),
}


def refusal(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_fleet(write(directory, text))
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_twenty_mistakes_are_all_found_in_one_run_at_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moedge_devices.fleet.load.profile_names", lambda: frozenset({"orin-nano-8gb", "rpi-5-8gb"}))
    head, *found = refusal(tmp_path, PLANTED)
    planted_at = {
        int(number): line
        for line, text in enumerate(PLANTED.splitlines(), 1)
        if "  # " in text
        for number in text.rpartition("# ")[2].split()
    }
    assert planted_at.keys() == FOUND.keys()
    for number, (path, text) in FOUND.items():
        matching = [line for line in found if line.startswith(f"  line {planted_at[number]}: {path}: ")]
        assert len(matching) == 1, (number, path, found)
        assert text in matching[0]
    assert len(found) == len(FOUND), found
    assert head.endswith("has 20 errors:")
    assert "hunter2" not in "\n".join(found)


def test_a_good_file_gives_every_device_the_runtimes_own_configuration(tmp_path: Path) -> None:
    fleet = sample(tmp_path)
    assert list(fleet.devices) == ["panel-01", "panel-02", "panel-03", "panel-04"]
    first, second, third, _ = fleet.devices.values()
    assert [(watch.name, watch.interval) for watch in first.config.watches] == [("level", 20.0), ("lamps", 60.0)]
    assert [watch.name for watch in second.config.watches] == ["level"]
    assert [(watch.name, watch.interval) for watch in third.config.watches] == [("level", 10.0), ("lamps", 60.0)]
    assert (first.config.health.interval, fleet.devices["panel-04"].config.health.interval) == (30.0, 60.0)
    assert str(first.config.model.bundle) == "/var/lib/moedge/bundles/qwen3-vl-30b-int4"
    assert first.update.channel == "stable" and first.bundle is not None and first.bundle.version == "2026.11"
    assert list(fleet.groups()) == [("berlin", "press"), ("berlin", "paint"), ("paris", "hall")]


def test_the_rendered_values_are_what_a_board_reads(tmp_path: Path) -> None:
    text = FLEET.replace('url: "mqtt://127.0.0.1:1883"', "url: 'mqtts://b:8883', cert: tls/d.pem, key: tls/d.key")
    fleet = sample(tmp_path, text)
    board = tmp_path / "board"
    (board / "tls").mkdir(parents=True)
    for name in ("d.pem", "d.key"):
        (board / "tls" / name).touch()
    (board / "moedge.yaml").write_text(yaml.safe_dump(fleet.devices["panel-01"].values))
    read = load_config(board / "moedge.yaml", {"CAMERA_PASSWORD": "x"})
    assert read.mqtt.cert == board / "tls/d.pem"
    assert [watch.interval for watch in read.watches] == [20.0, 60.0]


def test_what_all_devices_of_a_layer_lack_is_said_once_of_that_layer(tmp_path: Path) -> None:
    text = re.sub(r"    model: .*\n", "", FLEET)
    assert refusal(tmp_path, text)[1:] == ["  line 5: defaults.config.model: this key is required"]
    text = text.replace("    groups:\n      press:", "      model: {bundle: x}\n    groups:\n      press:")
    line = next(number for number, content in enumerate(text.splitlines(), 1) if "panel-04" in content)
    assert refusal(tmp_path, text)[1:] == [
        f"  line {line + 1}: sites.paris.groups.hall.devices.panel-04.config.model: this key is required"
    ]


def test_a_problem_of_a_layer_names_the_devices_that_have_it(tmp_path: Path) -> None:
    text = FLEET.replace("remove: [watches.lamps]", "remove: []").replace(
        'gate: {source: "rtsp://10.0.0.2/s"}', 'yard: {source: "rtsp://10.0.0.2/s"}'
    )
    assert [line.partition(": ")[2] for line in refusal(tmp_path, text)[1:]] == [
        "defaults.config.watches[0].camera: there is no camera 'gate'; known are: yard (in device panel-02)",
        "defaults.config.watches[1].camera: there is no camera 'gate'; known are: yard (in device panel-02)",
    ]


@pytest.mark.parametrize(
    "config",
    [
        "{mqtt: {username: a, password: hunter2}}",
        "{mqtt: {username: a, password: 'hunter2${A}'}}",
        "{mqtt: {username: a, password: 12345}}",
        "{cameras: {c: {source: 'rtsp://u:hunter2@10.0.0.1/s'}}}",
        "{cameras: {c: {source: 'http://10.0.0.1/snapshot?user=a&password=hunter2'}}}",
        "{cameras: {c: {source: 'http://10.0.0.1/snapshot?token=hunter2 x'}}}",
        "{cameras: {c: {source: 'exec:grab --password hunter2'}}}",
        "{cameras: {c: {source: 'exec:curl ftp://u:hunter2@10.0.0.1/'}}}",
        "{mqtt: {key: '-----BEGIN RSA PRIVATE KEY-----\\nhunter2'}}",
    ],
)
def test_a_secret_is_refused_and_never_shown(tmp_path: Path, config: str) -> None:
    text = FLEET.replace("      press:\n        config:\n", f"      press:\n        config: {config}\n        XX:\n")
    text = text.replace("        XX:\n          watches:\n            - {name: level, interval: 20s}\n", "")
    problems = "\n".join(refusal(tmp_path, text))
    assert problems.count("no secret may be in a fleet file: write ${NAME}") == 1
    assert "sites.berlin.groups.press.config." in problems
    assert "hunter2" not in problems and "12345" not in problems


@pytest.mark.parametrize(
    "value",
    ["exec:grab --password ${GATE}", "http://10.0.0.1/snap?user=a&password=${GATE}", "exec:compass=north author=x"],
)
def test_what_only_names_a_variable_is_no_secret(tmp_path: Path, value: str) -> None:
    fleet = sample(tmp_path, FLEET.replace("rtsp://10.0.0.4/s", value))
    assert fleet.devices["panel-04"].config.cameras["gate"].source == value


def test_a_json_schema_in_a_file_is_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "lamps.json").write_text('{"type": "object"}')
    fleet = sample(tmp_path, FLEET.replace("interval: 1m}", "interval: 1m, json_schema: lamps.json}"))
    assert fleet.devices["panel-01"].values["watches"][1]["json_schema"] == {"type": "object"}


def test_one_client_id_for_two_devices_of_a_broker_is_refused(tmp_path: Path) -> None:
    text = FLEET.replace('url: "mqtt://127.0.0.1:1883"', 'url: "mqtt://127.0.0.1:1883", client_id: fleet')
    problems = refusal(tmp_path, text)
    assert "defaults.config.mqtt.client_id: got 'fleet'; device 'panel-01' has the same client id" in problems[1]
    assert problems[1].endswith("(in devices panel-02, panel-03, panel-04)")


def test_topics_of_a_device_inside_those_of_another_are_refused(tmp_path: Path) -> None:
    text = FLEET.replace("  paris:\n", "  paris:\n    config: {mqtt: {base_topic: moedge/panel-01}}\n")
    (problem,) = refusal(tmp_path, text)[1:]
    assert problem.partition(": ")[2] == (
        "sites.paris.config.mqtt.base_topic: got 'moedge/panel-01'; device 'panel-01' has its own topics there; "
        "choose another one"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no keys"),
        ("version: 2", "has version 2; this moedge reads version 1"),
        ("a: [", "is not valid YAML"),
        ("a: &a [*a]", "contains itself"),
        ("sites: {a: {groups: {b: {devices: {c: {config: 5}}}}}}", "sites.a.groups.b.devices.c.config"),
        ("version: 1\nsites: {}", "sites: at least one is wanted"),
        (
            f"{FLEET}    update: {{windows: [{{start: '02:00', end: '02:00'}}]}}",
            "from a time to the same time is empty",
        ),
        ("version: 1\nsites: {a: {groups: {b: {devices: {c d: }}}}}", "use 1 to 64 of the characters"),
    ],
)
def test_files_of_another_form_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    assert message in "\n".join(refusal(tmp_path, text))


def test_anchors_and_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    text = FLEET.replace('gate: {source: "rtsp://10.0.0.3/s"}', 'gate: &gate {source: "rtsp://10.0.0.3/s", fps: 2}')
    text = text.replace('gate: {source: "rtsp://10.0.0.4/s"}', "gate: {<<: *gate, fps: 3}")
    camera = sample(tmp_path, text).devices["panel-04"].config.cameras["gate"]
    assert (camera.source, camera.fps) == ("rtsp://10.0.0.3/s", 3)


def test_the_problems_can_be_read_by_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FLEET.replace("memory: 6G", "memry: 6G"))
    with pytest.raises(SystemExit) as ended:
        main(["fleet", "check", str(path), "--json"])
    assert ended.value.code == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["file"], said["error"]["key"]) == (False, str(path), "fleet.invalid")
    problem = {"line": 6, "path": "defaults.config.model.memry", "text": "unknown key. Did you mean 'memory'?"}
    assert said["problems"] == [problem]
    result = CliRunner().invoke(command, ["check", str(write(tmp_path)), "--json"])
    counts = {"sites": 2, "groups": 3, "devices": 4, "cameras": 4, "watches": 7}
    assert json.loads(result.stdout) == {"file": str(path), "ok": True, **counts}


@pytest.mark.parametrize("version", ["2026.10", "2026", "2026-11-24", "no"])
def test_a_version_that_yaml_takes_for_something_else_is_to_be_quoted(tmp_path: Path, version: str) -> None:
    (problem,) = refusal(tmp_path, FLEET.replace('version: "2026.11"', f"version: {version}"))[1:]
    assert problem.endswith("a text is wanted: write it in quotes")


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        load_fleet(tmp_path / "none.yaml")


def test_a_profile_that_is_not_shipped_is_refused(tmp_path: Path) -> None:
    text = textwrap.dedent(FLEET).replace("  berlin:\n", "  berlin:\n    profile: raspberry-pi-5-61gb\n")
    with pytest.raises(ConfigError, match=r"there is no profile 'raspberry-pi-5-61gb'\. Did you mean 'raspberry-pi-5-"):
        load_fleet(write(tmp_path, text))
