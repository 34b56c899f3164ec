"""The decoder with its experts as one ONNX model, for machines that have the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from moedge_runtime.bundle import TextInfo
from onnx import TensorProto

from moedge_export.attention import CacheValues
from moedge_export.decoder import decoder_layer, head
from moedge_export.experts import EncodedExpert, encode_expert, expert_layout
from moedge_export.graph import MICROSOFT, GraphBuilder, Shape
from moedge_export.part import PartBuilder

QMOE_INPUTS = {
    "fc1.weight": 2, "fc1.scale": 3, "fc2.weight": 5, "fc2.scale": 6, "fc1.zero_point": 11, "fc2.zero_point": 12,
}  # fmt: skip
"""Input index of com.microsoft.QMoE (onnxruntime 1.32) for each array of an expert."""

MOE_INPUTS = {"fc1.weight": 2, "fc2.weight": 4}
"""The same for com.microsoft.MoE, which computes in float32."""


@dataclass(frozen=True)
class InlineParts:
    """The parts of the inline model, all with the same graph."""

    attention: PartBuilder
    head: PartBuilder
    experts: PartBuilder


def build_inline(parts: InlineParts) -> None:
    """Fill the parts' graph, which is empty, with model.onnx as docs/bundle-format.md describes it."""
    graph, checkpoint = parts.attention.graph, parts.attention.checkpoint
    text = checkpoint.architecture.text
    taps = len(checkpoint.architecture.vision.deepstack_visual_indexes)
    embeds = graph.input("inputs_embeds", np.float32, [1, "tokens", text.hidden_size])
    deepstack = graph.input("deepstack", np.float32, [taps, "tokens", text.hidden_size])
    positions = graph.input("position_ids", np.int64, [3, "tokens"])
    mask = graph.input("attention_mask", np.int64, [1, "total"])
    wanted = graph.input("logits_positions", np.int64, ["wanted"])
    cos, sin = mrope_cos_sin(graph, text, positions)
    total = graph.op("ReduceSum", mask, graph.constant([1]), keepdims=0)
    last = graph.op("Cast", graph.op("Sub", total, graph.constant([1])), to=TensorProto.INT32)
    total = graph.op("Cast", graph.op("Squeeze", total), to=TensorProto.INT32)
    hidden = graph.op("Squeeze", embeds, graph.constant([0]))
    past: Shape = [1, text.num_key_value_heads, "slots", text.head_dim]
    for layer in range(text.num_hidden_layers):
        cache = CacheValues(
            cos=cos,
            sin=sin,
            past_key=graph.input(f"past_key.{layer}", np.float32, past),
            past_value=graph.input(f"past_value.{layer}", np.float32, past),
            present_key=f"present_key.{layer}",
            present_value=f"present_value.{layer}",
            seqlens_k=last,
            total_sequence_length=total,
        )
        with graph.scope(f"layers.{layer}"):
            values = decoder_layer(parts.attention, layer, hidden, cache)
            if values.hidden is not None:
                hidden = values.hidden
            else:
                mixed = _experts(parts.experts, layer, (values.moe_input, values.router_logits))
                hidden = graph.op("Add", values.residual, mixed)
            if layer < taps:
                hidden = graph.op("Add", hidden, graph.op("Gather", deepstack, graph.constant(layer), axis=0))
    hidden = graph.op("Gather", hidden, wanted, axis=0)
    logits = graph.op("Unsqueeze", head(parts.head, hidden), graph.constant([0]))
    graph.output("logits", logits, np.float32, [1, "wanted", text.vocab_size])
    present: Shape = [1, text.num_key_value_heads, "present_slots", text.head_dim]
    for layer in range(text.num_hidden_layers):
        for kind in ("key", "value"):
            graph.output(f"present_{kind}.{layer}", f"present_{kind}.{layer}", np.float32, present)


def mrope_cos_sin(graph: GraphBuilder, text: TextInfo, position_ids: str) -> tuple[str, str]:
    """Cosines and sines [S, D/2] of the interleaved MRoPE at int64 [3, S] positions."""
    frequencies = graph.constant(mrope_frequencies(text), np.float32)
    by_frequency = graph.op("Gather", position_ids, graph.constant(mrope_axes(text)), axis=0)
    by_token = graph.op("Cast", graph.op("Transpose", by_frequency, perm=[1, 0]), to=TensorProto.FLOAT)
    angles = graph.op("Mul", by_token, frequencies)
    return graph.op("Cos", angles), graph.op("Sin", angles)


def mrope_axes(text: TextInfo) -> list[int]:
    """For each of the D/2 frequencies the position that it follows: 0 temporal, 1 height, 2 width."""
    return [j % 3 if j % 3 and j < 3 * text.mrope_section[j % 3] else 0 for j in range(text.head_dim // 2)]


def mrope_frequencies(text: TextInfo) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The D/2 rotary frequencies, in float32 as Qwen3VLMoeTextRotaryEmbedding computes them (transformers 5.23)."""
    exponents = torch.arange(0, text.head_dim, 2, dtype=torch.float) / text.head_dim
    frequencies: np.ndarray[tuple[int], np.dtype[np.float32]] = (1.0 / (text.rope_theta**exponents)).numpy()
    return frequencies


def _experts(part: PartBuilder, layer: int, inputs: tuple[str, str]) -> str:
    """Add the experts of a layer on their input [S, H] and the router's logits [S, E]; returns [S, H]."""
    graph, checkpoint, quantizer = part.graph, part.checkpoint, part.quantizer
    text, precision = checkpoint.architecture.text, quantizer.precision
    slots, names = {}, {}
    for array in expert_layout(checkpoint, quantizer).row_major:
        names[array.name], slots[array.name] = graph.reserve(
            f"experts.{array.name}", array.dtype, (text.num_experts, *array.shape)
        )

    def encoded(expert: int) -> EncodedExpert:
        return encode_expert(checkpoint, quantizer, layer, expert)

    for expert, result in quantizer.in_order(encoded, range(text.num_experts)):
        result.count(quantizer)
        for name, values in result.arrays.items():
            slots[name].write(expert, values[None])
    places = MOE_INPUTS if precision.bits == 32 else QMOE_INPUTS
    operands = [*inputs, *[""] * (max(places[name] for name in names) - 1)]
    for name, value in names.items():
        operands[places[name]] = value
    # accuracy_level is written even where it has no effect: ONNX Runtime before 1.31 refuses the attribute, and without
    # it 1.24 to 1.30 would load zero points and compute something else.
    attributes: dict[str, Any] = {}
    if precision.bits != 32:
        attributes = {
            "expert_weight_bits": precision.bits,
            "block_size": precision.block_size,
            "accuracy_level": quantizer.accuracy_level,
        }
    return graph.op(
        "MoE" if precision.bits == 32 else "QMoE",
        *operands,
        domain=MICROSOFT,
        k=text.num_experts_per_tok,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=1.0,
        activation_beta=0.0,
        normalize_routing_weights=1,
        **attributes,
    )
