"""An answer in tokens: what the model was given and what it chose, to be held against another implementation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moedge_runtime.inference.chat import Message
from moedge_runtime.inference.engine import Engine
from moedge_runtime.inference.prompt import messages
from moedge_runtime.inference.request import AskRequest


@dataclass(frozen=True)
class Transcript:
    """An answer to one question.

    Attributes:
        messages: The question, as chat templates take it.
        prompt: Its tokens, with an image token for every merged patch.
        pictures: `pixel_values` float32 [patches, values of a patch] and `grid_thw` of each picture.
        answer: All tokens that were generated, the end token included.
        text: The answer in words, without reasoning.
    """

    messages: list[Message]
    prompt: list[int]
    pictures: list[tuple[npt.NDArray[np.float32], tuple[int, int, int]]]
    answer: list[int]
    text: str


def transcribe(engine: Engine, request: AskRequest) -> Transcript:
    """Answer `request` and keep the tokens.

    Raises:
        RequestError: It cannot be answered.
    """
    images, prompt = engine.read(request)
    answer = engine.ask(request)
    return Transcript(
        messages=messages(request, len(images)),
        prompt=prompt.tokens,
        pictures=[(image.pixel_values, image.grid_thw) for image in images],
        answer=list(answer.tokens),
        text=answer.text,
    )
