"""How many operations a frame takes, from a manifest alone; a multiplication and an addition count two. Pure.

Weights of graphs are counted from the sizes of their files, since a manifest does not list matrices: bytes over the
bytes of a quantized weight. What graphs keep in float32, such as routers, makes that up to 5 % too many.
"""

from __future__ import annotations

from collections.abc import Iterable

from moedge_runtime.bundle import Manifest, Precision

SCALE_BYTES = 4
"""Of a block in a graph: float32, as com.microsoft.MatMulNBits has it here."""


def stored_bytes(manifest: Manifest, graphs: Iterable[str]) -> int:
    """Bytes of graphs, with the files in which their large weights lie."""
    wanted = set(graphs)
    return sum(entry.nbytes for entry in manifest.files if entry.path.removesuffix(".data") in wanted)


def weight_bytes(precision: Precision) -> float:
    """Bytes of a weight in a graph, its part of a scale included."""
    return 4.0 if precision.bits == 32 else precision.bits / 8 + SCALE_BYTES / precision.block_size


def layer_weights(manifest: Manifest) -> float:
    """Weights of all decoder layers besides experts."""
    return stored_bytes(manifest, manifest.graphs.layers) / weight_bytes(manifest.quantization.attention)


def head_weights(manifest: Manifest) -> float:
    """Weights of the head."""
    assert manifest.graphs.head is not None, "an inline bundle has no head of its own"
    return stored_bytes(manifest, [manifest.graphs.head]) / weight_bytes(manifest.quantization.head)


def layer_operations(manifest: Manifest, tokens: int) -> float:
    """Of a prefill of `tokens` in all decoder layers besides experts: matrices, and attention to what came before."""
    text = manifest.model.text
    attention = 2.0 * tokens**2 * text.num_attention_heads * text.head_dim * text.num_hidden_layers
    return 2.0 * tokens * layer_weights(manifest) + attention


def expert_operations(manifest: Manifest, tokens: int) -> float:
    """Of a prefill of `tokens` in the experts of all layers."""
    text = manifest.model.text
    weights = 3.0 * text.hidden_size * text.moe_intermediate_size
    return 2.0 * tokens * len(text.moe_layers) * text.num_experts_per_tok * weights


def dense_token_operations(manifest: Manifest) -> float:
    """Of one decoded token in layers and head; attention to what came before is left out, a percent of it."""
    return 2.0 * (layer_weights(manifest) + head_weights(manifest))


def vision_operations(manifest: Manifest, patches: int) -> float:
    """Of a picture of `patches` in the vision tower: its blocks see patches, its mergers as many image tokens."""
    tower = manifest.model.vision
    merged = tower.hidden_size * tower.spatial_merge_size**2
    mergers = (1 + len(tower.deepstack_visual_indexes)) * merged * (merged + tower.out_hidden_size)
    all_weights = stored_bytes(manifest, [manifest.graphs.vision]) / weight_bytes(manifest.quantization.vision)
    blocks = max(0.0, all_weights - mergers)
    attention = 4.0 * patches**2 * tower.hidden_size * tower.depth
    return 2.0 * (blocks * patches + mergers * patches / tower.spatial_merge_size**2) + attention
