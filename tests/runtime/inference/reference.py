"""The same question asked of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from moedge_runtime.inference import AskRequest
from moedge_runtime.inference.prompt import messages


class Reference:
    """A checkpoint in transformers: float32, greedy."""

    def __init__(self, checkpoint: Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoTokenizer, Qwen3VLMoeForConditionalGeneration

        self.model = Qwen3VLMoeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.image_processor = AutoImageProcessor.from_pretrained(checkpoint)

    def inputs(self, request: AskRequest) -> dict[str, Any]:
        """What transformers' processor makes of a request."""
        import torch

        text = self.tokenizer.apply_chat_template(
            messages(request, len(request.images)), add_generation_prompt=True, tokenize=False
        )
        inputs: dict[str, Any] = {}
        if request.images:
            inputs = dict(self.image_processor(images=request.images, return_tensors="pt"))
            counts = [int(grid.prod()) // 4 for grid in inputs["image_grid_thw"]]
            first, *rest = text.split("<|image_pad|>")
            text = first + "".join("<|image_pad|>" * n + part for n, part in zip(counts, rest, strict=True))
        tokens = torch.tensor([self.tokenizer(text).input_ids])
        image_type = (tokens == self.model.config.image_token_id).int()
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "mm_token_type_ids": image_type,
        } | inputs

    def generate(self, request: AskRequest) -> tuple[list[int], str]:
        """Generated tokens and their text."""
        inputs = self.inputs(request)
        output = self.model.generate(**inputs, max_new_tokens=request.max_new_tokens, do_sample=False)
        tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
        return tokens, self.tokenizer.decode(tokens, skip_special_tokens=True)

    def logits(self, request: AskRequest) -> np.ndarray:
        """float32 [vocab_size] after the prompt."""
        import torch

        with torch.no_grad():
            return self.model(**self.inputs(request)).logits[0, -1].numpy()
