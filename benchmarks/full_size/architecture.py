"""config.json of Qwen3-VL-30B-A3B and the files beside it, for a model whose weights are synthetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Literal

Variant = Literal["Instruct", "Thinking"]

IMAGE_TOKEN, VIDEO_TOKEN, VISION_START, VISION_END = 151655, 151656, 151652, 151653
END_OF_TURN, END_OF_TEXT = 151645, 151643


def model_config(layers: int = 48, vision_depth: int = 27) -> dict[str, Any]:
    """config.json of Qwen/Qwen3-VL-30B-A3B-Instruct, with fewer layers if asked for; both variants share it.

    Source: the numbers of the published model; the key names are those of transformers 5.
    """
    taps = [tap for tap in (8, 16, 24) if tap < vision_depth][:layers]
    return {
        "architectures": ["Qwen3VLMoeForConditionalGeneration"],
        "model_type": "qwen3_vl_moe",
        "dtype": "bfloat16",
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": VIDEO_TOKEN,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_vl_moe_text",
            "attention_bias": False,
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": END_OF_TURN,
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 262144,
            "mlp_only_layers": [],
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": layers,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
            "vocab_size": 151936,
        },
        "vision_config": {
            "model_type": "qwen3_vl_moe",
            "deepstack_visual_indexes": taps,
            "depth": vision_depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "in_channels": 3,
            "intermediate_size": 4304,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 2048,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def write_files(directory: Path, config: dict[str, Any], tokenizer: Path, variant: Variant = "Instruct") -> None:
    """Write everything of a checkpoint but its weights.

    Args:
        directory: Made if it does not exist.
        config: See `model_config`.
        tokenizer: The model's tokenizer.json, plain or gzipped.
        variant: Thinking opens every answer with `<think>`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = tokenizer.read_bytes()
    if tokenizer.suffix == ".gz":
        content = gzip.decompress(content)
    (directory / "tokenizer.json").write_bytes(content)
    (directory / "chat_template.jinja").write_text(_chat_template(variant), encoding="utf-8")
    picture = {"shortest_edge": 65536, "longest_edge": 16777216}
    half = [0.5, 0.5, 0.5]
    _write_json(directory / "config.json", config)
    _write_json(directory / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"})
    _write_json(
        directory / "generation_config.json",
        {
            "eos_token_id": [END_OF_TURN, END_OF_TEXT],
            "pad_token_id": END_OF_TEXT,
            "do_sample": True,
            "temperature": 0.7 if variant == "Instruct" else 0.8,
            "top_k": 20,
            "top_p": 0.8 if variant == "Instruct" else 0.95,
        },
    )
    _write_json(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "size": picture,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": half,
            "image_std": half,
        },
    )


def _chat_template(variant: Variant) -> str:
    opening = "'<|im_start|>assistant\\n<think>\\n'" if variant == "Thinking" else "'<|im_start|>assistant\\n'"
    return (
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
        "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
        "{%- for part in message.content -%}"
        "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
        "{%- elif 'text' in part -%}{{- part.text -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- " + opening + " -}}{%- endif -%}"
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
