"""Reads moedge.yaml: YAML, environment variables, validation, and one error that lists all problems."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from moedge_runtime.config.environment import referenced, substitute
from moedge_runtime.config.model import CONFIG_VERSION, Config, Origin
from moedge_runtime.config.problems import path_text, reference_problems, schema_problems
from moedge_runtime.config.pushed import in_force, is_pushed
from moedge_runtime.config.yaml_lines import Path as YamlPath
from moedge_runtime.config.yaml_lines import Problems, line_of, read_yaml
from moedge_runtime.counted import counted
from moedge_runtime.errors import ConfigError

STAND_IN = "not-set-on-this-machine"
"""For a variable of the environment, where nobody needs its value."""


def load_config(path: str | Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read, complete and validate the configuration at `path`, or what was pushed in its place (`in_force`).

    Args:
        path: The YAML file. Relative paths are resolved against its directory, also those of a pushed one.
        environment: Variables for `${NAME}`; the process's own if None.

    Raises:
        ConfigError: The file cannot be read or is no YAML, or values are wrong: then every one of them is listed with
            its line.
    """
    path = source = Path(path)
    try:
        source = in_force(path)
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Configuration '{source}' cannot be read ({error.strerror}). Give an existing file with --config.",
            key="config.unreadable",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"Configuration '{source}' is not UTF-8 text ({error}).", key="config.unreadable") from error
    try:
        return parse_config(text, path, environment, source=source)
    except ConfigError as error:
        if not is_pushed(source):
            raise
        raise ConfigError(
            f"{error}\nIt was pushed and counts in the place of '{path}'. Push another one, or remove it to have that.",
            key=error.key,
        ) from error


def parse_config(
    text: str,
    path: Path,
    environment: Mapping[str, str] | None = None,
    *,
    source: Path | None = None,
    coming: Mapping[Path, bytes] | None = None,
) -> Config:
    """Complete and validate `text` as the configuration that stands, or is going to stand, at `path`.

    Args:
        text: YAML.
        path: As for `load_config`.
        environment: As for `load_config`.
        source: The file that it was read from, if that is another one.
        coming: Files that are going to stand there, too, by their absolute paths: JSON Schemas that it names.

    Raises:
        ConfigError: As `load_config`.
    """
    source = source or path
    try:
        raw, lines, problems = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"Configuration '{source}' is not valid YAML: {error}{_advice(text, error)}", key="config.invalid_yaml"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(
            f"Configuration '{source}' is not valid YAML: {reason}.", key="config.invalid_yaml"
        ) from error
    _check_version(source, raw)
    raw, unset = substitute(raw, os.environ if environment is None else environment)
    problems += unset
    context = {"base_dir": path.absolute().parent, "coming": coming or {}}
    config, wrong = validate(raw, context, {at for at, _ in unset})
    problems += wrong
    origin = Origin(path, source, lines, text)
    if config is None or problems:
        raise ConfigError(_report(origin, problems), key="config.invalid")
    config._origin = origin
    return config


def parse_without_environment(
    text: str, path: Path, *, source: Path | None = None, coming: Mapping[Path, bytes] | None = None
) -> tuple[Config, list[str]]:
    """As `parse_config` on a machine, or for a user, that lacks the variables of the daemon.

    Returns:
        The configuration, with STAND_IN for variables that are not set here, and the names of these.

    Raises:
        ConfigError: As `parse_config`.
    """
    try:
        values = read_yaml(text)[0]
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None  # said below
    unset = sorted(referenced(values) - os.environ.keys())
    environment = dict.fromkeys(unset, STAND_IN) | dict(os.environ)
    return parse_config(text, path, environment, source=source, coming=coming), unset


def validate(
    raw: Any, context: Mapping[str, object], reported: Set[YamlPath] = frozenset()
) -> tuple[Config | None, Problems]:
    """Check the values of a moedge.yaml.

    Args:
        raw: As YAML gave them, environment variables put in.
        context: `base_dir`, against which relative paths are resolved, or `another_machine`: leave paths as they are
            and look for no files, since they are those of a board elsewhere.
        reported: Paths whose value is known to be wrong: what its type says about that is left out.

    Returns:
        The configuration, None if its type refuses it, and everything that is wrong.
    """
    try:
        config, problems = Config.model_validate(raw, context=dict(context)), []
    except ValidationError as error:
        config, problems = None, [problem for problem in schema_problems(error) if problem[0] not in reported]
    return config, problems + reference_problems(raw)


def config_error(config: Config, problems: Problems) -> ConfigError:
    """What is wrong with a configuration that was read, in the form in which `load_config` reports it."""
    return ConfigError(_report(config._origin, problems), key="config.invalid")


def _advice(text: str, error: yaml.YAMLError) -> str:
    """What to do about a mistake that is easily made: braces of a variable inside of others."""
    mark = getattr(error, "problem_mark", None)
    line = text.splitlines()[mark.line : mark.line + 1] if mark is not None else []
    if not any("${" in part for part in line):
        return ""
    return '\nInside of { } and [ ] a variable is written with quotes: "${NAME}".'


def _check_version(path: Path, raw: object) -> None:
    if not isinstance(raw, dict):
        raise ConfigError(
            f"Configuration '{path}' holds no keys. Start from the example in docs/configuration.md.",
            key="config.invalid",
        )
    version = raw.get("version", CONFIG_VERSION)
    if isinstance(version, int) and version != CONFIG_VERSION:
        raise ConfigError(
            f"Configuration '{path}' has version {version}; this moedge reads version {CONFIG_VERSION}. "
            f"Upgrade moedge, or write the file for version {CONFIG_VERSION}.",
            key="config.version_unsupported",
        )


def _report(origin: Origin | None, problems: Problems) -> str:
    lines = origin.lines if origin else {}
    located = sorted((line_of(at, lines) or 0, path_text(at), text) for at, text in problems)
    name = f"Configuration '{origin.source}'" if origin else "The configuration"
    listing = [
        "  " + (f"line {line}: " if line else "") + (f"{where}: " if where else "") + text
        for line, where, text in located
    ]
    return "\n".join([f"{name} has {counted(len(problems), 'error')}:", *listing])
