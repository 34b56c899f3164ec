import json
import struct
from pathlib import Path

import pytest
from jinja2 import Environment

CHECKPOINT = Path(__file__).parents[2] / "examples" / "panel" / "checkpoint"
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "What is the reading?"}, {"type": "image"}]}]
PROMPT = (
    "<|im_start|>user\nWhat is the reading?<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)


def header(path: Path) -> dict[str, dict[str, object]]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        names: dict[str, dict[str, object]] = json.loads(file.read(size))
    names.pop("__metadata__", None)
    return names


def test_the_index_names_every_tensor_and_its_shard() -> None:
    index = json.loads((CHECKPOINT / "model.safetensors.index.json").read_text())["weight_map"]
    shards = sorted(CHECKPOINT.glob("*.safetensors"))
    assert len(shards) >= 2
    found = {name: shard.name for shard in shards for name in header(shard)}
    assert found == index
    assert {entry["dtype"] for shard in shards for entry in header(shard).values()} == {"BF16"}


def test_the_model_has_every_part_of_the_large_one() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT)
    text, vision = config.text_config, config.vision_config
    assert config.model_type == "qwen3_vl_moe"
    assert config.architectures == ["Qwen3VLMoeForConditionalGeneration"]
    assert (text.num_experts, text.num_experts_per_tok) == (16, 4)
    assert text.num_hidden_layers >= 4
    assert text.num_attention_heads > text.num_key_value_heads
    assert text.rope_parameters["mrope_interleaved"]
    assert sum(text.rope_parameters["mrope_section"]) == text.head_dim // 2
    assert len(vision.deepstack_visual_indexes) >= 2


def test_the_chat_template_puts_text_before_image_and_opens_thinking() -> None:
    template = Environment().from_string((CHECKPOINT / "chat_template.jinja").read_text())
    assert template.render(messages=QUESTION, add_generation_prompt=True) == PROMPT
    thinking = template.render(messages=QUESTION, add_generation_prompt=True, enable_thinking=True)
    assert thinking == PROMPT + "<think>\n"
    system = [{"role": "system", "content": "Be brief."}, *QUESTION]
    rendered = template.render(messages=system, add_generation_prompt=True)
    assert rendered == "<|im_start|>system\nBe brief.<|im_end|>\n" + PROMPT


def test_the_example_stays_small() -> None:
    assert sum(p.stat().st_size for p in CHECKPOINT.parent.rglob("*") if p.is_file()) < 12e6
