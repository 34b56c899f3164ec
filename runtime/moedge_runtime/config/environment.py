"""Puts environment variables into string values: `${NAME}`; `$${` is a literal `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moedge_runtime.config.yaml_lines import Path, Problems

_REFERENCE = re.compile(r"\$(\$)?\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def substitute(value: Any, environment: Mapping[str, str], path: Path = ()) -> tuple[Any, Problems]:
    """`value` with every `${NAME}` in its strings replaced, keys untouched, and a problem for each unset variable."""
    problems: Problems = []
    if isinstance(value, dict):
        result: dict[Any, Any] = {}
        for key, item in value.items():
            result[key], inner = substitute(item, environment, (*path, str(key)))
            problems += inner
        return result, problems
    if isinstance(value, list):
        items = []
        for index, item in enumerate(value):
            new, inner = substitute(item, environment, (*path, index))
            items.append(new)
            problems += inner
        return items, problems
    if not isinstance(value, str):
        return value, problems

    def replace(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return match[0][1:]
        if not _NAME.fullmatch(name):
            problems.append((path, f"'${{{name}}}' names no environment variable; write $${{ for a literal ${{"))
        elif name not in environment:
            problems.append((path, f"the environment variable {name} is not set; set it before moedge starts"))
        return environment.get(name, "")

    return _REFERENCE.sub(replace, value), problems


def referenced(value: Any) -> set[str]:
    """Names of the variables that the strings in `value` name."""
    if isinstance(value, dict):
        return set().union(*map(referenced, value.values()))
    if isinstance(value, list):
        return set().union(*map(referenced, value))
    if not isinstance(value, str):
        return set()
    return {name for escaped, name in _REFERENCE.findall(value) if not escaped and _NAME.fullmatch(name)}
