"""Builds a prompt: chat template, image tokens, and how its thinking begins."""

from __future__ import annotations

from dataclasses import dataclass

from moedge_runtime.bundle import ModelInfo
from moedge_runtime.counted import counted
from moedge_runtime.errors import BundleError, RequestError
from moedge_runtime.inference.chat import ChatTemplate, Message
from moedge_runtime.inference.request import AskRequest
from moedge_runtime.inference.thinking import CLOSING, OPENING
from moedge_runtime.inference.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
        tokens: All of them, with an image token for every merged patch.
        text_prefix: Tokens before the first image token; all of them if there is no image.
        thinking: Whether it ends inside `<think>`, so that the model goes on with reasoning.
    """

    tokens: list[int]
    text_prefix: int
    thinking: bool


class PromptBuilder:
    """Builds prompts for one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, model: ModelInfo) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._model = model
        tokens = model.tokens
        self._can_mark_thinking = tokens.think_start is not None and tokens.think_end is not None

    def build(self, request: AskRequest, image_tokens: list[int]) -> Prompt:
        """The prompt of `request`.

        Args:
            request: Its images are only counted here.
            image_tokens: Tokens of each image.

        Raises:
            RequestError: Thinking is asked of a model without it, or a text contains control tokens.
            BundleError: The chat template cannot be used with these messages.
        """
        for name, text in (("question", request.question), ("system prompt", request.system or "")):
            self._check_text(name, text)
        text, thinking = self._text(request, len(image_tokens))
        tokens = self._expanded(self._tokenizer.encode(text), image_tokens)
        image = self._model.tokens.image
        return Prompt(tokens, tokens.index(image) if image_tokens else len(tokens), thinking)

    def _text(self, request: AskRequest, images: int) -> tuple[str, bool]:
        if request.thinking and (self._template.thinking == "never" or not self._can_mark_thinking):
            raise RequestError(
                f"{self._model.source.name} cannot think: "
                f"{_missing_thinking(self._can_mark_thinking)}. Ask without thinking, or use a Thinking model.",
                key="request.thinking_unsupported",
            )
        variables = {} if request.thinking is None else {"enable_thinking": request.thinking}
        text = self._template.render(messages(request, images), **variables)
        opened = self._can_mark_thinking and text.rstrip().endswith("<think>")
        if request.thinking and not opened:
            return text + OPENING, True
        if request.thinking is False and opened:
            return text + CLOSING, False
        return text, opened

    def _expanded(self, tokens: list[int], image_tokens: list[int]) -> list[int]:
        image = self._model.tokens.image
        places = tokens.count(image)
        if places != len(image_tokens):
            raise BundleError(
                f"The chat template made places for {places} of {counted(len(image_tokens), 'image')}. Export the "
                f"checkpoint with the chat template of Qwen3-VL.",
                key="bundle.chat_template_invalid",
            )
        counts = iter(image_tokens)
        expanded: list[int] = []
        for token in tokens:
            expanded += [token] * next(counts) if token == image else [token]
        return expanded

    def _check_text(self, name: str, text: str) -> None:
        found = [token for token in self._tokenizer.control_tokens if token in text]
        if found:
            raise RequestError(
                f"The {name} contains {', '.join(found)}, which the model does not read as text but as control "
                f"tokens. Remove them.",
                key="request.control_token",
            )


def messages(request: AskRequest, images: int) -> list[Message]:
    """The messages of a request, as chat templates take them."""
    text: list[Message] = [{"type": "text", "text": request.question}]
    pictures: list[Message] = [{"type": "image"}] * images
    content = pictures + text if request.image_first else text + pictures
    system: list[Message] = [] if request.system is None else [{"role": "system", "content": request.system}]
    return [*system, {"role": "user", "content": content}]


def _missing_thinking(has_tokens: bool) -> str:
    return "its chat template has no thinking" if has_tokens else "its vocabulary has no <think> and </think>"
