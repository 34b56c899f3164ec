"""Finds secrets in the values of a moedge.yaml or a fleet file, which are to go where others read them. Pure.

Recognised are passwords that the types know as such, logins inside addresses, values of keys that name a secret in
addresses and commands, and private keys. A secret of another form cannot be told from any other text.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, SecretStr

from moedge_runtime.config.model import Config
from moedge_runtime.config.yaml_lines import Path

_REFERENCES = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|secret|(?:access_|auth_)?token|api_?key|access_?key|auth)"
_VALUE = r"(?!\$\{)[^&\s'\"]+"
_FORMS = (
    re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:{_VALUE}@"),
    re.compile(rf"[?&;]{_NAMES}={_VALUE}", re.IGNORECASE),
    re.compile(rf"(?:^|\s)--?{_NAMES}[=\s]\s*['\"]?{_VALUE}", re.IGNORECASE),
    re.compile(rf"(?:^|\s){_NAMES}={_VALUE}", re.IGNORECASE),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
)
_TEXTS = {"question", "system", "json_schema"}
"""What is said to the model."""


def secrets(value: Any, path: Path) -> Iterator[Path]:
    """Paths of the secrets in `value`, which stands at `path` and in which variables are not replaced yet."""
    if isinstance(value, dict):
        for key, item in value.items():
            inner = (*path, str(key))
            if key in secret_keys() and not isinstance(item, dict | list):
                if item is not None and not (isinstance(item, str) and _REFERENCES.fullmatch(item)):
                    yield inner
            elif key not in _TEXTS:
                yield from secrets(item, inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secrets(item, (*path, index))
    elif isinstance(value, str) and any(form.search(value) for form in _FORMS):
        yield path


@cache
def secret_keys() -> frozenset[str]:
    """Names of the keys whose type in the runtime's configuration is a secret."""
    return frozenset(_secret_fields(Config))


def _secret_fields(kind: Any) -> Iterator[str]:
    for inner in typing.get_args(kind):
        yield from _secret_fields(inner)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            if info.annotation is SecretStr or SecretStr in typing.get_args(info.annotation):
                yield name
            yield from _secret_fields(info.annotation)
