"""The decoding loop: chooses token after token, keeps to a schema and a thinking budget, streams the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moedge_runtime.inference.constraint import JsonConstraint
from moedge_runtime.inference.dequantize import FloatArray
from moedge_runtime.inference.request import FinishReason
from moedge_runtime.inference.sampling import Sampling, draw, greedy
from moedge_runtime.inference.thinking import AFTER_CLOSING, CLOSING, Part, ThinkingTracker
from moedge_runtime.inference.tokenizer import StreamDecoder, Tokenizer

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Generated:
    """What the loop produced.

    Attributes:
        text: The answer.
        reasoning: The reasoning without its marks; None if there was none.
        valid: Whether the schema is fulfilled; False without a schema.
        finish_reason: Why it ended.
        answer_tokens: Tokens outside the reasoning, the end token included.
        reasoning_tokens: Tokens of the reasoning, marks included.
    """

    text: str
    reasoning: str | None
    valid: bool
    finish_reason: FinishReason
    answer_tokens: int
    reasoning_tokens: int


class TokenChooser:
    """Greedy, or drawing with a seed."""

    def __init__(self, sampling: Sampling | None, seed: int, prompt: list[int]) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(seed)
        self._previous = list(prompt)

    def choose(self, logits: FloatArray) -> int:
        """The next token from logits float32 [vocab_size]."""
        if self._sampling is None:
            return greedy(logits)
        return draw(logits, self._previous, self._sampling, self._random)

    def note(self, tokens: list[int]) -> None:
        """Remember tokens of the answer, for the repetition penalty."""
        self._previous += tokens


class Generation:
    """One answer being decoded."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        chooser: TokenChooser,
        tracker: ThinkingTracker,
        constraint: JsonConstraint | None,
        end_tokens: list[int],
        max_new_tokens: int,
        on_text: OnText | None = None,
        on_reasoning: OnText | None = None,
    ) -> None:
        self._chooser = chooser
        self._tracker = tracker
        self._constraint = constraint
        self._end_tokens = frozenset(end_tokens)
        self._max_new_tokens = max_new_tokens
        self._closing = tokenizer.encode(CLOSING)
        self._after_closing = tokenizer.encode(AFTER_CLOSING)
        self._answer = _TextStream(tokenizer, on_text, strip_start=tracker.inside)
        self._reasoning = _TextStream(tokenizer, on_reasoning, strip_start=True)
        self.tokens: list[int] = []
        """All tokens generated, the end token included."""

    def run(
        self,
        logits: FloatArray,
        advance: Callable[[list[int]], FloatArray],
        should_stop: Callable[[], bool] | None = None,
    ) -> Generated:
        """Decode to the end.

        Args:
            logits: float32 [vocab_size] after the prompt.
            advance: Runs tokens through the decoder and returns the logits after the last of them.
            should_stop: Asked before every step.
        """
        while True:
            batch, finish = self._next(logits)
            if finish is None and should_stop is not None and should_stop():
                finish = "cancelled"
            if finish is not None:
                return self._finish(finish)
            logits = advance(batch)

    def cancelled(self) -> Generated:
        """The result of an answer that never began."""
        return self._finish("cancelled")

    def _next(self, logits: FloatArray) -> tuple[list[int], FinishReason | None]:
        """The tokens to run next: the chosen one and those that are forced to follow it."""
        batch: list[int] = []
        if not self._tracker.exhausted:
            token, finish = self._choose(logits)
            if finish is not None:
                return batch, finish
            if token is not None:
                batch.append(token)
        forced = self._forced(batch)
        for token in forced[: self._max_new_tokens - len(self.tokens)]:
            self._write(token)
            batch.append(token)
        self._chooser.note(batch)
        return batch, "length" if len(self.tokens) >= self._max_new_tokens else None

    def _choose(self, logits: FloatArray) -> tuple[int | None, FinishReason | None]:
        """A token and whether it ends the answer; no token where an end inside the reasoning only closes that."""
        constraint = None if self._tracker.inside else self._constraint
        token = self._chooser.choose(logits if constraint is None else constraint.mask(logits))
        if token in self._end_tokens:
            if self._tracker.inside:
                return None, None
            self.tokens.append(token)
            return token, "stop"
        self._write(token)
        if constraint is not None:
            constraint.accept(token)
            if constraint.complete:
                return token, "stop"
        return token, None

    def _forced(self, chosen: list[int]) -> list[int]:
        """What must follow: the end of a reasoning that is over, or the space between it and a constrained answer."""
        if self._tracker.inside and (not chosen or self._tracker.exhausted):
            return self._closing
        closed_now = bool(chosen) and not self._tracker.inside and chosen[-1] == self._tracker.end
        return self._after_closing if closed_now and self._constraint is not None else []

    def _write(self, token: int) -> None:
        self.tokens.append(token)
        part: Part = self._tracker.accept(token)
        if part == "reasoning":
            self._reasoning.push(token)
        elif part == "answer":
            self._answer.push(token)
        else:
            self._answer.strip_start = True

    def _finish(self, reason: FinishReason) -> Generated:
        text, reasoning = self._answer.finish(), self._reasoning.finish().rstrip()
        return Generated(
            text=text,
            reasoning=reasoning if self._tracker.used else None,
            valid=reason == "stop" and self._constraint is not None and self._constraint.accepting,
            finish_reason=reason,
            answer_tokens=len(self.tokens) - self._tracker.tokens,
            reasoning_tokens=self._tracker.tokens,
        )


class _TextStream:
    """Collects text and passes it on; white space at the very start can be left out."""

    def __init__(self, tokenizer: Tokenizer, listener: OnText | None, strip_start: bool) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._listener = listener
        self._pieces: list[str] = []
        self.strip_start = strip_start

    def push(self, token: int) -> None:
        self._emit(self._decoder.push(token))

    def finish(self) -> str:
        self._emit(self._decoder.finish())
        return "".join(self._pieces)

    def _emit(self, piece: str) -> None:
        if self.strip_start and not self._pieces:
            piece = piece.lstrip()
        if piece:
            self._pieces.append(piece)
            if self._listener is not None:
                self._listener(piece)
