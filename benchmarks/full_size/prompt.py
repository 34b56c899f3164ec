"""Texts of an exact number of tokens: random words of the vocabulary, so that routing varies as a real text's does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def words_of(vocabulary: int, decode: Callable[[int], str]) -> list[str]:
    """Tokens that are a space and at least three small letters: they come back as themselves when written in a row.

    Args:
        vocabulary: Number of tokens.
        decode: Text of a token.
    """
    texts = (decode(token) for token in range(vocabulary))
    return [text for text in texts if len(text) > 3 and text[0] == " " and text[1:].isascii() and text[1:].islower()]


def text_of(tokens: int, words: list[str], count: Callable[[str], int], seed: int) -> str:
    """A text of exactly `tokens` tokens.

    Args:
        tokens: At least 1.
        words: See `words_of`.
        count: Tokens of a text.
        seed: The same for the same text.
    """
    rng = np.random.default_rng(seed)
    text = ""
    while (missing := tokens - count(text)) > 0:
        text += "".join(words[index] for index in rng.integers(0, len(words), missing))
        while count(text) > tokens:
            text = text[: text.rindex(" ")]
    return text
