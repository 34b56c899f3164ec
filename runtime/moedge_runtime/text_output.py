"""Where a command's text goes."""

from __future__ import annotations

from pathlib import Path

import click

from moedge_runtime.errors import ConfigError


def print_or_write(text: str, out: Path | None) -> None:
    """Print `text`, or write it to the file `out`.

    Raises:
        ConfigError: The file cannot be written.
    """
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise ConfigError(f"'{out}' cannot be written ({error.strerror}). Choose another file.") from error
