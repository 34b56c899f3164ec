"""Asks a checkpoint the held-out questions under transformers: `python -m moedge_panel.evaluate CHECKPOINT`."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen3VLMoeForConditionalGeneration

from moedge_panel.heldout import Question, held_out_questions, is_right, score, table

MAX_NEW_TOKENS = 72


class Reader:
    """A checkpoint with its tokenizer and image processor; `model` is the model itself.

    Args:
        folder: Checkpoint in the Hugging Face layout.
        dtype: Precision of weights and arithmetic.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        models: Any = Qwen3VLMoeForConditionalGeneration
        self.model = models.from_pretrained(folder, dtype=dtype)
        self.model.eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        # AutoProcessor would do the same but needs torchvision for videos.
        processors: Any = AutoImageProcessor
        self._images = processors.from_pretrained(folder)

    @torch.no_grad()
    def answer(self, image: np.ndarray, question: str, thinking: bool) -> str:
        """Generates greedily; returns the text after the generation prompt without special tokens.

        Args:
            image: uint8 RGB [height, width, 3].
            question: The user's text, placed before the image.
            thinking: Let the model think first.
        """
        pixels = self._images(images=[Image.fromarray(image)], return_tensors="pt")
        tokens = int(pixels["image_grid_thw"].prod()) // self._images.merge_size**2
        messages = [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "image"}]}]
        prompt = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        ).replace("<|image_pad|>", "<|image_pad|>" * tokens)
        ids = torch.tensor([self._tokenizer.encode(prompt, add_special_tokens=False)])
        generated = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            pixel_values=pixels["pixel_values"],
            image_grid_thw=pixels["image_grid_thw"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            temperature=None,
            top_k=None,
            top_p=None,
        )
        return str(self._tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True))


def evaluate(reader: Reader, count: int, seed: int) -> tuple[dict[str, Any], str]:
    """Asks `count` held-out questions.

    Returns:
        What accuracy.json holds (scores and wrong answers), and the markdown table.
    """
    results: list[tuple[Question, bool]] = []
    wrong: list[dict[str, Any]] = []
    started = time.monotonic()
    for question in held_out_questions(count, seed):
        text = reader.answer(question.image, question.question, question.thinking)
        results.append((question, is_right(question, text)))
        if not results[-1][1]:
            wrong.append(
                {
                    "index": question.index,
                    "kind": question.kind,
                    "thinking": question.thinking,
                    "font": question.font,
                    "expected": question.answer,
                    "got": text,
                }
            )
    scores = score(results)
    report = {
        "count": count,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "torch": torch.__version__,
        "scores": {
            g: {v: asdict(s) | {"accuracy": round(s.accuracy, 4)} for v, s in c.items()} for g, c in scores.items()
        },
        "wrong": wrong,
    }
    return report, table(scores)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for accuracy.json and accuracy.md")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reader = Reader(arguments.checkpoint, getattr(torch, arguments.dtype))
    report, markdown = evaluate(reader, arguments.count, arguments.seed)
    print(markdown)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
        (arguments.out / "accuracy.md").write_text(markdown)


if __name__ == "__main__":
    main()
