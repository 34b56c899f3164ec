"""`moedge backup` and `moedge restore`: what makes a device what it is, in one file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from moedge_runtime.command_line import examples
from moedge_runtime.daemon.backup import make_backup
from moedge_runtime.daemon.restore import restore as restore_backup
from moedge_runtime.durable import sync_path
from moedge_runtime.errors import ConfigError

CONFIG_OPTION = click.option(
    "--config", "-c", "config_path", default="moedge.yaml", show_default=True, metavar="FILE", help="The configuration."
)


@click.command(
    epilog=examples("moedge backup", "moedge backup gate-01.zip --config /etc/moedge/moedge.yaml"),
    short_help="Write a device's configuration and state into FILE.",
)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@CONFIG_OPTION
@click.option("--hot-set/--no-hot-set", default=True, help="With what was learnt about experts (model.hot_set).")
def backup(file: Path | None, config_path: str, hot_set: bool) -> None:
    """Write the device's configuration, and what it has learnt, into a zip. The daemon may run.

    FILE is moedge-<device>-<time>.zip if it is not given. No password, token, key or certificate is in it, and none of
    the bundle: a configuration that holds a secret itself is refused.
    """
    made = make_backup(Path(config_path), hot_set=hot_set)
    file = file or Path(made.name)
    try:
        _write(file, made.content)
    except FileExistsError as error:
        raise ConfigError(f"'{file}' is there already. Choose another file, or remove it.") from error
    except OSError as error:
        raise ConfigError(f"'{file}' cannot be written ({error.strerror}). Choose another file.") from error
    click.echo(f"{file}: {len(made.content):,} bytes, of device '{made.device}'.")
    for what in made.left_out:
        click.echo(f"Left out: {what}.")


@click.command(
    epilog=examples("moedge restore gate-01.zip --config /etc/moedge/moedge.yaml"),
    short_help="Bring back what `moedge backup` wrote.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@CONFIG_OPTION
@click.option("--replace", is_flag=True, help="Replace files that differ from those of the backup.")
def restore(file: Path, config_path: str, replace: bool) -> None:
    """Bring back what `moedge backup` or the request `backup` gave. The daemon must not run.

    Everything is checked before anything is written; files that are there and differ are left unless told otherwise.
    Keys, certificates and the bundle come first, from where they came before.
    """
    done = restore_backup(file, Path(config_path), replace=replace)
    click.echo(
        f"Backup of device '{done.index.device}', made {done.index.made_at} by moedge {done.index.moedge_version}."
    )
    for path in done.written:
        click.echo(f"Written: {path}")
    for path in done.same:
        click.echo(f"As it was: {path}")
    for what in done.left_out:
        click.echo(f"Left out: {what}")
    if done.unset:
        click.echo(f"Set in the daemon's environment before it starts: {', '.join(done.unset)}")


def _write(file: Path, content: bytes) -> None:
    """Write a new file whole, or leave none."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        sync_path(file)
    except OSError:
        with suppress(OSError):
            file.unlink()
        raise
