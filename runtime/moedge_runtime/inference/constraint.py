"""Makes an answer fit a JSON schema: at each step only tokens that keep it valid may be chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llguidance
import numpy as np

from moedge_runtime.errors import RequestError
from moedge_runtime.inference.dequantize import FloatArray

_WHITESPACE = r" |\n {0,16}"
"""Between two JSON tokens: nothing, a space, or a line break with indentation. Bounded, so that an answer cannot fill
its length with blanks."""

_PANIC = "PanicException"
"""What a panic of Rust becomes in Python (pyo3); no Exception. llguidance 1.9 panics on some faulty schemas."""

_COMPILED_SCHEMAS = 32
"""Compiled schemas kept: a daemon asks the same few questions over and over."""


class JsonConstraint:
    """One answer in the making."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether the answer is valid and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    @property
    def accepting(self) -> bool:
        """Whether the answer is valid as it stands, though it may go on."""
        return bool(self._matcher.is_accepting())

    def mask(self, logits: FloatArray) -> FloatArray:
        """A copy of `logits` [vocab_size] with -inf at tokens that may not follow.

        Raises:
            RequestError: The schema became too complex to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=logits.size).view(bool)
        self._check()
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Go on by a token that the mask allowed.

        Raises:
            RequestError: The schema became too complex to follow.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RequestError(
                f"The JSON schema cannot be followed further: {self._matcher.get_error().strip()}. Simplify it.",
                key="request.schema_failed",
            )


class SchemaCompiler:
    """Compiles JSON schemas for one tokenizer. Reads the vocabulary at first use: a large one takes about a second."""

    def __init__(self, tokenizer_path: Path, vocab_size: int, end_token: int) -> None:
        self._path = tokenizer_path
        self._vocab_size = vocab_size
        self._end_token = end_token
        self._tokenizer: Any = None
        self._compiled: dict[str, Any] = {}

    def compile(self, schema: dict[str, Any]) -> JsonConstraint:
        """A fresh constraint for `schema`.

        Raises:
            RequestError: `schema` is no JSON schema, nothing fits it, or it uses what llguidance does not implement.
        """
        text = json.dumps(schema)
        matcher = self._compiled.get(text)
        if matcher is None:
            with _panics_as_errors():
                matcher = self._matcher(schema)
            if len(self._compiled) >= _COMPILED_SCHEMAS:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[text] = matcher
        return JsonConstraint(matcher.deep_copy())

    def _matcher(self, schema: dict[str, Any]) -> Any:
        if self._tokenizer is None:
            self._tokenizer = llguidance.LLTokenizer(
                self._path.read_text(encoding="utf-8"), n_vocab=self._vocab_size, eos_token=self._end_token
            )
        return llguidance.LLMatcher(self._tokenizer, _grammar(schema, self._tokenizer), log_level=0)


def check_schema(schema: dict[str, Any]) -> None:
    """Check a schema as `SchemaCompiler.compile` does, without the model's vocabulary.

    Raises:
        RequestError: `schema` is no JSON schema, nothing fits it, or it uses what llguidance does not implement.
    """
    with _panics_as_errors():
        _grammar(schema)


def _grammar(schema: dict[str, Any], tokenizer: Any = None) -> str:
    """Llguidance's grammar for `schema`, checked."""
    grammar: str = llguidance.LLMatcher.grammar_from_json_schema(
        schema, overrides={"whitespace_pattern": _WHITESPACE, "whitespace_flexible": True}
    )
    _, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, tokenizer)
    if messages:
        raise RequestError(
            f"The JSON schema cannot be used: {'; '.join(message.strip() for message in messages)}. Correct or "
            f"simplify it.",
            key="request.schema_invalid",
        )
    return grammar


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise RequestError(
            f"The JSON schema cannot be used: llguidance fails on it ({error}). Correct or simplify it.",
            key="request.schema_invalid",
        ) from error
