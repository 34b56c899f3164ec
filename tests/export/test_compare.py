"""`moedge verify --against` measures what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from export.conftest import Exporter
from export.random_checkpoint import SHAPES, exchange_expert_axes, save_random_checkpoint
from fixtures_checkpoint import save_checkpoint
from moedge_export.checkpoint import open_checkpoint
from moedge_export.compare import (
    compare_answer,
    compare_logits,
    compare_with_transformers,
    picture_prompt,
    text_prompt,
    transformers_logits,
)
from moedge_export.layered import open_layered
from moedge_runtime.bundle import Bundle
from moedge_runtime.cli.verify import verify
from moedge_runtime.errors import CheckpointError, ConfigError
from moedge_runtime.inference import AskRequest, Engine
from moedge_runtime.inference.transcript import Transcript, transcribe

PICTURE = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that can be asked."""
    folder = tmp_path_factory.mktemp("compare") / "tiny"
    save_checkpoint(folder)
    return folder


@pytest.fixture
def exact(checkpoint: Path, export: Exporter) -> Bundle:
    return export(checkpoint, precision="fp32")


def answered(bundle: Bundle) -> Transcript:
    request = AskRequest("What is the reading?", images=[PICTURE], max_new_tokens=12, ignore_end=True)
    with Engine.open(bundle) as engine:
        return transcribe(engine, request)


def test_a_float32_bundle_agrees_everywhere(checkpoint: Path, exact: Bundle) -> None:
    figures: Any = compare_with_transformers(exact, str(checkpoint), answer=answered)
    for prompt in ("text", "picture"):
        assert figures[f"{prompt}_relative_difference"] < 1e-4
        assert figures[f"{prompt}_top1_agreement"] == 1.0
        assert figures[f"{prompt}_positions"] > 20
    assert figures["answer_same_prompt"] and figures["answer_tokens"] == 12
    assert figures["answer_agreement"] == 1.0 and figures["answer_first_difference"] is None


def test_a_wrong_token_of_an_answer_and_another_prompt_are_found(checkpoint: Path, exact: Bundle) -> None:
    transcript, opened = answered(exact), open_checkpoint(checkpoint)
    altered = [*transcript.answer[:5], transcript.answer[5] ^ 1, *transcript.answer[6:]]
    comparison = compare_answer(replace(transcript, answer=altered), opened, open_layered(opened))
    assert comparison.first_difference == 5 and comparison.agreement <= 11 / 12
    other = [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]}]
    assert not compare_answer(replace(transcript, messages=other), opened, open_layered(opened)).same_prompt


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("as_on_the_hub", [False, True])
def test_layer_by_layer_transformers_says_what_it_says_as_a_whole(
    shape: str, as_on_the_hub: bool, tmp_path: Path, export: Exporter
) -> None:
    # Matrices that are not square: those of the Hub are told from transformers' own by their shape.
    text = SHAPES[shape]["text"] | {"moe_intermediate_size": 24}
    whole = save_random_checkpoint(tmp_path / "model", SHAPES[shape] | {"text": text})
    info = export(tmp_path / "model", precision="fp32").manifest.model
    if as_on_the_hub:
        exchange_expert_axes(tmp_path / "model")
    layered = open_layered(open_checkpoint(tmp_path / "model"))
    for prompt in (text_prompt(info, 1), picture_prompt(info, 1)):
        assert np.array_equal(transformers_logits(layered, prompt), transformers_logits(whole, prompt))


def test_a_checkpoint_of_another_shape_is_refused_with_what_differs(exact: Bundle, tmp_path: Path) -> None:
    save_random_checkpoint(tmp_path / "other", {"text": {"num_experts": 4}})
    with pytest.raises(CheckpointError, match=r"are of different shapes: .*num_experts 8 and 4, .*exported from"):
        compare_with_transformers(exact, str(tmp_path / "other"))


def test_the_command_asks_and_compares(checkpoint: Path, exact: Bundle) -> None:
    arguments = [str(exact.path), "--against", str(checkpoint), "--question", "What is it?", "--max-tokens", "4"]
    result = CliRunner().invoke(verify, [*arguments, "--json"], catch_exceptions=False)
    comparison = json.loads(result.stdout)["comparison"]
    assert comparison["answer_same_prompt"] and comparison["answer_agreement"] == 1.0
    assert "moedge: prompt 'picture' in the checkpoint, by transformers" in result.stderr


def test_a_question_without_a_checkpoint_is_refused(exact: Bundle) -> None:
    with pytest.raises(ConfigError, match="Add --against CHECKPOINT"):
        CliRunner().invoke(verify, [str(exact.path), "--question", "What?"], catch_exceptions=False)


def test_figures_of_known_logits() -> None:
    expected = np.array([[0.0, 10.0], [4.0, 2.0]], np.float32)
    comparison = compare_logits(np.array([[0.0, 9.0], [1.0, 2.0]], np.float32), expected)
    assert (comparison.max_difference, comparison.logit_range) == (3.0, 10.0)
    assert (comparison.relative_difference, comparison.top1_agreement, comparison.positions) == (0.3, 0.5, 2)
