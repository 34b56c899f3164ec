"""The numbers of a checkpoint's config that the export needs, checked against what the graphs can express."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moedge_runtime.bundle import TextInfo, VisionInfo
from moedge_runtime.errors import CheckpointError

MODEL_TYPE = "qwen3_vl_moe"

GELU_APPROXIMATIONS = {"gelu": "none", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh"}
"""ONNX Gelu's `approximate` for each activation name of transformers' ACT2FN that the vision tower may have."""


@dataclass(frozen=True)
class Architecture:
    """A Qwen3-VL-MoE model's shape: what the manifest says, and what only the graphs need to know."""

    name: str
    """Class name from the config's `architectures`."""
    text: TextInfo
    vision: VisionInfo
    intermediate_size: int
    """Width of the MLP in decoder layers without experts."""
    attention_bias: bool
    vision_intermediate_size: int
    vision_gelu: str
    """`approximate` attribute of ONNX Gelu: "none" or "tanh"."""
    vision_rope_theta: float
    deepstack_mergers: list[int]
    """Index into `deepstack_merger_list` for each of `vision.deepstack_visual_indexes`."""

    @property
    def position_grid_side(self) -> int:
        """Side of the square grid of learned vision position embeddings."""
        return int(self.vision.num_position_embeddings**0.5)

    @property
    def patch_values(self) -> int:
        """Number of values of one image patch: channels × temporal_patch × patch × patch."""
        return self.vision.in_channels * self.vision.temporal_patch_size * self.vision.patch_size**2


def read_architecture(config: Any) -> Architecture:
    """Take the numbers out of a transformers `Qwen3VLMoeConfig`.

    Raises:
        CheckpointError: A value that no graph of this exporter implements; all of them are reported together.
    """
    text, vision = config.text_config, config.vision_config
    problems = _text_problems(text) + _vision_problems(vision, text)
    if problems:
        raise CheckpointError(
            f"The checkpoint's config cannot be exported: {' '.join(problems)}", key="checkpoint.config_unsupported"
        )
    # transformers walks the layers in order and looks each one up in the list, whatever order the list has.
    listed = list(vision.deepstack_visual_indexes)
    taps = [layer for layer in range(vision.depth) if layer in listed]
    rope = text.rope_parameters
    return Architecture(
        name=(config.architectures or ["Qwen3VLMoeForConditionalGeneration"])[0],
        text=TextInfo(
            hidden_size=text.hidden_size,
            num_hidden_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            num_key_value_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
            vocab_size=text.vocab_size,
            num_experts=text.num_experts,
            num_experts_per_tok=text.num_experts_per_tok,
            moe_intermediate_size=text.moe_intermediate_size,
            moe_layers=_moe_layers(text),
            rms_norm_eps=text.rms_norm_eps,
            rope_theta=rope["rope_theta"],
            mrope_section=tuple(rope.get("mrope_section", (24, 20, 20))),
            max_position_embeddings=text.max_position_embeddings,
            tie_word_embeddings=config.tie_word_embeddings,
        ),
        vision=VisionInfo(
            depth=vision.depth,
            hidden_size=vision.hidden_size,
            num_heads=vision.num_heads,
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            spatial_merge_size=vision.spatial_merge_size,
            in_channels=vision.in_channels,
            out_hidden_size=vision.out_hidden_size,
            num_position_embeddings=vision.num_position_embeddings,
            deepstack_visual_indexes=taps,
        ),
        intermediate_size=text.intermediate_size,
        attention_bias=text.attention_bias,
        vision_intermediate_size=vision.intermediate_size,
        vision_gelu=GELU_APPROXIMATIONS[vision.hidden_act],
        vision_rope_theta=vision.rope_parameters["rope_theta"],
        deepstack_mergers=[listed.index(layer) for layer in taps],
    )


def _moe_layers(text: Any) -> list[int]:
    # As in Qwen3VLMoeTextDecoderLayer.__init__ (transformers 5.23).
    return [
        layer
        for layer in range(text.num_hidden_layers)
        if layer not in text.mlp_only_layers and text.num_experts > 0 and (layer + 1) % text.decoder_sparse_step == 0
    ]


def _text_problems(text: Any) -> list[str]:
    rope = text.rope_parameters or {}
    section = rope.get("mrope_section", (24, 20, 20))
    checks = (
        (text.hidden_act == "silu", f"hidden_act is '{text.hidden_act}'; experts and MLPs are exported with 'silu'."),
        (
            rope.get("rope_type") == "default",
            f"rope_type is '{rope.get('rope_type')}'; only 'default' is exported, so set no rope scaling.",
        ),
        (len(section) == 3, f"mrope_section has {len(section)} values; it needs temporal, height and width."),
        (text.head_dim % 2 == 0, f"head_dim is {text.head_dim}; rotary embeddings need an even number."),
        (
            text.num_attention_heads % text.num_key_value_heads == 0,
            f"num_attention_heads {text.num_attention_heads} is no multiple of num_key_value_heads "
            f"{text.num_key_value_heads}.",
        ),
        (
            1 <= text.num_experts_per_tok <= text.num_experts,
            f"num_experts_per_tok is {text.num_experts_per_tok}; it must lie between 1 and num_experts, "
            f"{text.num_experts}.",
        ),
        (
            getattr(text, "norm_topk_prob", True) is not False,
            "norm_topk_prob is false; expert weights are always renormalised, as transformers does for this model.",
        ),
        (bool(_moe_layers(text)), "No decoder layer has experts; use an exporter for dense models."),
    )
    return [message for holds, message in checks if not holds]


def _vision_problems(vision: Any, text: Any) -> list[str]:
    problems = []
    for name in ("patch_size", "temporal_patch_size"):
        if not isinstance(getattr(vision, name), int):
            problems.append(f"vision {name} is {getattr(vision, name)}; only a single number is exported.")
    if vision.hidden_size % vision.num_heads or (vision.hidden_size // vision.num_heads) % 4:
        problems.append(
            f"Vision heads have {vision.hidden_size}/{vision.num_heads} values; two-dimensional rotary embeddings "
            f"need a multiple of 4."
        )
    if vision.hidden_act not in GELU_APPROXIMATIONS:
        problems.append(f"Vision hidden_act is '{vision.hidden_act}'; allowed: {', '.join(GELU_APPROXIMATIONS)}.")
    if vision.out_hidden_size != text.hidden_size:
        problems.append(
            f"Vision out_hidden_size is {vision.out_hidden_size}; it must equal the decoder's hidden_size, "
            f"{text.hidden_size}."
        )
    rope_type = (vision.rope_parameters or {}).get("rope_type")
    if rope_type != "axial":
        problems.append(f"Vision rope_type is '{rope_type}'; only 'axial' is exported.")
    return problems
