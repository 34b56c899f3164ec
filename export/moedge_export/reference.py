"""A readable executor of both bundle forms: ONNX Runtime for the graphs, numpy for the experts; slow and exact.

It is what exports are tested with and what `moedge verify --against` runs. Nothing here is tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from moedge_runtime.bundle import Bundle, Precision

from moedge_export.quantize import dequantize

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
Feeds = dict[str, npt.NDArray[Any]]


@dataclass
class Prompt:
    """Input of one call: token ids int64 [S] and a picture for every run of image tokens.

    Attributes:
        token_ids: With one image token for every merged patch.
        pictures: `pixel_values` [P, values of a patch] and `grid_thw` (t, h, w) of each picture.
    """

    token_ids: Int
    pictures: list[tuple[Float, tuple[int, int, int]]] = field(default_factory=list)


@dataclass
class Cache:
    """Keys and values [1, KV, M, D] of every layer, the tokens in them, and the position of the next text token."""

    keys: list[Float]
    values: list[Float]
    tokens: int = 0
    next_position: int = 0


class ReferenceModel:
    """An opened bundle that computes logits.

    Args:
        bundle: Of either form.
        keep: Keep sessions and experts for the next call. Without, there is one of each in memory at a time, so that a
            bundle of any size can be run.
    """

    def __init__(self, bundle: Bundle, *, keep: bool = True) -> None:
        self.bundle = bundle
        self.text = bundle.manifest.model.text
        self.vision = bundle.manifest.model.vision
        self._session = cache(self._open_session) if keep else self._open_session
        self._expert = cache(self._read_expert) if keep else self._read_expert

    def new_cache(self, slots: int) -> Cache:
        """An empty cache for `slots` tokens."""
        shape = (1, self.text.num_key_value_heads, slots, self.text.head_dim)
        empty = [np.zeros(shape, np.float32) for _ in range(2 * self.text.num_hidden_layers)]
        return Cache(empty[::2], empty[1::2])

    def logits(self, prompt: Prompt, cache: Cache | None = None) -> Float:
        """Logits [S, V] of all tokens of `prompt`, which follow the tokens in `cache`; the cache takes them in."""
        cache = cache or self.new_cache(len(prompt.token_ids))
        embeds = self.embed(prompt.token_ids)
        deepstack = np.zeros((len(self.vision.deepstack_visual_indexes), *embeds.shape), np.float32)
        if prompt.pictures:
            outputs = [self.picture_features(*picture) for picture in prompt.pictures]
            places = prompt.token_ids == self.bundle.manifest.model.tokens.image
            embeds[places] = np.concatenate([features for features, _ in outputs])
            deepstack[:, places] = np.concatenate([stack for _, stack in outputs], axis=1)
        positions = self.positions(prompt, cache.next_position)
        logits = self.decode(embeds, deepstack, positions, cache)
        cache.next_position = int(positions.max()) + 1
        return logits

    def greedy(self, prompt: Prompt, count: int) -> list[int]:
        """The `count` most likely tokens after `prompt`, one at a time."""
        cache = self.new_cache(len(prompt.token_ids) + count)
        tokens = [int(self.logits(prompt, cache)[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self.logits(Prompt(np.array(tokens[-1:])), cache)[-1].argmax()))
        return tokens

    def embed(self, token_ids: Int) -> Float:
        """Rows [S, H] of embedding.bin."""
        info, precision = self.bundle.manifest.embedding, self.bundle.manifest.quantization.embedding
        rows = np.memmap(self.bundle.file(info.file), np.uint8, "r").reshape(-1, info.row_bytes)[token_ids]
        if precision.bits == 32:
            floats: Float = rows.copy().view(np.float32)
            return floats
        hidden, blocks = self.text.hidden_size, self.text.hidden_size // precision.block_size
        ends = np.cumsum([hidden * precision.bits // 8, 2 * blocks])
        weight, scale, zero_point = (part.copy() for part in np.split(rows, ends, axis=1))
        return dequantize(
            weight, scale.view(np.float16), None if precision.symmetric else zero_point, precision, hidden
        )

    def picture_features(self, pixel_values: Float, grid_thw: tuple[int, int, int]) -> tuple[Float, Float]:
        """`image_features` [P/m², H] and `deepstack_features` [K, P/m², H]."""
        feeds: Feeds = {"pixel_values": pixel_values, "grid_thw": np.array(grid_thw, np.int64)}
        outputs = self._run(self.bundle.manifest.graphs.vision, feeds)
        return outputs["image_features"], outputs["deepstack_features"]

    def positions(self, prompt: Prompt, start: int) -> Int:
        """MRoPE positions [3, S]: as Qwen3VLMoeModel.get_rope_index (transformers 5.23)."""
        image, merge = self.bundle.manifest.model.tokens.image, self.vision.spatial_merge_size
        pieces, pictures, index = [], iter(prompt.pictures), 0
        while index < len(prompt.token_ids):
            if prompt.token_ids[index] != image:
                pieces.append(np.full((3, 1), start))
                index, start = index + 1, start + 1
                continue
            frames, height, width = next(pictures)[1]
            grid = np.indices((frames, height // merge, width // merge)).reshape(3, -1)
            pieces.append(grid + start)
            index, start = index + grid.shape[1], start + max(height, width) // merge
        return np.concatenate(pieces, axis=1)

    def rotary(self, positions: Int) -> tuple[Float, Float]:
        """Cosines and sines [S, D/2] of interleaved MRoPE (docs/bundle-format.md)."""
        half = self.text.head_dim // 2
        frequencies = (1.0 / self.text.rope_theta ** (np.arange(half) * 2 / self.text.head_dim)).astype(np.float32)
        axes = [j % 3 if j % 3 and j < 3 * self.text.mrope_section[j % 3] else 0 for j in range(half)]
        angles = positions[axes].T.astype(np.float32) * frequencies
        return np.cos(angles), np.sin(angles)

    def decode(self, embeds: Float, deepstack: Float, positions: Int, cache: Cache) -> Float:
        """Logits [S, V] from embeddings [S, H], DeepStack features [K, S, H] and positions [3, S]."""
        if self.bundle.manifest.form == "inline":
            return self._decode_inline(embeds, deepstack, positions, cache)
        total = cache.tokens + len(embeds)
        cos, sin = self.rotary(positions)
        hidden = embeds
        for layer, path in enumerate(self.bundle.manifest.graphs.layers):
            feeds: Feeds = {
                "hidden": hidden[None],
                "cos": cos,
                "sin": sin,
                "past_key": cache.keys[layer],
                "past_value": cache.values[layer],
                "seqlens_k": np.array([total - 1], np.int32),
                "total_sequence_length": np.array(total, np.int32),
            }
            outputs = self._run(path, feeds)
            cache.keys[layer], cache.values[layer] = outputs["present_key"], outputs["present_value"]
            if "hidden_out" in outputs:
                hidden = outputs["hidden_out"][0]
            else:
                hidden = outputs["residual"][0] + self.experts(layer, outputs["moe_input"], outputs["router_logits"])
            if layer < len(deepstack):
                hidden = hidden + deepstack[layer]
        cache.tokens = total
        head = self.bundle.manifest.graphs.head
        assert head is not None
        logits: Float = self._run(head, {"hidden": hidden[None]})["logits"][0]
        return logits

    def experts(self, layer: int, x: Float, router_logits: Float) -> Float:
        """Output [S, H] of a layer's experts for x [S, H]."""
        probabilities = np.exp(router_logits - router_logits.max(-1, keepdims=True))
        chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, : self.text.num_experts_per_tok]
        weights = np.take_along_axis(probabilities, chosen, axis=-1)
        weights /= weights.sum(-1, keepdims=True)
        output = np.zeros_like(x)
        for expert in np.unique(chosen):
            fc1, fc2 = self._expert(layer, int(expert))
            tokens, picks = np.nonzero(chosen == expert)
            gate_up = x[tokens] @ fc1.T
            gate, up = gate_up[:, 0::2], gate_up[:, 1::2]
            output[tokens] += weights[tokens, picks, None] * ((gate / (1 + np.exp(-gate)) * up) @ fc2.T)
        return output

    def _decode_inline(self, embeds: Float, deepstack: Float, positions: Int, cache: Cache) -> Float:
        total = cache.tokens + len(embeds)
        feeds: Feeds = {
            "inputs_embeds": embeds[None],
            "deepstack": deepstack,
            "position_ids": positions.astype(np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "logits_positions": np.arange(len(embeds)),
        }
        for layer, (key, value) in enumerate(zip(cache.keys, cache.values, strict=True)):
            feeds |= {f"past_key.{layer}": key, f"past_value.{layer}": value}
        model = self.bundle.manifest.graphs.model
        assert model is not None
        outputs = self._run(model, feeds)
        for layer in range(self.text.num_hidden_layers):
            cache.keys[layer] = outputs[f"present_key.{layer}"]
            cache.values[layer] = outputs[f"present_value.{layer}"]
        cache.tokens = total
        logits: Float = outputs["logits"][0]
        return logits

    def _run(self, path: str, feeds: Feeds) -> dict[str, Float]:
        session = self._session(path)
        names = {each.name for each in session.get_inputs()}
        outputs = session.run(None, {name: value for name, value in feeds.items() if name in names})
        return dict(zip([each.name for each in session.get_outputs()], outputs, strict=True))

    def _open_session(self, path: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.bundle.file(path), options, providers=["CPUExecutionProvider"])

    def _read_expert(self, layer: int, expert: int) -> tuple[Float, Float]:
        info, layout = self.bundle.manifest.experts, self.bundle.expert_layout
        assert info is not None
        record = self.text.moe_layers.index(layer) * self.text.num_experts + expert
        records = np.memmap(self.bundle.file(info.file), np.uint8, "r").reshape(-1, info.record_bytes)
        arrays = layout.unpack(np.array(records[record]))
        fc1 = _matrix(arrays, "fc1", layout.precision, self.text.hidden_size)
        return fc1, _matrix(arrays, "fc2", layout.precision, self.text.moe_intermediate_size)


def _matrix(arrays: dict[str, npt.NDArray[Any]], name: str, precision: Precision, inputs: int) -> Float:
    if precision.bits == 32:
        floats: Float = arrays[f"{name}.weight"]
        return floats
    return dequantize(
        arrays[f"{name}.weight"], arrays[f"{name}.scale"], arrays.get(f"{name}.zero_point"), precision, inputs
    )
