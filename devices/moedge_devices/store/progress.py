"""Shows in a terminal how much of some bytes has come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Progress = Callable[[int], None]


@contextmanager
def progress_bar() -> Iterator[Callable[[int], Progress]]:
    """A progress bar on standard error that begins once the bytes to come are known; none in a journal or a file."""
    bars: list[Any] = []

    def progress_of(total: int) -> Progress:
        if not sys.stderr.isatty():
            return lambda advance: None
        bar = click.progressbar(length=total, label="files", file=sys.stderr)
        bars.append(bar)
        bar.__enter__()
        return bar.update

    try:
        yield progress_of
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)
