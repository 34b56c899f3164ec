"""Values as YAML that every YAML reader takes for the same values."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import yaml

_BLOCK_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LINE_BREAK = re.compile("[\x85\u2028\u2029\ufeff]")
_LINE_BREAK_OR_NEWLINE = re.compile("[\n\x85\u2028\u2029\ufeff]")
"""Taken for line breaks, or dropped, unless they are escaped: PyYAML writes them as they are."""


def block(value: Any) -> str:
    """In block form, keys in their order."""
    return _dump(value, _Block, default_flow_style=False, width=10_000)


def flow(value: Any) -> str:
    """In one line, without a line break."""
    return _dump(value, _Flow, default_flow_style=True, width=float("inf")).removesuffix("\n").removesuffix("\n...")


def _dump(value: Any, dumper: Any, **form: Any) -> str:
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, **form)
    return text


class _Block(_BLOCK_DUMPER):  # type: ignore[misc, valid-type]
    """Writes a value out wherever it stands: layers share objects, files do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Flow(yaml.SafeDumper):
    """The same in Python, whose flow form the Python reader takes as well."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, text: str, escaped: re.Pattern[str]) -> yaml.Node:
    style = '"' if escaped.search(text) else None
    node: yaml.Node = dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)
    return node


_Block.add_representer(str, partial(_text, escaped=_LINE_BREAK))
_Flow.add_representer(str, partial(_text, escaped=_LINE_BREAK_OR_NEWLINE))
