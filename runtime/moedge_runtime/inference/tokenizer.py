"""Text to tokens and back, the latter also piece by piece while an answer is being decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from moedge_runtime.errors import BundleError

_REPLACEMENT = "�"


class Tokenizer:
    """tokenizer.json of a bundle.

    Attributes:
        control_tokens: Texts that mean something to the model beyond their letters, e.g. `<|im_end|>`; with those that
            the file does not call special, such as `</think>`: in a text they would be recognised just so.
    """

    def __init__(self, path: Path) -> None:
        """Load the file `path`.

        Raises:
            BundleError: It is no tokenizer.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(
                f"'{path}' is not a tokenizer that can be read: {error}. Copy or export the bundle again.",
                key="bundle.tokenizer_damaged",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self.control_tokens = tuple(token.content for token in added.values())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; control tokens in it are recognised, none is added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens` without control tokens; what is no valid UTF-8 becomes U+FFFD."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def text_of(self, token: int) -> str | None:
        """Content of one token as the vocabulary has it; None if there is no such id."""
        content = self._tokenizer.id_to_token(token)
        return None if content is None else str(content)


class StreamDecoder:
    """Decodes tokens as they come and never gives out half a character.

    A byte-level token may end inside a UTF-8 sequence; its text is held back until the sequence is complete. All
    pieces together are exactly what `Tokenizer.decode` makes of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """Text that became complete with `token`; often empty."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        if text.endswith(_REPLACEMENT):
            return ""
        self._pending.clear()
        return text

    def finish(self) -> str:
        """Text of what was held back, with U+FFFD where it stayed incomplete."""
        text = self._tokenizer.decode(self._pending)
        self._pending.clear()
        return text
