"""Architecture of the demonstration model: Qwen3-VL-MoE in small, every part of the large one present."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

TEXT_HIDDEN = 128
TEXT_LAYERS = 4
EXPERTS = 16
EXPERTS_PER_TOKEN = 4
EXPERT_INTERMEDIATE = 64
HEAD_DIM = 32
VISION_HIDDEN = 128
VISION_LAYERS = 5
DEEPSTACK_LAYERS = (1, 3)
PATCH = 16
MERGE = 2
MIN_PIXELS = 96 * 96
MAX_PIXELS = 256 * 128
"""Area limits of the image processor: a larger camera frame is scaled down to at most 32 merged tokens."""


def build_config(tokenizer: Tokenizer) -> Qwen3VLMoeConfig:
    """The configuration, with token ids taken from the tokenizer."""

    def ident(token: str) -> int:
        found = tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"The tokenizer has no token {token}; the model cannot mark images without it.")
        return int(found)

    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": TEXT_HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "moe_intermediate_size": EXPERT_INTERMEDIATE,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": False,
        "bos_token_id": ident("<|endoftext|>"),
        "eos_token_id": ident("<|im_end|>"),
        "pad_token_id": None,
        "dtype": "bfloat16",
    }
    vision = {
        "depth": VISION_LAYERS,
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 2 * VISION_HIDDEN,
        "num_heads": VISION_HIDDEN // 32,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "spatial_merge_size": MERGE,
        "out_hidden_size": TEXT_HIDDEN,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": list(DEEPSTACK_LAYERS),
        "hidden_act": "gelu_pytorch_tanh",
        "dtype": "bfloat16",
    }
    return Qwen3VLMoeConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ident("<|image_pad|>"),
        video_token_id=ident("<|video_pad|>"),
        vision_start_token_id=ident("<|vision_start|>"),
        vision_end_token_id=ident("<|vision_end|>"),
        tie_word_embeddings=False,
        architectures=["Qwen3VLMoeForConditionalGeneration"],
        dtype="bfloat16",
    )


def build_model(config: Qwen3VLMoeConfig) -> Qwen3VLMoeForConditionalGeneration:
    """A freshly initialised model in fp32; draws from torch's global generator."""
    model: Any = Qwen3VLMoeForConditionalGeneration(config)
    built: Qwen3VLMoeForConditionalGeneration = model.float()
    return built


def preprocessor_settings() -> dict[str, object]:
    """Contents of preprocessor_config.json: Qwen3-VL's image processor with this model's area limits."""
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    }


def generation_settings(tokenizer: Tokenizer) -> dict[str, object]:
    """Contents of generation_config.json: Qwen3-VL-Instruct's sampling; a caller chooses greedy itself."""
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return {
        "bos_token_id": pad,
        "eos_token_id": [end, pad],
        "pad_token_id": pad,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
    }


def save_side_files(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes preprocessor_config.json, video_preprocessor_config.json and generation_config.json."""
    image = preprocessor_settings()
    video = image | {"video_processor_type": "Qwen3VLVideoProcessor"}
    del video["image_processor_type"]
    for name, content in (
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
        ("generation_config.json", generation_settings(tokenizer)),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
