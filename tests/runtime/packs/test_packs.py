"""Each pack: its question and schema can be used, its drawn pictures pass the gate as it says, right answers fit."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from fixtures_checkpoint import save_tokenizer
from moedge_runtime.camera import Frame
from moedge_runtime.cli.watch import watch
from moedge_runtime.config import Config, load_config
from moedge_runtime.config.frames import missing_in
from moedge_runtime.daemon.cameras import gate_of, watch_of
from moedge_runtime.errors import ConfigError
from moedge_runtime.frames.gate import frame_reason
from moedge_runtime.inference.constraint import SchemaCompiler
from moedge_runtime.inference.tokenizer import Tokenizer
from moedge_runtime.packs import Pack, load_pack, pack_names
from PIL import Image
from runtime.packs.draw import pictures

DOCUMENT = Path(__file__).parents[3] / "docs/packs.md"
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
VOCABULARY = 424

each_pack = pytest.mark.parametrize("pack", [load_pack(name) for name in pack_names()], ids=lambda pack: pack.name)


def config_with(directory: Path, pack: Pack, **keys: object) -> Config:
    """A configuration as the document says: the pack's camera keys, and a watch that only names the pack."""
    path = directory / "moedge.yaml"
    sections = {
        "version": 1,
        "device": "d",
        "model": {"bundle": "b"},
        "mqtt": {"url": "mqtt://h"},
        "cameras": {"c": {"source": "http://h/snapshot.jpg", **pack.camera}},
        "watches": [{"name": "w", "camera": "c", "pack": pack.name, **keys}],
        "time": {"zone": "UTC"},
    }
    path.write_text(yaml.safe_dump(sections))
    return load_config(path, {})


@each_pack
def test_a_watch_that_only_names_the_pack_is_complete(tmp_path: Path, pack: Pack) -> None:
    config = config_with(tmp_path, pack)
    made = config.watches[0]
    assert made.question == pack.watch["question"]
    assert made.json_schema == pack.watch["json_schema"]
    assert made.alert is not None and made.state is not None
    assert not any(missing_in(field, pack.watch["json_schema"]) for field in (made.alert.field, made.state))
    assert watch_of(config.cameras["c"], made).alert is not None
    assert json.loads(json.dumps(config.public()))["watches"][0]["pack"] == pack.name


def test_keys_that_are_given_hold(tmp_path: Path) -> None:
    made = config_with(tmp_path, load_pack("parking"), interval="3m", question="How many cars?", alert=None).watches[0]
    assert (made.interval, made.question, made.alert) == (180.0, "How many cars?", None)
    assert made.json_schema == load_pack("parking").watch["json_schema"]


def test_an_unknown_pack_is_told_with_the_known_ones(tmp_path: Path) -> None:
    pack = load_pack("parking")
    with pytest.raises(ConfigError) as caught:
        config_with(tmp_path, Pack("parkng", "", "", {}, pack.camera, []))
    assert f"watches[0].pack: got 'parkng'; there is no pack 'parkng'; known are {', '.join(pack_names())}" in str(
        caught.value
    )


@each_pack
def test_the_pictures_pass_the_gate_as_the_pack_says(tmp_path: Path, pack: Pack) -> None:
    config = config_with(tmp_path, pack)
    gate = gate_of(config.cameras["c"], config.watches, config.time)
    said = []
    for index, item in enumerate(pack.frames):
        image = np.asarray(Image.open(item.path).convert("RGB"))
        verdicts = gate.decide(Frame(image, NOON, item.at_s, index, item.at_s), None, True)
        said.append(verdicts[0].trigger or {"interval": "wait"}.get(frame_reason(verdicts) or "", verdicts[0].reason))
    assert said == [item.gate for item in pack.frames]
    assert {"wait"} < set(said) and len({item.path for item in pack.frames}) >= 2


@each_pack
def test_the_constraint_lets_a_right_answer_through_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, pack: Pack
) -> None:
    folder = tmp_path_factory.mktemp("tokenizer")
    end = save_tokenizer(folder).token_to_id("<|im_end|>")
    compiler, tokenizer = (
        SchemaCompiler(folder / "tokenizer.json", VOCABULARY, end),
        Tokenizer(folder / "tokenizer.json"),
    )
    answers = [item.answer for item in pack.frames if item.answer is not None]
    assert len(answers) == sum(item.gate not in ("wait", "no_motion") for item in pack.frames) >= 2
    for answer in answers:
        jsonschema.validate(answer, pack.watch["json_schema"])
        text = json.dumps(answer, separators=(",", ":"))
        tokens = tokenizer.encode(text)
        assert len(tokens) <= 4 * pack.watch["max_tokens"], "letters; a real vocabulary has words"
        constraint = compiler.compile(pack.watch["json_schema"])
        for token in tokens:
            assert np.isfinite(constraint.mask(np.zeros(VOCABULARY, np.float32))[token]), text
            constraint.accept(token)
        assert constraint.accepting
    opening = compiler.compile(pack.watch["json_schema"])
    refused = tokenizer.encode("[")[0]
    assert not np.isfinite(opening.mask(np.zeros(VOCABULARY, np.float32))[refused])


@each_pack
def test_the_document_says_what_the_pack_is(pack: Pack) -> None:
    text = DOCUMENT.read_text()
    assert f"| `{pack.name}` | {pack.title} |" in text
    assert re.search(rf"^\| `{pack.name}` .*\| {pack.watch['interval']}", text, re.MULTILINE)


def test_the_pictures_are_as_they_are_drawn() -> None:
    drawn = dict(pictures())
    assert {item.path for name in pack_names() for item in load_pack(name).frames} == set(drawn)
    for path, picture in drawn.items():
        stored = np.asarray(Image.open(path).convert("RGB"), np.int16)
        assert np.abs(stored - np.asarray(picture, np.int16)).mean() < 2, f"run tests/runtime/packs/draw.py for {path}"


def test_the_command_lists_packs_and_shows_one() -> None:
    result = CliRunner().invoke(watch, ["packs"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(pack_names())
    shown = CliRunner().invoke(watch, ["packs", "crops"])
    assert yaml.safe_load(shown.stdout)["title"] == load_pack("crops").title
    with pytest.raises(ConfigError, match="there is no pack 'corn'; known are crops, door_visitors"):
        CliRunner().invoke(watch, ["packs", "corn"], catch_exceptions=False)
