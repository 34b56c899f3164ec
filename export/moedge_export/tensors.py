"""Names and shapes of all tensors that a checkpoint of an architecture must hold."""

from __future__ import annotations

from moedge_export.architecture import Architecture

EMBEDDING = "model.language_model.embed_tokens.weight"
FINAL_NORM = "model.language_model.norm.weight"
HEAD = "lm_head.weight"
VISION = "model.visual"

Shapes = dict[str, tuple[int, ...]]


def layer_prefix(layer: int) -> str:
    """Common start of the tensor names of a decoder layer."""
    return f"model.language_model.layers.{layer}"


def expected_tensors(architecture: Architecture) -> Shapes:
    """Shape of every tensor by name, without the head's, which may be tied to the embedding.

    Expert tensors are listed as transformers holds them in memory, [experts, outputs, inputs]; a checkpoint may store
    the last two axes exchanged (`checkpoint_layouts`).
    """
    text = architecture.text
    shapes: Shapes = {EMBEDDING: (text.vocab_size, text.hidden_size), FINAL_NORM: (text.hidden_size,)}
    for layer in range(text.num_hidden_layers):
        shapes |= _layer_tensors(architecture, layer)
    return shapes | _vision_tensors(architecture)


def expert_tensors(architecture: Architecture, layer: int) -> Shapes:
    """The two tensors that hold a layer's experts, as [experts, outputs, inputs]."""
    text, prefix = architecture.text, f"{layer_prefix(layer)}.mlp.experts"
    return {
        f"{prefix}.gate_up_proj": (text.num_experts, 2 * text.moe_intermediate_size, text.hidden_size),
        f"{prefix}.down_proj": (text.num_experts, text.hidden_size, text.moe_intermediate_size),
    }


def _layer_tensors(architecture: Architecture, layer: int) -> Shapes:
    text, prefix = architecture.text, layer_prefix(layer)
    hidden = text.hidden_size
    query, key_value = (count * text.head_dim for count in (text.num_attention_heads, text.num_key_value_heads))
    linear = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, query),
    }
    shapes: Shapes = {f"{prefix}.{name}.weight": shape for name, shape in linear.items()}
    if architecture.attention_bias:
        shapes |= {f"{prefix}.{name}.bias": shape[:1] for name, shape in linear.items()}
    for name, size in (
        ("input_layernorm", hidden),
        ("post_attention_layernorm", hidden),
        ("self_attn.q_norm", text.head_dim),
        ("self_attn.k_norm", text.head_dim),
    ):
        shapes[f"{prefix}.{name}.weight"] = (size,)
    if layer in text.moe_layers:
        shapes[f"{prefix}.mlp.gate.weight"] = (text.num_experts, hidden)
        shapes |= expert_tensors(architecture, layer)
    else:
        for name, shape in (
            ("gate_proj", (architecture.intermediate_size, hidden)),
            ("up_proj", (architecture.intermediate_size, hidden)),
            ("down_proj", (hidden, architecture.intermediate_size)),
        ):
            shapes[f"{prefix}.mlp.{name}.weight"] = shape
    return shapes


def _vision_tensors(architecture: Architecture) -> Shapes:
    vision = architecture.vision
    hidden, merged = vision.hidden_size, vision.hidden_size * vision.spatial_merge_size**2
    patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    shapes: Shapes = {
        f"{VISION}.patch_embed.proj.weight": (hidden, *patch),
        f"{VISION}.patch_embed.proj.bias": (hidden,),
        f"{VISION}.pos_embed.weight": (vision.num_position_embeddings, hidden),
    }
    for block in range(vision.depth):
        prefix = f"{VISION}.blocks.{block}"
        for name in ("norm1", "norm2"):
            shapes |= {f"{prefix}.{name}.weight": (hidden,), f"{prefix}.{name}.bias": (hidden,)}
        for name, rows, inputs in (
            ("attn.qkv", 3 * hidden, hidden),
            ("attn.proj", hidden, hidden),
            ("mlp.linear_fc1", architecture.vision_intermediate_size, hidden),
            ("mlp.linear_fc2", hidden, architecture.vision_intermediate_size),
        ):
            shapes |= {f"{prefix}.{name}.weight": (rows, inputs), f"{prefix}.{name}.bias": (rows,)}
    mergers = [(f"{VISION}.merger", hidden)]
    mergers += [(f"{VISION}.deepstack_merger_list.{index}", merged) for index in architecture.deepstack_mergers]
    for prefix, normed in mergers:
        shapes |= {f"{prefix}.norm.weight": (normed,), f"{prefix}.norm.bias": (normed,)}
        for name, rows in (("linear_fc1", merged), ("linear_fc2", vision.out_hidden_size)):
            shapes |= {f"{prefix}.{name}.weight": (rows, merged), f"{prefix}.{name}.bias": (rows,)}
    return shapes
