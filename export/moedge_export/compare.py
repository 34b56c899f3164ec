"""Runs a bundle and its checkpoint under transformers side by side and says how far apart their logits are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from moedge_runtime.bundle import Bundle, ModelInfo
from moedge_runtime.errors import CheckpointError

from moedge_export.assets import chat_template
from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_export.layered import open_layered
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


@dataclass(frozen=True)
class AnswerComparison:
    """What the runtime answered, beside what transformers would have said at each of its tokens.

    Attributes:
        same_prompt: Whether transformers makes the same tokens of the question, places of pictures aside.
        tokens: Of the answer, its end and its reasoning included.
        agreement: Part of them that transformers finds most likely too, 0 to 1.
        first_difference: The first of them, counted from 0, that it does not; None if there is none.
        text: The answer.
    """

    same_prompt: bool
    tokens: int
    agreement: float
    first_difference: int | None
    text: str


class Transcript(Protocol):
    """An answer of the runtime: `moedge_runtime.inference.transcript.Transcript`."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """As chat templates take them."""

    @property
    def prompt(self) -> list[int]:
        """Tokens, one image token for every merged patch included."""

    @property
    def pictures(self) -> list[tuple[Float, tuple[int, int, int]]]:
        """See `Prompt.pictures`."""

    @property
    def answer(self) -> list[int]:
        """Tokens that were chosen after the prompt."""

    @property
    def text(self) -> str:
        """The answer in words."""


def compare_with_transformers(
    bundle: Bundle,
    checkpoint: str,
    *,
    answer: Callable[[Bundle], Transcript] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, object]:
    """Compare a text prompt, one with a synthetic picture, and an answer; what `moedge verify --against` prints.

    Both sides run one after the other and a layer at a time, so that the largest model needs 8 GB. An inline bundle is
    loaded whole.

    Args:
        bundle: Of either form.
        checkpoint: Local directory or Hugging Face id.
        answer: Asks the runtime something with this bundle; None compares logits only.
        seed: Of the random tokens and pixels.
        progress: Told what is being computed.

    Returns:
        `<prompt>_<figure>` for the prompts `text` and `picture` and the figures of `Comparison`, and for `answer` and
        those of `AnswerComparison`.

    Raises:
        CheckpointError: The checkpoint cannot be opened, or is of another shape than the bundle.
    """
    info = bundle.manifest.model
    opened = open_checkpoint(checkpoint, info.source.revision if checkpoint == info.source.name else None)
    _check_shape(bundle, opened)
    prompts = {"text": text_prompt(info, seed), "picture": picture_prompt(info, seed)}
    ours = {}
    for name, prompt in prompts.items():
        progress(f"prompt '{name}' in the bundle")
        ours[name] = ReferenceModel(bundle, keep=False).logits(prompt)
    transcript = None
    if answer is not None:
        progress("the answer in the bundle")
        transcript = answer(bundle)
    model = open_layered(opened)
    figures: dict[str, object] = {}
    for name, prompt in prompts.items():
        progress(f"prompt '{name}' in the checkpoint, by transformers")
        comparison = compare_logits(ours[name], transformers_logits(model, prompt))
        figures |= {f"{name}_{key}": value for key, value in asdict(comparison).items()}
    if transcript is not None:
        progress("the answer in the checkpoint, by transformers")
        said = compare_answer(transcript, opened, model)
        figures |= {f"answer_{key}": value for key, value in asdict(said).items()}
    return figures


def compare_answer(transcript: Transcript, checkpoint: Checkpoint, model: Any) -> AnswerComparison:
    """Let transformers' `model` of `checkpoint` read a whole answer, and see where it would have gone on otherwise."""
    from transformers import AutoTokenizer  # noqa: PLC0415 (seconds to import)

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.directory)
    text = tokenizer.apply_chat_template(
        transcript.messages,
        chat_template=chat_template(checkpoint.directory),
        add_generation_prompt=True,
        tokenize=False,
    )
    image = model.config.image_token_id
    prompt = transcript.prompt
    places = [token for at, token in enumerate(prompt) if at == 0 or not token == prompt[at - 1] == image]
    answer = np.array(transcript.answer)
    whole = Prompt(np.array([*prompt, *transcript.answer]), transcript.pictures)
    after_prompt = transformers_logits(model, whole)[len(prompt) - 1 : -1]
    different = np.flatnonzero(after_prompt.argmax(-1) != answer)
    return AnswerComparison(
        same_prompt=tokenizer.encode(text, add_special_tokens=False) == places,
        tokens=len(answer),
        agreement=1 - len(different) / len(answer),
        first_difference=int(different[0]) if len(different) else None,
        text=transcript.text,
    )


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
        logits: Float = model(**inputs, use_cache=False).logits[0].float().numpy()
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


def _check_shape(bundle: Bundle, checkpoint: Checkpoint) -> None:
    info, other = bundle.manifest.model, checkpoint.architecture
    pairs = ((info.text, other.text), (info.vision, other.vision))
    different = [
        f"{name} {ours} and {theirs}"
        for mine, his in pairs
        for name in type(mine).model_fields
        if (ours := getattr(mine, name)) != (theirs := getattr(his, name))
    ]
    if different:
        raise CheckpointError(
            f"Bundle '{bundle.path}' and checkpoint '{checkpoint.name}' are of different shapes: "
            f"{', '.join(different)}. Compare a bundle with what it was exported from.",
            key="checkpoint.another_shape",
        )


def _random_tokens(model: ModelInfo, generator: np.random.Generator, count: int) -> Int:
    tokens = model.tokens
    special = {tokens.image, tokens.video, tokens.vision_start, tokens.vision_end}
    return generator.choice(np.array([token for token in range(model.text.vocab_size) if token not in special]), count)
