"""Runs a bundle and its checkpoint under transformers side by side and says how far apart their logits are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from moedge_runtime.bundle import Bundle, ModelInfo

from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_export.reference import Float, Int, Prompt, ReferenceModel

TEXT_TOKENS = 24
PICTURE_BLOCKS = (6, 4)
"""Height and width of the synthetic picture in merge blocks: not square, so that exchanged axes show."""


@dataclass(frozen=True)
class Comparison:
    """Logits of a bundle against transformers' in float32, over all positions of a prompt.

    Attributes:
        max_difference: Largest absolute difference of two logits.
        logit_range: Largest minus smallest logit of transformers.
        relative_difference: The one divided by the other.
        top1_agreement: Part of the positions whose most likely token is the same, 0 to 1.
        positions: Number of tokens compared.
    """

    max_difference: float
    logit_range: float
    relative_difference: float
    top1_agreement: float
    positions: int


def compare_with_transformers(bundle: Bundle, checkpoint: str, *, seed: int = 0) -> dict[str, object]:
    """Compare a text prompt and a prompt with a synthetic picture; what `moedge verify --against` prints.

    The checkpoint is loaded whole, in float32: four bytes a weight of memory.

    Args:
        bundle: Of either form.
        checkpoint: Local directory or Hugging Face id.
        seed: Of the random tokens and pixels.

    Returns:
        `<prompt>_<figure>` for the prompts `text` and `picture` and the figures of `Comparison`.

    Raises:
        CheckpointError: The checkpoint cannot be opened.
    """
    info = bundle.manifest.model
    opened = open_checkpoint(checkpoint, info.source.revision if checkpoint == info.source.name else None)
    reference, model = ReferenceModel(bundle), load_transformers(opened)
    prompts = {"text": text_prompt(info, seed), "picture": picture_prompt(info, seed)}
    figures: dict[str, object] = {}
    for name, prompt in prompts.items():
        comparison = compare_logits(reference.logits(prompt), transformers_logits(model, prompt))
        figures |= {f"{name}_{key}": value for key, value in asdict(comparison).items()}
    return figures


def compare_logits(logits: Float, expected: Float) -> Comparison:
    """Compare logits [S, V] with transformers'."""
    difference, span = float(np.abs(logits - expected).max()), float(expected.max() - expected.min())
    return Comparison(
        max_difference=difference,
        logit_range=span,
        relative_difference=difference / span,
        top1_agreement=float((logits.argmax(-1) == expected.argmax(-1)).mean()),
        positions=len(expected),
    )


def load_transformers(checkpoint: Checkpoint) -> Any:
    """The checkpoint as a transformers model in float32."""
    from transformers import Qwen3VLMoeForConditionalGeneration  # noqa: PLC0415 (seconds to import)
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = Qwen3VLMoeForConditionalGeneration.from_pretrained(checkpoint.directory, dtype=torch.float32)
    return model.eval()


def transformers_logits(model: Any, prompt: Prompt) -> Float:
    """Logits [S, V] of a transformers model for `prompt`."""
    tokens = torch.from_numpy(prompt.token_ids)[None]
    inputs: dict[str, torch.Tensor] = {"input_ids": tokens}
    if prompt.pictures:
        inputs["pixel_values"] = torch.from_numpy(np.concatenate([pixels for pixels, _ in prompt.pictures]))
        inputs["image_grid_thw"] = torch.tensor([grid for _, grid in prompt.pictures])
        inputs["mm_token_type_ids"] = (tokens == model.config.image_token_id).int()
    model.model.rope_deltas = None  # left over from an earlier prompt
    with torch.no_grad():
        logits: Float = model(**inputs).logits[0].float().numpy()
    return logits


def text_prompt(model: ModelInfo, seed: int) -> Prompt:
    """A prompt of random tokens without a picture."""
    return Prompt(_random_tokens(model, np.random.default_rng(seed), TEXT_TOKENS))


def picture_prompt(model: ModelInfo, seed: int, sizes: tuple[tuple[int, int], ...] = (PICTURE_BLOCKS,)) -> Prompt:
    """A prompt of random tokens around pictures of random pixels.

    Args:
        model: Says how large a patch is and which tokens stand for a picture.
        seed: Of the random numbers.
        sizes: Height and width of each picture in merge blocks.
    """
    generator, vision, tokens = np.random.default_rng(seed), model.vision, model.tokens
    patch_values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pieces: list[Int] = [_random_tokens(model, generator, 5)]
    pictures = []
    for height, width in sizes:
        grid = (1, height * vision.spatial_merge_size, width * vision.spatial_merge_size)
        pictures.append((generator.standard_normal((grid[1] * grid[2], patch_values), dtype=np.float32), grid))
        pieces.append(np.array([tokens.vision_start, *[tokens.image] * (height * width), tokens.vision_end]))
        pieces.append(_random_tokens(model, generator, 4))
    return Prompt(np.concatenate(pieces), pictures)


def _random_tokens(model: ModelInfo, generator: np.random.Generator, count: int) -> Int:
    tokens = model.tokens
    special = {tokens.image, tokens.video, tokens.vision_start, tokens.vision_end}
    return generator.choice(np.array([token for token in range(model.text.vocab_size) if token not in special]), count)
