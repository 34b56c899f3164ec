import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from moedge_runtime.config import load_config
from moedge_runtime.config.load import validate
from moedge_runtime.config.schema import config_schema
from moedge_runtime.errors import ConfigError
from runtime.config.test_schema import keys

GOOD = """\
version: 1
device: panel-01
model: {bundle: bundles/tiny}
mqtt: {url: "mqtt://broker:1884", username: panel, password: "${PASSWORD}"}
cameras:
  panel: {source: "file:panel.mp4"}
watches:
  - {name: level, camera: panel, question: How full, interval: 500ms}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "moedge.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), environment or {})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_good_file_is_typed_and_its_paths_are_absolute(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), {"PASSWORD": "s3cret"})
    assert config.model.bundle == tmp_path / "bundles/tiny"
    assert config.cameras["panel"].source == f"file:{tmp_path}/panel.mp4"
    assert config.watches[0].interval == 0.5
    assert config.watches[0].max_tokens == 256
    assert config.mqtt.password is not None
    assert config.mqtt.password.get_secret_value() == "s3cret"


@pytest.mark.parametrize(("written", "nbytes"), [("5G", 5 << 30), ("512M", 512 << 20), ("1000000", 1000000)])
def test_the_memory_for_experts_is_a_size(tmp_path: Path, written: str, nbytes: int) -> None:
    text = GOOD.replace("bundles/tiny", f"bundles/tiny, expert_memory: {written}")
    config = load_config(write(tmp_path, text), {"PASSWORD": "x"})
    assert config.model.expert_memory == nbytes
    assert config.public()["model"]["expert_memory"] == nbytes


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (
            "5 parsecs",
            "got '5 parsecs'; write bytes as a number, or a number with k, M or G (powers of 1024), for example",
        ),
        ("0", "got 0; should be greater than or equal to 1"),
        ("9999999G", "got '9999999G'; should be less than or equal to 1125899906842624"),
    ],
)
def test_a_memory_for_experts_that_is_none_is_refused(tmp_path: Path, written: str, problem: str) -> None:
    text = GOOD.replace("bundles/tiny", f"bundles/tiny, expert_memory: {written}")
    assert f"model.expert_memory: {problem}" in refusal(tmp_path, text, {"PASSWORD": "x"})


def test_secrets_are_not_published(tmp_path: Path) -> None:
    text = GOOD.replace('"file:panel.mp4"', '"rtsp://10.0.0.7:554/s1?key=geheim", username: u, password: geheim')
    public = str(load_config(write(tmp_path, text), {"PASSWORD": "s3cret"}).public())
    assert "s3cret" not in public
    assert "geheim" not in public
    assert "rtsp://10.0.0.7:554/s1?key=…" in public
    text = GOOD.replace('"file:panel.mp4"', '"rtsp://user:geheim@10.0.0.7:554/s1"')
    assert "geheim" not in refusal(tmp_path, text, {"PASSWORD": "s3cret"})


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    text = GOOD.replace("question: How", "qestion: How")
    assert refusal(tmp_path, text, {"PASSWORD": "x"}) == (
        f"Configuration '{tmp_path}/moedge.yaml' has 2 errors:\n"
        "  line 8: watches[0].qestion: unknown key. Did you mean 'question'?\n"
        "  line 8: watches[0].question: this key is required"
    )


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    text = GOOD + "log: {zzz: 1}\n"
    assert "  line 9: log.zzz: unknown key; known are: level" in refusal(tmp_path, text, {"PASSWORD": "x"})


def test_all_errors_are_reported_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
version: 1
device: panel 01
model: {bundle: x, threads: many}
mqtt:
  urll: mqtt://localhost
  password: ${NOPE}
cameras:
  request: {source: panel.mp4}
  b: {source: "file:x.mp4", loop: maybe, transport: tcp}
  gate: {source: "rstp://10.0.0.7/s1?token=s3cret", password: "x"}
  door: {source: "csi:left"}
  yard: {source: "exec:grab 'all"}
watches:
  - name: a
    camera: c
    question: hi
    interval: 5 parsecs
    question: again
  - {name: a, camera: b, question: "", json_schema: nope.json}
"""
    assert refusal(tmp_path, text).splitlines() == [
        f"Configuration '{tmp_path}/moedge.yaml' has 20 errors:",
        "  line 2: device: got 'panel 01'; use 1 to 64 of the characters a-z, A-Z, 0-9, _ and -",
        "  line 3: model.threads: got 'many'; a whole number is wanted",
        "  line 4: mqtt: give exactly one of url (a broker that runs) and embedded (one started here)",
        "  line 5: mqtt.urll: unknown key. Did you mean 'url'?",
        "  line 6: mqtt.password: a password needs a username",
        "  line 6: mqtt.password: the environment variable NOPE is not set; set it before moedge starts",
        "  line 8: cameras.request: got 'request'; 'request' is a topic of the device itself; choose another name",
        "  line 8: cameras.request.source: got 'panel.mp4'; write a scheme and what it reads, for example "
        "file:panel.mp4 or rtsp://10.0.0.7/stream1",
        "  line 9: cameras.b.loop: got 'maybe'; true or false is wanted",
        "  line 9: cameras.b.transport: this is for rtsp:, rtsps: and does nothing for file:; remove it",
        "  line 10: cameras.gate.password: a password needs a username",
        "  line 10: cameras.gate.source: got 'rstp://10.0.0.7/s1?…'; there is no source 'rstp:'; known are: v4l2:, "
        "csi:, rtsp:, rtsps:, http:, https:, exec:, file:, folder:. Did you mean 'rtsp'?",
        "  line 11: cameras.door.source: got 'csi:left'; write the number of the camera, for example csi:0",
        '  line 12: cameras.yard.source: got "exec:grab \'all"; the command cannot be read (No closing quotation); '
        "close its quotes",
        "  line 15: watches[0].camera: there is no camera 'c'; known are: request, b, gate, door, yard",
        "  line 17: watches[0].interval: got '5 parsecs'; write seconds as a number, or a number with ms, s, m or h, "
        "for example 5s",
        "  line 18: watches[0].question: the key is given twice, here and in line 16",
        f"  line 19: watches[1].json_schema: got 'nope.json'; the JSON Schema '{tmp_path}/nope.json' cannot be read "
        "(No such file or directory)",
        "  line 19: watches[1].name: 'a' is also the name of watches[0]",
        "  line 19: watches[1].question: got ''; it has to have at least 1 character",
    ]


def test_a_question_of_blanks_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, GOOD.replace("question: How full", 'question: " \\n"')).endswith(
        "watches[0].question: got ' \\n'; a question is more than blanks"
    )


def test_a_wrong_password_is_never_shown(tmp_path: Path) -> None:
    text = GOOD.replace('"${PASSWORD}"', "[s3cret]")
    assert "s3cret" not in refusal(tmp_path, text)


def test_another_version_is_refused_before_anything_else(tmp_path: Path) -> None:
    assert refusal(tmp_path, "version: 2\nnew_key: 1\n") == (
        f"Configuration '{tmp_path}/moedge.yaml' has version 2; this moedge reads version 1. "
        "Upgrade moedge, or write the file for version 1."
    )


def test_a_missing_file_and_a_file_that_is_no_yaml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.yaml")
    assert str(caught.value) == (
        f"Configuration '{tmp_path}/no.yaml' cannot be read (No such file or directory). "
        "Give an existing file with --config."
    )
    assert "is not valid YAML: " in refusal(tmp_path, "a: [")
    advice = 'Inside of { } and [ ] a variable is written with quotes: "${NAME}".'
    assert advice not in refusal(tmp_path, "a: ${TOKEN}\nb: [\n")
    assert refusal(tmp_path, "web: {token: ${TOKEN}}").endswith(f"\n{advice}")
    assert "holds no keys" in refusal(tmp_path, "")
    assert "holds no keys" in refusal(tmp_path, "- 1")


@pytest.mark.parametrize(
    ("mqtt", "problem"),
    [
        ("{}", "mqtt: give exactly one of url"),
        ("{url: mqtt://a, embedded: true}", "mqtt: give exactly one of url"),
        ("{url: http://a}", "a broker's url starts with mqtt:// or mqtts://"),
        ("{url: mqtt://u:p@a}", "a broker's url holds no user or password"),
        ("{url: mqtt://a:99999}", "a broker's port is a number from 1 to 65535"),
        ("{url: mqtt://a, cert: moedge.yaml}", "mqtt: cert and key belong together"),
        ("{url: mqtt://a, ca: moedge.yaml}", "ca, cert and key need an mqtts:// url"),
        ("{url: mqtt://a, ca: no.pem}", "there is no file"),
        ("{embedded: true, username: u}", "the embedded broker knows no users"),
        ("{embedded: true, base_topic: a/#}", "a base topic has levels without + and #"),
        ("{embedded: {port: 0}}", "mqtt.embedded.port: got 0"),
        ("{embedded: {prot: 1}}", "mqtt.embedded.prot: unknown key. Did you mean 'port'?"),
        ("{embedded: true, keepalive: 1s}", "mqtt.keepalive: got '1s'"),
    ],
)
def test_rules_of_the_mqtt_section(tmp_path: Path, mqtt: str, problem: str) -> None:
    text = f"version: 1\ndevice: a\nmodel: {{bundle: x}}\nmqtt: {mqtt}\ncameras: {{c: {{source: 'file:x'}}}}\n"
    assert problem in refusal(tmp_path, text)


def test_an_embedded_broker_is_a_switch_or_an_address(tmp_path: Path) -> None:
    text = "version: 1\ndevice: a\nmodel: {bundle: x}\nmqtt: {embedded: %s}\ncameras: {c: {source: 'file:x'}}\n"
    on = load_config(write(tmp_path, text % "true")).mqtt.embedded
    assert on is not None
    assert (on.host, on.port) == ("127.0.0.1", 1883)
    other = load_config(write(tmp_path, text % "{port: 1999}")).mqtt.embedded
    assert other is not None
    assert other.port == 1999


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [*a]", "line 1: what an anchor stands for contains itself."),
        ("a: &a\n  b: *a", "line 1: what an anchor stands for contains itself."),
        ("[" * 5000, "it is nested too deeply."),
        ("a: 2026-02-31", "day is out of range for month."),
        ("a: !!int x", "invalid literal for int() with base 10: 'x'."),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "its aliases multiply to more than 100,000 values.",
        ),
    ],
)
def test_yaml_that_is_a_trap_is_refused_in_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(tmp_path, text) == f"Configuration '{tmp_path}/moedge.yaml' is not valid YAML: {reason}"


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        ("health: {interval: .inf}", "health.interval: got inf; should be less than or equal to 31622400"),
        ("health: {interval: .nan}", "health.interval: got nan; should be greater than 0"),
        ("health: {interval: -1}", "health.interval: got -1; should be greater than 0"),
        ("health: {interval: 9999999h}", "health.interval: got '9999999h'; should be less than or equal to 31622400"),
        ("health: {interval: 0x" + "f" * 5000 + "}", "health.interval: got an integer of more than 100 digits; "),
        ("log: {level: " + "x" * 5000 + "}", "log.level: got '" + "x" * 100 + "'…; should be 'debug', 'info'"),
        ("log: {? [1] : 2}", "is not valid YAML"),
    ],
)
def test_values_beyond_every_clock_and_screen_are_refused(tmp_path: Path, addition: str, problem: str) -> None:
    assert problem in refusal(tmp_path, GOOD + addition + "\n", {"PASSWORD": "x"})


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("{const: .inf}", "the JSON Schema is not valid: inf is no JSON number"),
        ("{const: 2026-01-01}", "the JSON Schema is not valid: datetime.date(2026, 1, 1) is no JSON value"),
        ("{1: 2}", "the JSON Schema is not valid: the key 1 is no text"),
        ('{const: "\\ud800"}', "the JSON Schema is not valid: the text '\\ud800' holds half a character"),
        ("~nobody-here/x.json", "Could not determine home directory.; write the directory in full"),
        ('"a\\0b"', "a path holds no null character"),
        ("deep.json", "/deep.json' is not valid JSON (it is nested deeper than 64 levels)"),
    ],
)
def test_a_json_schema_that_is_no_json_is_refused(tmp_path: Path, schema: str, problem: str) -> None:
    (tmp_path / "deep.json").write_text("[" * 5000)
    text = GOOD.replace("interval: 500ms", f"json_schema: {schema}")
    assert "  line 8: watches[0].json_schema: " in refusal(tmp_path, text, {"PASSWORD": "x"})
    assert problem in refusal(tmp_path, text, {"PASSWORD": "x"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.sampled_from(["~x/y", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=6,
)
sections = st.sampled_from(
    ["version", "device", "model", "mqtt", "cameras", "watches", "health", "log", "time", "exit_when_done"]
)
inside = st.sampled_from(sorted({path.rpartition(".")[2] for path in keys(config_schema())}))


@given(st.dictionaries(sections, values | st.dictionaries(inside, values) | st.lists(st.dictionaries(inside, values))))
def test_no_file_whatever_raises_anything_but_a_configuration_error(changes: dict[str, object]) -> None:
    good = yaml.safe_load(GOOD.replace("${PASSWORD}", "x"))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "moedge.yaml"
        path.write_text(yaml.dump(good | changes, allow_unicode=False))
        with contextlib.suppress(ConfigError):
            json.dumps(load_config(path, {}).public(), allow_nan=False)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_but_a_configuration_error(content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "moedge.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigError):
            load_config(path, {})


def test_a_json_schema_is_written_in_place_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "level.json").write_text('{"type": "object"}')
    in_file = GOOD.replace("interval: 500ms", "json_schema: level.json")
    in_place = GOOD.replace("interval: 500ms", "json_schema: {type: object}")
    for text in (in_file, in_place):
        config = load_config(write(tmp_path, text), {"PASSWORD": "x"})
        assert config.watches[0].json_schema == {"type": "object"}


def test_a_loop_that_is_to_end_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("mp4", "mp4'").replace('"file', "'file").replace("mp4'\"", "mp4', loop: true")
    assert "cameras.panel.loop: with exit_when_done a camera that loops never ends" in refusal(
        tmp_path, text + "exit_when_done: true\n", {"PASSWORD": "x"}
    )


def test_paths_of_another_machine_stay_as_they_are_and_are_not_looked_for() -> None:
    raw = yaml.safe_load(GOOD.replace("mqtt://broker:1884", "mqtts://broker")) | {"log": {"level": "loud"}}
    raw["mqtt"] |= {"ca": "tls/ca.pem", "cert": "/etc/d.pem", "key": "~/d.key"}
    config, problems = validate(raw, {"another_machine": True})
    assert config is None and [path for path, _ in problems] == [("log", "level")]
    assert validate(raw, {"another_machine": True}, {("log", "level")})[1] == []
    del raw["log"]
    config, problems = validate(raw, {"another_machine": True})
    assert config is not None and problems == []
    assert [str(path) for path in (config.mqtt.ca, config.mqtt.cert, config.mqtt.key, config.model.bundle)] == [
        "tls/ca.pem",
        "/etc/d.pem",
        "~/d.key",
        "bundles/tiny",
    ]
    assert config.cameras["panel"].source == "file:panel.mp4"
    assert {path for path, _ in validate(raw, {"base_dir": "/none"})[1]} == {
        ("mqtt", key) for key in ("ca", "cert", "key")
    }
