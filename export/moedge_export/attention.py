"""Self-attention of a decoder layer: QK-norm, rotary embedding, grouped queries over a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from moedge_export.graph import MICROSOFT, GraphBuilder
from moedge_export.part import PartBuilder

GROUP_QUERY_HEAD_MULTIPLE = 8
"""com.microsoft.GroupQueryAttention refuses other head sizes (onnxruntime 1.32, group_query_attention_helper.h)."""


@dataclass(frozen=True)
class CacheValues:
    """Names of the values that attention needs beside the hidden states.

    Attributes:
        cos: [S, D/2], and `sin` alike.
        past_key: [1, KV, M, D], and `past_value` alike.
        present_key: Name to give to the updated cache, and `present_value` alike.
        seqlens_k: int32 [1], tokens in the cache after this call − 1.
        total_sequence_length: int32 [], tokens in the cache after this call.
    """

    cos: str
    sin: str
    past_key: str
    past_value: str
    present_key: str
    present_value: str
    seqlens_k: str
    total_sequence_length: str


@dataclass(frozen=True)
class _Heads:
    queries: int
    keys: int
    size: int


def attention(part: PartBuilder, prefix: str, x: str, cache: CacheValues) -> str:
    """Add the attention block on normed hidden states [S, H]; returns its output [S, H], before the residual.

    Follows Qwen3VLMoeTextAttention (transformers 5.23). Query, key and value are one matrix product.
    """
    graph, text, bias = part.graph, part.checkpoint.architecture.text, part.checkpoint.architecture.attention_bias
    heads = _Heads(text.num_attention_heads, text.num_key_value_heads, text.head_dim)
    qkv = part.linear("qkv_proj", x, *(f"{prefix}.{each}_proj" for each in "qkv"), bias=bias)
    sizes = graph.constant([count * heads.size for count in (heads.queries, heads.keys, heads.keys)])
    query, key, value = graph.ops("Split", qkv, sizes, outputs=3, axis=-1)

    def norm_and_rotate(value: str, name: str, count: int) -> str:
        by_head = graph.op("Reshape", value, graph.constant([1, -1, count, heads.size]))
        normed = part.rms_norm(name, by_head, f"{prefix}.{name}.weight")
        flat = graph.op("Reshape", normed, graph.constant([1, -1, count * heads.size]))
        # Row s of cos and sin belongs to token s of this call: position ids of shape [1] are the first row's index.
        return graph.op(
            "RotaryEmbedding", flat, graph.constant([0]), cache.cos, cache.sin, domain=MICROSOFT, num_heads=count
        )

    query = norm_and_rotate(query, "q_norm", heads.queries)
    key = norm_and_rotate(key, "k_norm", heads.keys)
    value = graph.op("Reshape", value, graph.constant([1, -1, heads.keys * heads.size]))
    supported = heads.size % GROUP_QUERY_HEAD_MULTIPLE == 0
    mixed = (_group_query_attention if supported else _plain_attention)(graph, cache, (query, key, value), heads)
    mixed = graph.op("Reshape", mixed, graph.constant([-1, heads.queries * heads.size]))
    return part.linear("o_proj", mixed, f"{prefix}.o_proj", bias=bias)


def _group_query_attention(graph: GraphBuilder, cache: CacheValues, qkv: tuple[str, str, str], heads: _Heads) -> str:
    return graph.ops(
        "GroupQueryAttention",
        *qkv,
        cache.past_key,
        cache.past_value,
        cache.seqlens_k,
        cache.total_sequence_length,
        outputs=["", cache.present_key, cache.present_value],
        domain=MICROSOFT,
        num_heads=heads.queries,
        kv_num_heads=heads.keys,
        do_rotary=0,
    )[0]


def _plain_attention(graph: GraphBuilder, cache: CacheValues, qkv: tuple[str, str, str], heads: _Heads) -> str:
    """The same from standard operators, for head sizes that GroupQueryAttention refuses; it copies the cache."""
    query, key, value = qkv
    tokens = graph.op("Shape", query, start=1, end=2)
    total = graph.op(
        "Reshape", graph.op("Cast", cache.total_sequence_length, to=TensorProto.INT64), graph.constant([1])
    )
    past = graph.op("Sub", total, tokens)
    places = graph.op(
        "Range", *(graph.op("Squeeze", each) for each in (past, total)), graph.constant(1)
    )  # int64 [S]: cache slots of this call's tokens

    def update(past_name: str, new: str, present_name: str) -> str:
        by_head = graph.op("Reshape", new, graph.constant([-1, heads.keys, heads.size]))
        slots_first = graph.op("Transpose", past_name, perm=[2, 0, 1, 3])  # [M, 1, KV, D]
        new_rows = graph.op("Unsqueeze", by_head, graph.constant([1]))  # [S, 1, KV, D]
        indices = graph.op("Unsqueeze", places, graph.constant([1]))
        written = graph.op("ScatterND", slots_first, indices, new_rows)
        return graph.op("Transpose", written, perm=[1, 2, 0, 3], output=present_name)

    keys = update(cache.past_key, key, cache.present_key)
    values = update(cache.past_value, value, cache.present_value)
    group = heads.queries // heads.keys
    # [1, KV, group, S, D] against [1, KV, 1, total, D]
    queries = graph.op("Reshape", query, graph.constant([1, -1, heads.keys, group, heads.size]))
    queries = graph.op("Transpose", queries, perm=[0, 2, 3, 1, 4])

    def used(cached: str) -> str:
        part = graph.op("Slice", cached, graph.constant([0]), total, graph.constant([2]))
        return graph.op("Unsqueeze", part, graph.constant([2]))

    scores = graph.op("MatMul", queries, graph.op("Transpose", used(keys), perm=[0, 1, 2, 4, 3]))
    scores = graph.op("Mul", scores, graph.constant(heads.size**-0.5, np.float32))
    zero, one = graph.constant(0), graph.constant(1)
    columns = graph.op("Range", zero, graph.op("Squeeze", total), one)
    seen = graph.op("LessOrEqual", columns, graph.op("Unsqueeze", places, graph.constant([1])))  # [S, total]
    scores = graph.op("Where", seen, scores, graph.constant(np.finfo(np.float32).min, np.float32))
    weights = graph.op("Softmax", scores, axis=-1)
    mixed = graph.op("MatMul", weights, used(values))  # [1, KV, group, S, D]
    return graph.op("Transpose", mixed, perm=[0, 3, 1, 2, 4])
