"""Builds a tiny random Qwen3-VL-MoE checkpoint as Hugging Face stores it: every part of the large one present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
THINK_TOKENS = ("<think>", "</think>")
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "What is the reading on the display? The reading is 1234.",
    "You are a helpful assistant. Answer as JSON with reading and lamps.",
    '{"reading": 42, "lamps": ["red", "green"], "gauge": "high"}',
    "Grüße aus Köln – 温度は二十度です。 🌡️ 21,5 °C",
    "system user assistant",
] * 20

_BODY = """\
{%- macro render(content) -%}
{%- if content is string %}{{- content }}{%- else %}
{%- for part in content %}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif 'text' in part %}{{- part.text }}{%- endif %}
{%- endfor %}
{%- endif %}
{%- endmacro -%}
{%- if messages[0].role != 'system' and default_system is defined %}
{{- '<|im_start|>system\\n' + default_system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + render(message.content) + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
"""
CHAT_TEMPLATES = {
    "never": _BODY + "{%- endif %}\n",
    "switch": _BODY + "{%- if enable_thinking is defined and enable_thinking %}{{- '<think>\\n' }}{%- endif %}\n"
    "{%- endif %}\n",
    "hybrid": _BODY + "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n{%- endif %}\n",
    "always": _BODY + "{{- '<think>\\n' }}\n{%- endif %}\n",
}
"""Chat templates by how they treat thinking: Instruct, switched by a variable, Qwen3's hybrid, Qwen3-VL-Thinking."""


def build_tokenizer(vocabulary: int = 420) -> Tokenizer:
    """A byte-level BPE tokenizer in the manner of Qwen3-VL's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS) - len(THINK_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in THINK_TOKENS])
    return tokenizer


def save_tokenizer(folder: Path, template: str = "switch") -> Tokenizer:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into an existing folder."""
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "model_max_length": 2048,
        "additional_special_tokens": list(SPECIAL_TOKENS),
    }
    _write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATES[template], encoding="utf-8")
    return tokenizer


def tiny_config(tokenizer: Tokenizer, dense_layers: tuple[int, ...] = (1,)) -> Any:
    """Configuration of the tiny model; decoder layers in `dense_layers` have an MLP instead of experts."""
    from transformers import Qwen3VLMoeConfig

    return Qwen3VLMoeConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + 4,  # as with Qwen, the model has more rows than the tokenizer
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "decoder_sparse_step": 1,
            "mlp_only_layers": list(dense_layers),
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
            "pad_token_id": None,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 2,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 2],
            "hidden_act": "gelu_pytorch_tanh",
        },
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        video_token_id=tokenizer.token_to_id("<|video_pad|>"),
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        tie_word_embeddings=False,
        architectures=["Qwen3VLMoeForConditionalGeneration"],
    )


def build_model(config: Any, seed: int = 0) -> Any:
    """A random model in float32 whose logits are far apart, so that greedy decoding does not hang on rounding."""
    import torch
    from transformers import Qwen3VLMoeForConditionalGeneration

    model = Qwen3VLMoeForConditionalGeneration(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.2 * noise)
            elif "embed_tokens" in name or "pos_embed" in name:
                parameter.copy_(noise)
            else:
                gain = 3.0 if "lm_head" in name or "gate.weight" in name else 1.0
                parameter.copy_(
                    gain * noise / parameter[0].numel() ** 0.5
                    if parameter.ndim != 3
                    else noise / parameter.shape[-1] ** 0.5
                )
    return model


def save_checkpoint(folder: Path, seed: int = 0, template: str = "switch", dense_layers: tuple[int, ...] = (1,)) -> Any:
    """Write a whole checkpoint into a new folder and return the model."""
    folder.mkdir(parents=True)
    tokenizer = save_tokenizer(folder, template)
    model = build_model(tiny_config(tokenizer, dense_layers), seed)
    model.save_pretrained(folder)
    image = {
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
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 64 * 64, "longest_edge": 256 * 160},
    }
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    generation = {
        "eos_token_id": [end, pad], "pad_token_id": pad, "do_sample": True,
        "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0,
    }  # fmt: skip
    video = {key: value for key, value in image.items() if key != "image_processor_type"}
    _write_json(folder / "preprocessor_config.json", image)
    _write_json(folder / "video_preprocessor_config.json", video | {"video_processor_type": "Qwen3VLVideoProcessor"})
    _write_json(folder / "generation_config.json", generation)
    return model


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
