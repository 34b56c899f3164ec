"""Graphs of the decoder: a layer up to and including its router, and the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moedge_export.attention import CacheValues, attention
from moedge_export.graph import MICROSOFT, Shape
from moedge_export.matrix import checkpoint_matrix
from moedge_export.part import PartBuilder
from moedge_export.tensors import FINAL_NORM, layer_prefix


@dataclass(frozen=True)
class LayerValues:
    """What a decoder layer leaves behind; a layer without experts has only `hidden`.

    Attributes:
        hidden: [S, H], after the MLP; None in a layer with experts.
        residual: [S, H], after attention.
        moe_input: [S, H], the normed residual.
        router_logits: [S, num_experts].
    """

    hidden: str | None = None
    residual: str = ""
    moe_input: str = ""
    router_logits: str = ""


def decoder_layer(part: PartBuilder, layer: int, hidden: str, cache: CacheValues) -> LayerValues:
    """Add decoder layer `layer` on hidden states [S, H], without its experts.

    Follows Qwen3VLMoeTextDecoderLayer (transformers 5.23).
    """
    graph, text, prefix = part.graph, part.checkpoint.architecture.text, layer_prefix(layer)
    normed = part.rms_norm("input_layernorm", hidden, f"{prefix}.input_layernorm.weight")
    with graph.scope("self_attn"):
        attended = attention(part, f"{prefix}.self_attn", normed, cache)
    norm = part.weight("post_attention_layernorm.weight", f"{prefix}.post_attention_layernorm.weight")
    moe_input, _, _, residual = graph.ops(
        "SkipSimplifiedLayerNormalization",
        attended,
        hidden,
        norm,
        outputs=4,
        domain=MICROSOFT,
        epsilon=text.rms_norm_eps,
    )
    with graph.scope("mlp"):
        if layer in text.moe_layers:
            router = part.weight("gate.weight", f"{prefix}.mlp.gate.weight")
            logits = graph.op("Gemm", moe_input, router, transB=1)
            return LayerValues(residual=residual, moe_input=moe_input, router_logits=logits)
        return LayerValues(hidden=graph.op("Add", residual, _mlp(part, f"{prefix}.mlp", moe_input)))


def head(part: PartBuilder, hidden: str) -> str:
    """Add the final norm and the head on hidden states [S, H]; returns logits [S, V]."""
    normed = part.rms_norm("norm", hidden, FINAL_NORM)
    return part.product("lm_head", normed, checkpoint_matrix(part.checkpoint, part.checkpoint.head_name))


def build_layer(part: PartBuilder, layer: int) -> None:
    """Fill the part's graph with layers/NN.onnx as docs/bundle-format.md describes it."""
    graph, text = part.graph, part.checkpoint.architecture.text
    hidden_size, half = text.hidden_size, text.head_dim // 2
    past: Shape = [1, text.num_key_value_heads, "slots", text.head_dim]
    hidden = graph.input("hidden", np.float32, [1, "tokens", hidden_size])
    cache = CacheValues(
        cos=graph.input("cos", np.float32, ["tokens", half]),
        sin=graph.input("sin", np.float32, ["tokens", half]),
        past_key=graph.input("past_key", np.float32, past),
        past_value=graph.input("past_value", np.float32, past),
        present_key="present_key",
        present_value="present_value",
        seqlens_k=graph.input("seqlens_k", np.int32, [1]),
        total_sequence_length=graph.input("total_sequence_length", np.int32, []),
    )
    hidden = graph.op("Reshape", hidden, graph.constant([-1, hidden_size]))
    values = decoder_layer(part, layer, hidden, cache)
    sequence: Shape = [1, "tokens", hidden_size]

    def as_sequence(value: str) -> str:
        return graph.op("Unsqueeze", value, graph.constant([0]))

    if values.hidden is not None:
        graph.output("hidden_out", as_sequence(values.hidden), np.float32, sequence)
    else:
        graph.output("residual", as_sequence(values.residual), np.float32, sequence)
        graph.output("moe_input", values.moe_input, np.float32, ["tokens", hidden_size])
        graph.output("router_logits", values.router_logits, np.float32, ["tokens", text.num_experts])
        if layer + 1 in text.moe_layers:
            guess = _next_router_logits(part, layer + 1, values.residual)
            graph.output("next_router_logits", guess, np.float32, [1, text.num_experts])
    present: Shape = [1, text.num_key_value_heads, "present_slots", text.head_dim]
    graph.output("present_key", "present_key", np.float32, present)
    graph.output("present_value", "present_value", np.float32, present)


def build_head(part: PartBuilder) -> None:
    """Fill the part's graph with head.onnx as docs/bundle-format.md describes it."""
    graph, text = part.graph, part.checkpoint.architecture.text
    hidden = graph.input("hidden", np.float32, [1, "tokens", text.hidden_size])
    logits = head(part, graph.op("Squeeze", hidden, graph.constant([0])))
    logits = graph.op("Unsqueeze", logits, graph.constant([0]))
    graph.output("logits", logits, np.float32, [1, "tokens", text.vocab_size])


def _next_router_logits(part: PartBuilder, next_layer: int, residual: str) -> str:
    """What the router of `next_layer` would say of the last of [S, H], were there nothing in between; [1, num_experts].

    On a public trace of Qwen3-30B-A3B it foresees 89 % of a token's experts. A guess may be as coarse as the attention.
    """
    graph, prefix = part.graph, layer_prefix(next_layer)
    with graph.scope("next_router"):
        last = graph.op("Gather", residual, graph.constant([-1]), axis=0)
        normed = part.rms_norm("norm", last, f"{prefix}.post_attention_layernorm.weight")
        return part.linear("gate", normed, f"{prefix}.mlp.gate")


def _mlp(part: PartBuilder, prefix: str, x: str) -> str:
    gate_up = part.linear("gate_up_proj", x, f"{prefix}.gate_proj", f"{prefix}.up_proj")
    gate, up = part.graph.ops("Split", gate_up, outputs=2, axis=-1, num_outputs=2)
    gated = part.graph.op("Mul", part.graph.op("Mul", gate, part.graph.op("Sigmoid", gate)), up)
    return part.linear("down_proj", gated, f"{prefix}.down_proj")
