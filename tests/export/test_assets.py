"""Tokenizer, chat template and settings reach the bundle, whichever form the checkpoint has them in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from moedge_export.assets import write_assets
from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_runtime.errors import CheckpointError
from tokenizers import Tokenizer


@pytest.fixture
def opened(checkpoint: tuple[Path, Any], tmp_path: Path) -> Checkpoint:
    return open_checkpoint(Path(shutil.copytree(checkpoint[0], tmp_path / "model")))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle").mkdir()
    return tmp_path / "bundle"


def test_files_are_copied_unchanged(opened: Checkpoint, bundle: Path) -> None:
    tokens = write_assets(bundle, opened)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        assert (bundle / name).read_bytes() == (opened.directory / name).read_bytes()
    ids = Tokenizer.from_file(str(bundle / "tokenizer.json")).token_to_id
    assert (tokens.image, tokens.end_of_text) == (ids("<|image_pad|>"), [ids("<|im_end|>")])
    assert (tokens.think_start, tokens.think_end) == (ids("<think>"), ids("</think>"))


@pytest.mark.parametrize("name", ["chat_template.json", "tokenizer_config.json"])
def test_the_chat_template_is_taken_out_of_json(name: str, opened: Checkpoint, bundle: Path) -> None:
    template = (opened.directory / "chat_template.jinja").read_text(encoding="utf-8")
    (opened.directory / "chat_template.jinja").unlink()
    path = opened.directory / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | {"chat_template": template}))
    write_assets(bundle, opened)
    assert (bundle / "chat_template.jinja").read_text(encoding="utf-8") == template


def test_a_tokenizer_is_made_from_vocabulary_and_merges(opened: Checkpoint, bundle: Path) -> None:
    before = Tokenizer.from_file(str(opened.directory / "tokenizer.json"))
    model = json.loads((opened.directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (opened.directory / "tokenizer.json").unlink()
    (opened.directory / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (opened.directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    write_assets(bundle, opened)
    after = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    text = "What is the reading? 42"
    assert after.encode(text).tokens == before.encode(text).tokens


def test_image_settings_are_taken_out_of_the_processors(opened: Checkpoint, bundle: Path) -> None:
    settings = (opened.directory / "preprocessor_config.json").read_text()
    (opened.directory / "preprocessor_config.json").unlink()
    (opened.directory / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(settings)}))
    write_assets(bundle, opened)
    assert json.loads((bundle / "preprocessor_config.json").read_text()) == json.loads(settings)


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "preprocessor_config.json"])
def test_what_is_missing_is_named(name: str, opened: Checkpoint, bundle: Path) -> None:
    (opened.directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}.*Copy it from the original checkpoint."):
        write_assets(bundle, opened)


def test_end_of_text_falls_back_to_the_config(opened: Checkpoint, bundle: Path) -> None:
    expected = write_assets(bundle, opened).end_of_text
    (opened.directory / "generation_config.json").unlink()
    assert write_assets(bundle, opened).end_of_text == expected


def test_a_tokenizer_that_cannot_be_read_is_named(opened: Checkpoint, bundle: Path) -> None:
    (opened.directory / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(CheckpointError, match=r"model/tokenizer.json' is not a tokenizer that can be read"):
        write_assets(bundle, opened)


def test_an_image_token_that_the_tokenizer_does_not_have_is_refused(opened: Checkpoint, bundle: Path) -> None:
    config = json.loads((opened.directory / "config.json").read_text())
    (opened.directory / "config.json").write_text(json.dumps(config | {"image_token_id": 151655}))
    with pytest.raises(CheckpointError, match=r"has the image token 151655 in config.json, which its tokenizer does"):
        write_assets(bundle, opened)
