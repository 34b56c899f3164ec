"""What is wrong with a question, told before there is a picture and without the weights of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from moedge_runtime.bundle import Bundle
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError, RequestError
from moedge_runtime.inference.chat import load_chat_template
from moedge_runtime.inference.constraint import SchemaCompiler
from moedge_runtime.inference.image_processor import ImageProcessor, ImageProcessorSettings
from moedge_runtime.inference.prompt import Prompt, PromptBuilder
from moedge_runtime.inference.request import DEFAULT_MAX_CONTEXT, AskRequest
from moedge_runtime.inference.thinking import CLOSING
from moedge_runtime.inference.tokenizer import Tokenizer

RequestField = Literal["question", "system", "json_schema", "thinking", "thinking_budget", "max_new_tokens"]


@dataclass(frozen=True)
class RequestProblem:
    """One thing that is wrong with a request: the field of AskRequest to change, and what `ask` would raise."""

    field: RequestField
    error: RequestError


class RequestChecker:
    """Checks requests to one model with a context of `max_context` tokens.

    Attributes:
        tokenizer: The bundle's.
        prompts: Builds the model's prompts.
        schemas: Compiles JSON schemas for the model.
        image_processor: Prepares pictures for the model.
        max_context: Most tokens of a prompt and its answer.
    """

    def __init__(self, bundle: Bundle, max_context: int | None = None, max_pixels: int | None = None) -> None:
        """Read tokenizer, chat template and image settings of `bundle`.

        Args:
            bundle: An opened bundle; its weights are not read.
            max_context: As in EngineOptions.
            max_pixels: As in EngineOptions.

        Raises:
            BundleError: One of these files cannot be used.
            ConfigError: The model cannot have `max_context` tokens, or `max_pixels` is below one image token.
        """
        model = bundle.manifest.model
        self.max_context = context_of(bundle, max_context)
        self.tokenizer = Tokenizer(bundle.file("tokenizer.json"))
        self.prompts = PromptBuilder(self.tokenizer, load_chat_template(bundle), model)
        self.schemas = SchemaCompiler(bundle.file("tokenizer.json"), model.text.vocab_size, model.tokens.end_of_text[0])
        settings = ImageProcessorSettings.from_config(bundle.json("preprocessor_config.json"))
        self.image_processor = ImageProcessor(settings, max_pixels)
        self._fewest_tokens = _fewest_tokens(settings, max_pixels)

    def problems(self, request: AskRequest, unseen_images: int = 0) -> list[RequestProblem]:
        """All that `Engine.ask` would refuse in `request`, as far as it can be said without the pixels.

        Args:
            request: Its own images are not looked at.
            unseen_images: Images to come; each is counted with the fewest tokens that it can have.
        """
        images = [self._fewest_tokens] * unseen_images
        return self._problems(request, images, "at least " if images else "")

    def refuse(self, request: AskRequest) -> None:
        """Refuse what `Engine.ask` would refuse in `request`, told together; pictures that cannot be used come first.

        Raises:
            RequestError: There is such a thing.
        """
        images = [self.image_processor.tokens(*image.shape[:2]) for image in request.images]
        errors = [problem.error for problem in self._problems(request, images)]
        if errors:
            raise RequestError(" ".join(map(str, errors)), key=errors[0].key)

    def _problems(self, request: AskRequest, images: list[int], at_least: str = "") -> list[RequestProblem]:
        """What is wrong with `request` if its images have so many tokens, or `at_least` so many."""
        problems: list[RequestProblem] = []

        def attempt(field: RequestField, step: Callable[[], object]) -> None:
            try:
                step()
            except RequestError as error:
                problems.append(RequestProblem(field, error))

        plain = replace(request, question="?", system=None, thinking=None)
        attempt("question", lambda: self.prompts.build(replace(plain, question=request.question), images))
        attempt("system", lambda: self.prompts.build(replace(plain, system=request.system), images))
        attempt("thinking", lambda: self.prompts.build(replace(plain, thinking=request.thinking), images))
        schema = request.json_schema
        if schema is not None:
            attempt("json_schema", lambda: self.schemas.compile(schema))
        if all(problem.field == "json_schema" for problem in problems):
            prompt = self.prompts.build(request, images)
            attempt("max_new_tokens", lambda: self.check_room(request, prompt, at_least))
            attempt("thinking_budget", lambda: self.check_thinking_budget(request, prompt))
        return problems

    def check_lengths(self, request: AskRequest, prompt: Prompt) -> None:
        """Refuse a question that cannot be finished.

        Raises:
            RequestError: See `check_room` and `check_thinking_budget`.
        """
        self.check_room(request, prompt)
        self.check_thinking_budget(request, prompt)

    def check_room(self, request: AskRequest, prompt: Prompt, at_least: str = "") -> None:
        """Compare the length of prompt and answer with the context.

        Raises:
            RequestError: Together they are longer.
        """
        if len(prompt.tokens) + request.max_new_tokens > self.max_context:
            raise RequestError(
                f"The prompt has {at_least}{len(prompt.tokens):,} tokens and the answer may have "
                f"{request.max_new_tokens:,}; together that is more than max_context={self.max_context:,}. Shorten the "
                f"question, make the images smaller, let the answer have fewer tokens, or raise max_context.",
                key="request.too_long",
            )

    def check_thinking_budget(self, request: AskRequest, prompt: Prompt) -> None:
        """Compare the tokens of reasoning with those of the answer.

        Raises:
            RequestError: The reasoning may leave no room for an answer.
        """
        if not prompt.thinking or request.thinking_budget is None:
            return
        needed = request.thinking_budget + len(self.tokenizer.encode(CLOSING)) + 1
        if needed > request.max_new_tokens:
            raise RequestError(
                f"thinking_budget={request.thinking_budget} leaves no room for an answer: reasoning and answer may "
                f"have {counted(request.max_new_tokens, 'token')} together. Let them have {needed} or more, or "
                f"lower the budget.",
                key="request.thinking_budget",
            )


def context_of(bundle: Bundle, max_context: int | None) -> int:
    """Tokens that a prompt and its answer may have: `max_context`, or the default if it is None.

    Raises:
        ConfigError: The model cannot have so many.
    """
    longest = bundle.manifest.model.text.max_position_embeddings
    if max_context is None:
        return min(DEFAULT_MAX_CONTEXT, longest)
    if not 1 < max_context <= longest:
        raise ConfigError(f"max_context={max_context:,} is not possible: this model has 2 to {longest:,}.")
    return max_context


def _fewest_tokens(settings: ImageProcessorSettings, max_pixels: int | None) -> int:
    """Tokens of the smallest image: resizing brings every one to `min_pixels` at least."""
    if not settings.do_resize:
        return 1
    area = min(settings.min_pixels, max_pixels or settings.max_pixels)
    return max(1, -(-area // (settings.patch_size * settings.merge_size) ** 2))
