"""The native core's dense layers give transformers' logits in float32, and what they could lose would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.conftest import Exporter
from export.random_checkpoint import SHAPES, greedy_tokens, save_random_checkpoint
from export.test_parity import (
    PICTURES,
    TOLERANCE,
    WithDeepstackOneLayerLate,
    WithGridTransposed,
    WithMropeInBlocks,
    WithoutDeepstack,
    WithTextPositions,
)
from moedge_export.compare import compare_logits, picture_prompt, text_prompt, transformers_logits
from moedge_export.reference import Cache, Float, Int, Prompt, ReferenceModel
from moedge_runtime.bundle import Bundle
from moedge_runtime.inference.expert_core.layers import NativeLayers
from moedge_runtime.inference.kv_cache import KvCache
from moedge_runtime.inference.layer_call import LayerBuffers


class NativeReference(ReferenceModel):
    """The reference with its layers and its head in the native core; experts stay in numpy."""

    def decode(self, embeds: Float, deepstack: Float, positions: Int, cache: Cache) -> Float:
        kept = KvCache(self.text, cache.keys[0].shape[2])
        for layer in range(self.text.num_hidden_layers):
            for ours, theirs in zip(kept.memory(layer), (cache.keys[layer], cache.values[layer]), strict=True):
                ours[...] = theirs[0]
        kept.length = cache.tokens
        layers = NativeLayers(self.bundle, kept.capacity, threads=2)
        buffers = LayerBuffers.of(self.text, len(embeds))
        call = layers.call(buffers, kept)
        call.begin(*self.rotary(positions))
        buffers.hidden[0] = embeds
        for layer in range(self.text.num_hidden_layers):
            if call.run(layer):
                experts = self.experts(layer, buffers.moe_input, buffers.router_logits)
                buffers.hidden[0] = buffers.residual[0] + experts
            else:
                buffers.hidden[...] = buffers.residual
            if layer < len(deepstack):
                buffers.hidden[0] += deepstack[layer]
            cache.keys[layer], cache.values[layer] = (array[None].copy() for array in kept.memory(layer))
        cache.tokens += len(embeds)
        logits = np.stack([layers.logits(row) for row in buffers.hidden[0]])
        layers.close()
        return logits


@pytest.mark.parametrize("shape", SHAPES)
def test_native_layers_have_transformers_logits_and_the_same_greedy_tokens(
    shape: str, tmp_path: Path, export: Exporter
) -> None:
    model = save_random_checkpoint(tmp_path / "checkpoint", SHAPES[shape])
    reference = NativeReference(export(tmp_path / "checkpoint", precision="fp32"))
    prompt = picture_prompt(reference.bundle.manifest.model, seed=1, sizes=PICTURES)
    for each in (prompt, text_prompt(reference.bundle.manifest.model, seed=2)):
        comparison = compare_logits(reference.logits(each), transformers_logits(model, each))
        assert comparison.relative_difference <= TOLERANCE
    assert reference.greedy(prompt, 24) == greedy_tokens(model, prompt, 24)


def test_a_prompt_in_two_calls_has_the_same_bits(checkpoint: tuple[Path, Any], export: Exporter) -> None:
    reference = NativeReference(export(checkpoint[0], precision="int4"))
    whole = picture_prompt(reference.bundle.manifest.model, seed=3)
    cut = len(whole.token_ids) - 3
    cache = reference.new_cache(slots=100)
    first = reference.logits(Prompt(whole.token_ids[:cut], whole.pictures), cache)
    second = reference.logits(Prompt(whole.token_ids[cut:]), cache)
    # The numpy experts may differ by the tokens beside a token, by their last bits.
    np.testing.assert_allclose(np.concatenate([first, second]), reference.logits(whole), atol=1e-4)


@pytest.mark.parametrize(
    "mutant",
    [WithoutDeepstack, WithDeepstackOneLayerLate, WithMropeInBlocks, WithTextPositions, WithGridTransposed],
)
def test_the_parity_check_rejects_native_layers_that_lost_a_mechanism(
    mutant: type[ReferenceModel], checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32")
    native_mutant = type("NativeMutant", (mutant, NativeReference), {})
    assert _difference(NativeReference(bundle), checkpoint[1]) <= TOLERANCE
    assert _difference(native_mutant(bundle), checkpoint[1]) > 5 * TOLERANCE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("self_attn/q_norm.weight", "self_attn/k_norm.weight"),
        ("input_layernorm.weight", "post_attention_layernorm.weight"),
    ],
)
def test_the_parity_check_rejects_exchanged_weights(
    one: str, other: str, checkpoint: tuple[Path, Any], export: Exporter
) -> None:
    bundle = export(checkpoint[0], precision="fp32")
    names = {one: other, other: one}
    weights = {
        graph: [place.model_copy(update={"name": names.get(place.name, place.name)}) for place in places]
        for graph, places in bundle.manifest.weights.items()
    }
    exchanged = Bundle(bundle.path, bundle.manifest.model_copy(update={"weights": weights}))
    assert _difference(NativeReference(exchanged), checkpoint[1]) > 5 * TOLERANCE


def _difference(reference: ReferenceModel, model: Any) -> float:
    prompt = picture_prompt(reference.bundle.manifest.model, seed=1, sizes=PICTURES)
    return compare_logits(reference.logits(prompt), transformers_logits(model, prompt)).relative_difference
