"""What the native core's dense layers take in memory, from a bundle's manifest alone.

Source of the layout: runtime/core/src/dense_layout.cpp and dense.cpp; a test compares the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.bundle import Manifest, Precision
from moedge_runtime.inference.layer_call import PIECE_TOKENS

TILE_ROWS, HALF_ROWS = 32, 16
SECTION_BYTES = 4096
VECTOR_BYTES = 64

ROW_ALIGNMENT, TERM_BYTES = 64, 8
"""kRowAlignment and kTermBytes."""

QUERY_LANES, CHUNK_KEYS, QUERIES_OF_TASK = 8, 128, 64
"""kQueryLanes, kChunkKeys and kQueriesOfTask."""

LAYERS_AHEAD = 3
"""MOEDGE_LAYERS_AHEAD: a token is shown the routers of so many layers before it reaches them."""

QKV, OUTPUT = "self_attn/qkv_proj", "self_attn/o_proj"
GATE_UP, DOWN = "mlp/gate_up_proj", "mlp/down_proj"
"""Names of matrices in a layer's graph, as `moedge_export.decoder` gives them; `<name>.weight` and so on are theirs."""

_FLOATS = Precision(bits=32)


@dataclass(frozen=True)
class DenseShape:
    """The shape of the dense layers, as far as it is not in the manifest's numbers.

    Attributes:
        intermediate_size: Of the layers without experts; 0 if there is none.
        biased: Whether the attention's products have a bias.
    """

    intermediate_size: int
    biased: bool

    @classmethod
    def of(cls, manifest: Manifest) -> DenseShape:
        """Read it from the manifest's table of weights, which must not be empty."""
        tables = [manifest.weights[graph] for graph in manifest.graphs.layers]
        rows = {place.name: place.shape[0] for table in tables for place in table}
        return cls(rows.get(f"{GATE_UP}.weight", 0) // 2, f"{QKV}.bias" in rows)


def dense_weight_bytes(manifest: Manifest, shape: DenseShape) -> tuple[int, int]:
    """Bytes of the weights of all layers, and of the head, behind them."""
    text, quantization = manifest.model.text, manifest.quantization
    hidden, experts = text.hidden_size, frozenset(text.moe_layers)
    mixed = text.num_attention_heads * text.head_dim
    projected = mixed + 2 * text.num_key_value_heads * text.head_dim
    places = Places()
    for layer in range(text.num_hidden_layers):
        guesses = layer in experts and layer + 1 in experts
        for count in (
            projected if shape.biased else 0,
            hidden if shape.biased else 0,
            hidden,
            text.head_dim,
            text.head_dim,
            hidden,
            hidden if guesses else 0,
        ):
            places.vector(count)
        places.matrix(projected, hidden, quantization.attention)
        places.matrix(hidden, mixed, quantization.attention)
        if layer in experts:
            places.matrix(text.num_experts, hidden, _FLOATS)
            if guesses:
                places.matrix(text.num_experts, hidden, quantization.attention)
        else:
            # A tile has sixteen gates and as many ups.
            places.matrix(2 * up(shape.intermediate_size, HALF_ROWS), hidden, quantization.attention)
            places.matrix(hidden, shape.intermediate_size, quantization.attention)
    layers = places.end
    places.vector(hidden)
    places.matrix(text.vocab_size, hidden, quantization.head)
    return layers, places.end - layers


def dense_buffer_bytes(manifest: Manifest, shape: DenseShape, max_context: int, threads: int) -> int:
    """Bytes of what the layers compute in, for a cache of `max_context` tokens."""
    text, quantization = manifest.model.text, manifest.quantization
    tokens = min(PIECE_TOKENS, max_context)
    mixed = text.num_attention_heads * text.head_dim
    projected = mixed + 2 * text.num_key_value_heads * text.head_dim
    row = max(
        *(row_bytes(inputs, quantization.attention) for inputs in (text.hidden_size, mixed, shape.intermediate_size)),
        row_bytes(text.hidden_size, quantization.head),
    )
    group = text.num_attention_heads // text.num_key_value_heads
    one = up(group, QUERY_LANES)
    most = up(max(1, QUERIES_OF_TASK // group) * group, QUERY_LANES)
    chunks = -(-max_context // CHUNK_KEYS)
    scratch = text.hidden_size + attention_values(text.head_dim, most)
    parts = (
        tokens * row,
        LAYERS_AHEAD * row,
        4 * tokens * projected,
        4 * tokens * shape.intermediate_size,
        4 * text.num_key_value_heads * text.head_dim * one,
        4 * chunks * text.num_key_value_heads * one * (text.head_dim + 2),
        threads * up(4 * scratch, SECTION_BYTES),
    )
    return sum(up(part, SECTION_BYTES) for part in parts)


def attention_values(head_dim: int, lanes: int) -> int:
    """float32 values of what a thread computes attention of so many queries in."""
    return head_dim * lanes + CHUNK_KEYS * lanes + lanes + 2 * lanes * (head_dim + 2)


class Places:
    """Hands out places one after the other.

    Attributes:
        end: Bytes so far.
    """

    def __init__(self) -> None:
        self.end = 0

    def vector(self, count: int) -> None:
        """Place `count` float32 values."""
        self.end = up(self.end, VECTOR_BYTES) + 4 * count

    def matrix(self, rows: int, inputs: int, precision: Precision) -> None:
        """Place a matrix in tiles."""
        tiles = -(-rows // TILE_ROWS)
        self.end = up(self.end, SECTION_BYTES)
        if precision.bits == 32:
            self.end += up(tiles * TILE_ROWS * inputs * 4, SECTION_BYTES)
            return
        values = tiles * TILE_ROWS * -(-inputs // precision.block_size)  # one a block
        self.end += up(values * precision.block_size * precision.bits // 8, SECTION_BYTES)
        self.end += up(values * 2, SECTION_BYTES)
        if not precision.symmetric:
            self.end += up(values * precision.bits // 8, SECTION_BYTES)


def row_bytes(inputs: int, precision: Precision) -> int:
    """Bytes of an activation row of `inputs` values."""
    if precision.bits == 32:
        return 4 * inputs
    return up(-(-inputs // precision.block_size) * (precision.block_size + TERM_BYTES), ROW_ALIGNMENT)


def up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
