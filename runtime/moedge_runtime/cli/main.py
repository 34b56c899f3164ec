"""Entry point of `moedge`: finds the subcommand's entry point, runs it, turns errors into text and exit codes."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

from moedge_runtime import __version__
from moedge_runtime.errors import MoedgeError

COMMAND_GROUP = "moedge.commands"

OUTPUT_FAILURES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Of a write to what standard output goes to; a reader that is gone is click's, who ends with code 1."""


class EntryPointGroup(click.Group):
    """A click group whose subcommands are entry points, loaded one at a time."""

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=COMMAND_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands, without importing any of them."""
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand `cmd_name`."""
        point = self._entry_points().get(cmd_name)
        if point is None:
            return None
        command = point.load()
        assert isinstance(command, click.Command)
        return command


def _extra_of(command: str) -> str:
    return {"export": "export", "bundle": "update"}.get(command, "camera,broker")


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moedge")
def moedge() -> None:
    """Mixture-of-experts vision-language models on edge boards.

    Export a Hugging Face checkpoint to ONNX with its experts on flash, ask it about pictures, and run a daemon that
    answers questions about camera frames over MQTT.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line. Exits 0 on success, 1 on a failure, 2 on wrong usage or configuration, 130 on Ctrl-C.

    With --json a failure is an object on standard output as well: `ok`, `error` with `key` and `message`, and what the
    error reports beside.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without a character shows its number
    try:
        code = moedge.main(args=arguments, prog_name="moedge", standalone_mode=False)
        sys.exit(code or 0)  # what a command returns; None where click gives no code of its own
    except MoedgeError as error:
        _print_failure(arguments, error.key, str(error), error.report)
        click.echo(f"moedge: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _print_failure(arguments, "usage", error.format_message())
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("moedge: interrupted.", err=True)
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("moedge"):
            raise
        command = arguments[0] if arguments else ""
        message = (
            f"`moedge {command}` needs the Python package '{package}', which is not installed. "
            f"Install it with: pip install 'moedge[{_extra_of(command)}]'"
        )
        _print_failure(arguments, "moedge.not_installed", message)
        click.echo(f"moedge: {message}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT_FAILURES:
            raise
        click.echo(f"moedge: The output cannot be written: {error.strerror}. Free space, or write elsewhere.", err=True)
        sys.exit(1)


def _print_failure(
    arguments: Sequence[str], key: str, message: str, report: Mapping[str, object] | None = None
) -> None:
    """The JSON object of a command that failed, if JSON was asked for."""
    if "--json" in arguments:
        failure = {"ok": False, "error": {"key": key, "message": message}} | dict(report or {})
        with suppress(OSError):  # the text on standard error and the code say it, too
            click.echo(json.dumps(failure, ensure_ascii=False))
