"""Random checkpoints of many shapes, whose weights are large enough that attention, router and DeepStack matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from fixtures_checkpoint import build_model, save_tokenizer
from safetensors.torch import load_file, save_file

BASE_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
}  # fmt: skip
BASE_VISION = {
    "depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "patch_size": 16,
    "temporal_patch_size": 2, "spatial_merge_size": 2, "out_hidden_size": 64, "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1], "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
BASE_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}

SHAPES: dict[str, dict[str, Any]] = {
    "the hub's proportions, one dense layer": {"text": {"mlp_only_layers": [1]}},
    "one KV head, all experts chosen, tied, odd vocabulary, merge 1": {
        "text": {
            "hidden_size": 40, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16, "num_experts": 5,
            "num_experts_per_tok": 5, "moe_intermediate_size": 24, "vocab_size": 433,
        },
        "vision": {
            "hidden_size": 24, "num_heads": 3, "patch_size": 14, "temporal_patch_size": 1, "spatial_merge_size": 1,
            "out_hidden_size": 40, "num_position_embeddings": 49, "deepstack_visual_indexes": [2],
        },
        "rope": {"mrope_section": [4, 2, 2]},
        "tied": True,
    },
    "as many KV heads as heads, one expert chosen, more taps than layers in odd order, merge 3": {
        "text": {
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 24,
            "num_experts": 7, "num_experts_per_tok": 1,
        },
        "vision": {"depth": 4, "spatial_merge_size": 3, "deepstack_visual_indexes": [3, 0, 2]},
        "rope": {"rope_theta": 5e6, "mrope_section": [4, 4, 4]},
    },
    "a head size that GroupQueryAttention refuses, biases, every second layer dense, no DeepStack, erf GELU": {
        "text": {
            "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 20,
            "num_experts": 3, "num_experts_per_tok": 2, "decoder_sparse_step": 2, "attention_bias": True,
        },
        "vision": {"hidden_act": "gelu", "num_position_embeddings": 30, "deepstack_visual_indexes": []},
        "rope": {"mrope_section": [4, 3, 3]},
    },
    "large heads, many experts, six layers": {
        "text": {
            "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 128, "num_experts": 16, "num_experts_per_tok": 8,
        },
        "vision": {"hidden_size": 144, "num_heads": 2, "out_hidden_size": 96},
        "rope": {"mrope_section": [24, 20, 20]},
    },
    "deep vision with late taps, the hub's position table": {
        "text": {"num_hidden_layers": 5, "head_dim": 80},
        "vision": {
            "depth": 8, "hidden_size": 48, "num_heads": 3, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [2, 5, 7],
        },
        "rope": {"rope_theta": 1e6, "mrope_section": [16, 12, 12]},
    },
}  # fmt: skip
"""Changes to the base configuration, by what is special about them."""


def config_of(tokenizer: Any, change: dict[str, Any]) -> Any:
    """A Qwen3VLMoeConfig: the base with `change`'s `text`, `vision`, `rope` and `tied`."""
    from transformers import Qwen3VLMoeConfig

    rope = {"rope_parameters": BASE_ROPE | change.get("rope", {})}
    vocabulary = {"vocab_size": tokenizer.get_vocab_size() + 3, "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    ids = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>"}
    return Qwen3VLMoeConfig(
        text_config=BASE_TEXT | vocabulary | rope | change.get("text", {}),
        vision_config=BASE_VISION | change.get("vision", {}),
        tie_word_embeddings=change.get("tied", False),
        architectures=["Qwen3VLMoeForConditionalGeneration"],
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        **{f"{name}_token_id": tokenizer.token_to_id(token) for name, token in ids.items()},
    )


def save_random_checkpoint(folder: Path, change: dict[str, Any], *, seed: int = 0, **save_options: Any) -> Any:
    """Write a checkpoint into the new `folder` and return its transformers model in float32."""
    folder.mkdir(parents=True)
    tokenizer = save_tokenizer(folder)
    model = build_model(config_of(tokenizer, change), seed)
    model.save_pretrained(folder, **save_options)
    end = tokenizer.token_to_id("<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Qwen2VLImageProcessorFast"}))
    return model


def exchange_expert_axes(folder: Path) -> None:
    """Rewrite a checkpoint's only shard as the Hub's files are: experts with inputs before outputs."""
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if ".mlp.experts." in name]:
        tensors[name] = tensors[name].transpose(1, 2).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def greedy_tokens(model: Any, prompt: Any, count: int) -> list[int]:
    """The `count` most likely tokens after `prompt` by transformers, whatever the end-of-text token."""
    tokens = torch.from_numpy(prompt.token_ids)[None]
    inputs: dict[str, Any] = {"input_ids": tokens, "mm_token_type_ids": (tokens == model.config.image_token_id).int()}
    if prompt.pictures:
        inputs["pixel_values"] = torch.cat([torch.from_numpy(pixels) for pixels, _ in prompt.pictures])
        inputs["image_grid_thw"] = torch.tensor([grid for _, grid in prompt.pictures])
    model.model.rope_deltas = None
    output = model.generate(
        **inputs, max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0, attention_mask=tokens * 0 + 1
    )
    answer: list[int] = output[0, tokens.shape[1] :].tolist()
    return answer
