"""Reads a data file into a typed object, and reports everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from moedge_runtime.config.problems import path_text, schema_problems
from moedge_runtime.config.yaml_lines import Problems, line_of, read_yaml
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def load_typed(path: Path, kind: type[Model], what: str) -> Model:
    """The file at `path` as a `kind`.

    Args:
        path: YAML, or JSON, which is YAML too.
        kind: Refuses unknown keys itself.
        what: Names the kind of file in errors.

    Raises:
        ConfigError: It cannot be read, is no YAML, or values are wrong: then every one is listed with its line.
    """
    try:
        raw, lines, problems = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{what} '{path}' cannot be read ({error.strerror}). Give an existing file.", key="config.unreadable"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{what} '{path}' is not valid YAML: {error}", key="config.invalid_yaml") from error
    return check_typed(raw, kind, f"{what} '{path}'", lines, problems)


def check_typed(
    raw: object, kind: type[Model], what: str, lines: dict[tuple[str | int, ...], int], problems: Problems
) -> Model:
    """`raw` as a `kind`.

    Args:
        raw: As YAML or JSON gives it.
        kind: Refuses unknown keys itself.
        what: Kind and name of the file, for errors.
        lines: Of its keys; empty if they are not known.
        problems: What is known to be wrong already.

    Raises:
        ConfigError: Values are wrong; every one is listed.
    """
    value: Model | None = None
    try:
        value = kind.model_validate(raw)
    except ValidationError as error:
        problems += schema_problems(error, kind)
    if value is None or problems:
        raise ConfigError(_report(what, problems, lines), key="config.invalid")
    return value


def _report(what: str, problems: Problems, lines: dict[tuple[str | int, ...], int]) -> str:
    located = sorted((line_of(at, lines) or 0, path_text(at), text) for at, text in problems)
    listing = [
        "  " + (f"line {line}: " if line else "") + (f"{where}: " if where else "") + text
        for line, where, text in located
    ]
    return "\n".join([f"{what} has {counted(len(problems), 'error')}:", *listing])
