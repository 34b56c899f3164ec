"""Exports in float32 give transformers' logits, and what an export could lose would show."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export.conftest import Exporter
from export.random_checkpoint import SHAPES, exchange_expert_axes, greedy_tokens, save_random_checkpoint
from moedge_export.compare import compare_logits, picture_prompt, text_prompt, transformers_logits
from moedge_export.reference import Float, Int, Prompt, ReferenceModel
from moedge_runtime.bundle import Bundle

TOLERANCE = 1e-3
"""Largest difference of two logits, relative to the range of all."""

PICTURES = ((2, 3), (4, 1), (1, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_have_transformers_logits_and_the_same_64_greedy_tokens(
    shape: str, tmp_path: Path, export: Exporter
) -> None:
    model = save_random_checkpoint(tmp_path / "checkpoint", SHAPES[shape])
    prompt = None
    for form in ("paged", "inline"):
        bundle = export(tmp_path / "checkpoint", precision="fp32", form=form)
        prompt = prompt or picture_prompt(bundle.manifest.model, seed=1, sizes=PICTURES)
        reference = ReferenceModel(bundle)
        for each in (prompt, text_prompt(bundle.manifest.model, seed=2)):
            comparison = compare_logits(reference.logits(each), transformers_logits(model, each))
            assert comparison.relative_difference <= TOLERANCE
        assert reference.greedy(prompt, 64) == greedy_tokens(model, prompt, 64)


def test_sharded_bfloat16_in_the_hubs_layout_is_read_right(tmp_path: Path, export: Exporter) -> None:
    # 2 × 48 differs from hidden_size: with equal axes the layouts look alike, and transformers takes its own.
    model = save_random_checkpoint(tmp_path / "float32", {"text": {"moe_intermediate_size": 48}})
    model.to(torch.bfloat16).save_pretrained(tmp_path / "sharded", max_shard_size="300KB")
    model.save_pretrained(tmp_path / "hub")
    exchange_expert_axes(tmp_path / "hub")
    for folder in ("sharded", "hub"):
        for file in (tmp_path / "float32").glob("*.j*"):
            if not (tmp_path / folder / file.name).exists():
                shutil.copy(file, tmp_path / folder)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    sharded, hub = (export(tmp_path / folder, precision="fp32") for folder in ("sharded", "hub"))
    prompt = picture_prompt(hub.manifest.model, seed=1)
    expected = transformers_logits(model.float(), prompt)
    for bundle in (sharded, hub):
        assert compare_logits(ReferenceModel(bundle).logits(prompt), expected).relative_difference <= TOLERANCE
    assert _sha256(sharded, "experts.bin") == _sha256(hub, "experts.bin")


@pytest.mark.parametrize("form", ["paged", "inline"])
def test_prefill_in_two_calls_over_a_larger_cache_changes_nothing(
    form: str, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    reference = ReferenceModel(export(checkpoint[0], precision="fp32", form=form))
    whole = picture_prompt(reference.bundle.manifest.model, seed=3)
    cut = len(whole.token_ids) - 3
    cache = reference.new_cache(slots=100)
    first = reference.logits(Prompt(whole.token_ids[:cut], whole.pictures), cache)
    second = reference.logits(Prompt(whole.token_ids[cut:]), cache)
    assert cache.keys[0].shape[2] == 100
    np.testing.assert_allclose(np.concatenate([first, second]), reference.logits(whole), atol=1e-4)


def test_frames_of_a_video_attend_to_themselves_alone(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    reference, model = ReferenceModel(export(checkpoint[0], precision="fp32")), checkpoint[1]
    grid = (3, 4, 6)
    pixels = np.random.default_rng(0).standard_normal((72, 1536), dtype=np.float32)
    features, deepstack = reference.picture_features(pixels, grid)
    with torch.no_grad():
        expected = model.model.visual(torch.from_numpy(pixels), torch.tensor([grid]))
    np.testing.assert_allclose(features, expected.pooler_output.numpy(), atol=1e-4)
    np.testing.assert_allclose(deepstack, torch.stack(expected.deepstack_features).numpy(), atol=1e-4)


class WithoutDeepstack(ReferenceModel):
    def decode(self, embeds: Float, deepstack: Float, positions: Int, cache: Any) -> Float:
        return super().decode(embeds, np.zeros_like(deepstack), positions, cache)


class WithDeepstackOneLayerLate(ReferenceModel):
    def decode(self, embeds: Float, deepstack: Float, positions: Int, cache: Any) -> Float:
        return super().decode(embeds, np.roll(deepstack, 1, axis=0), positions, cache)


class WithMropeInBlocks(ReferenceModel):
    """Qwen2-VL's order: first all temporal frequencies, then all of the height, then of the width."""

    def rotary(self, positions: Int) -> tuple[Float, Float]:
        half = self.text.head_dim // 2
        frequencies = self.text.rope_theta ** (-np.arange(half) * 2 / self.text.head_dim)
        axes = np.repeat([0, 1, 2], self.text.mrope_section)
        angles = (positions[axes].T * frequencies).astype(np.float32)
        return np.cos(angles), np.sin(angles)


class WithTextPositions(ReferenceModel):
    def positions(self, prompt: Prompt, start: int) -> Int:
        return np.tile(np.arange(start, start + len(prompt.token_ids)), (3, 1))


class WithGridTransposed(ReferenceModel):
    def picture_features(self, pixel_values: Float, grid_thw: tuple[int, int, int]) -> tuple[Float, Float]:
        return super().picture_features(pixel_values, (grid_thw[0], grid_thw[2], grid_thw[1]))


@pytest.mark.parametrize(
    ("form", "mutant"),
    [
        ("paged", WithoutDeepstack),
        ("inline", WithoutDeepstack),
        ("paged", WithDeepstackOneLayerLate),
        ("paged", WithMropeInBlocks),
        ("inline", WithTextPositions),
        ("paged", WithGridTransposed),
    ],
)
def test_the_parity_check_rejects_a_model_that_lost_a_mechanism(
    form: str, mutant: type[ReferenceModel], checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32", form=form)
    assert _difference(ReferenceModel(bundle), checkpoint[1]) <= TOLERANCE
    assert _difference(mutant(bundle), checkpoint[1]) > 5 * TOLERANCE


@pytest.mark.parametrize("form", ["paged", "inline"])
@pytest.mark.parametrize("norm", ["q_norm", "k_norm"])
def test_the_parity_check_rejects_graphs_without_qk_norm(
    form: str, norm: str, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32", form=form)
    graphs = bundle.manifest.graphs
    changed = sum(_bypass(bundle, path, f"self_attn/{norm}.weight") for path in graphs.layers or [graphs.model or ""])
    assert changed == bundle.manifest.model.text.num_hidden_layers
    assert _difference(ReferenceModel(bundle), checkpoint[1]) > 5 * TOLERANCE


def _bypass(bundle: Bundle, path: str, weight: str) -> int:
    """Turn the nodes of a graph that use `weight` into Identity; returns how many there were."""
    proto = onnx.load(bundle.file(path), load_external_data=False)
    nodes = [node for node in proto.graph.node if any(name.endswith(weight) for name in node.input)]
    for node in nodes:
        node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1], name=node.name))
    bundle.file(path).write_bytes(proto.SerializeToString())
    return len(nodes)


def _difference(reference: ReferenceModel, model: Any) -> float:
    prompt = picture_prompt(reference.bundle.manifest.model, seed=1, sizes=PICTURES)
    return compare_logits(reference.logits(prompt), transformers_logits(model, prompt)).relative_difference


def _sha256(bundle: Bundle, path: str) -> str:
    return next(entry.sha256 for entry in bundle.manifest.files if entry.path == path)
