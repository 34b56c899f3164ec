"""The port to whatever answers questions about pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from moedge_runtime.errors import RequestError

Picture = NDArray[np.uint8]
"""uint8 [height, width, 3] in RGB."""


@dataclass(frozen=True)
class Question:
    """What to ask, the keys of a watch in docs/configuration.md, and of which camera."""

    text: str
    system: str | None = None
    json_schema: dict[str, Any] | None = None
    thinking: bool = False
    thinking_budget: int | None = None
    max_tokens: int = 256
    camera: str | None = None


@dataclass(frozen=True)
class ExpertUse:
    """What an answer needed of experts that are paged.

    Attributes:
        hits: Times that an expert was in memory.
        misses: Times that it had to be read, or waited for.
        read_bytes: Read from flash while the answer was made.
        wait_s: Time in which there was nothing to do but wait for flash.
    """

    hits: int
    misses: int
    read_bytes: int
    wait_s: float


@dataclass(frozen=True)
class Reply:
    """What the model said. Times in seconds, counts in tokens; see AnswerTiming and AnswerTokens for their meaning.

    `waited_s` passed before the first token for questions that share the prefill, besides that.
    """

    text: str
    reasoning: str | None
    data: Any
    finish_reason: Literal["stop", "length", "cancelled"]
    vision_s: float
    prefill_s: float
    decode_s: float
    decode_tok_s: float | None
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    answer_tokens: int
    reasoning_tokens: int
    experts: ExpertUse | None = None
    waited_s: float = 0.0
    prefilled_together: int = 1


@dataclass(frozen=True)
class QuestionProblem:
    """One thing that is wrong with a question: the key of a watch to change, and the error that asking would give."""

    key: Literal["question", "system", "json_schema", "thinking", "thinking_budget", "max_tokens"]
    error: RequestError


ShouldStop = Callable[[], bool]
"""Asked between layers of a prefill and between tokens; once true, a reply with the finish reason `cancelled` follows
soon."""


class Answerer(Protocol):
    """Answers one question at a time, on one thread."""

    @property
    def together(self) -> int:
        """How many questions are worth being begun together now; 1 for each alone."""
        ...

    def keep_cameras(self, cameras: Collection[str]) -> None:
        """These are the cameras from now on: what was learned about others may be forgotten."""
        ...

    def check(self, question: Question) -> list[QuestionProblem]:
        """All that `ask` would refuse in `question`, as far as it can be said without a picture."""
        ...

    def ask(self, question: Question, image: Picture, should_stop: ShouldStop) -> Reply:
        """Answer `question` about `image`. Blocks.

        Raises:
            MoedgeError: This question cannot be answered; the next one may be.
        """
        ...

    def begin(
        self, questions: Sequence[tuple[Question, Picture]], should_stop: ShouldStop, enough: Callable[[], bool]
    ) -> list[Callable[[ShouldStop], Reply]]:
        """Do what answers to several questions have in common, as far as possible.

        Args:
            questions: The first of them is the one whose turn it is.
            should_stop: As in `ask`.
            enough: Whether what is not begun yet is to be left to its answer, since something else has come.

        Returns:
            What answers each of them, as `ask` would; each is called once, one after the other. Other questions may be
            asked in between. An error of one question is raised where it is answered.
        """
        ...

    def close(self) -> None:
        """Release everything; nothing is asked afterwards."""
        ...
