"""Tells reasoning from answer, and ends a reasoning that has used up its tokens."""

from __future__ import annotations

from typing import Literal

Part = Literal["mark", "reasoning", "answer"]

OPENING = "<think>\n"
CLOSING = "\n</think>\n\n"
"""As Qwen3's own reasoning ends, so that the answer begins where the model expects it."""
AFTER_CLOSING = "\n\n"


class ThinkingTracker:
    """Follows the generated tokens of one answer.

    Attributes:
        inside: Whether the next token belongs to the reasoning.
        used: Whether there has been any reasoning.
        end: Id of `</think>`.
        tokens: Tokens of reasoning so far, its marks included.
    """

    def __init__(self, start: int | None, end: int | None, inside: bool, budget_tokens: int | None = None) -> None:
        """Begin before the first generated token.

        Args:
            start: Id of `<think>`; None if the vocabulary has none.
            end: Id of `</think>`; likewise.
            inside: Whether the prompt ends inside `<think>`.
            budget_tokens: Most tokens of reasoning; None for no limit.
        """
        self._start = start
        self.end = end
        self._budget_tokens = budget_tokens
        self.inside = inside
        self.used = inside
        self.tokens = 0

    @property
    def exhausted(self) -> bool:
        """Whether the reasoning must be closed now."""
        return self.inside and self._budget_tokens is not None and self.tokens >= self._budget_tokens

    def accept(self, token: int) -> Part:
        """Note a generated token and say where it belongs."""
        if token == self._start and not self.inside:
            self.inside = self.used = True
        elif token == self.end and self.inside:
            self.inside = False
        else:
            if self.inside:
                self.tokens += 1
            return "reasoning" if self.inside else "answer"
        self.tokens += 1
        return "mark"
