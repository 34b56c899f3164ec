"""`moedge config`: the configurations that the daemon on this board has run with, and back to one of them."""

from __future__ import annotations

import stat
from pathlib import Path

import click

from moedge_runtime.cli.backup import CONFIG_OPTION
from moedge_runtime.command_line import examples
from moedge_runtime.config.load import parse_without_environment
from moedge_runtime.config.pushed import in_force
from moedge_runtime.daemon.backup import state_directory
from moedge_runtime.daemon.bundle_check import open_bundle
from moedge_runtime.daemon.config_history import ConfigHistory, Record
from moedge_runtime.daemon.preflight import check_config
from moedge_runtime.durable import Drafts
from moedge_runtime.errors import ConfigError, StorageError
from moedge_runtime.mqtt.payloads import rfc3339


@click.group()
def config() -> None:
    """See what the daemon has run with, and go back to it."""


@config.command(
    epilog=examples("moedge config history --config /etc/moedge/moedge.yaml"),
    short_help="List the configurations that the daemon has run with.",
)
@CONFIG_OPTION
def history(config_path: str) -> None:
    """List the last ten configurations that the daemon has run with, the last one first.

    Each with its ID, since when it ran, the keys in which it differs from the one that ran before, and the question_id
    that the answers of each watch had.
    """
    path = Path(config_path)
    records = _kept(path)[1]
    current = _current(path)[1]
    for record in records:
        clock = " (the clock was not set)" if record.clock_synced is False else ""
        click.echo(f"{record.id}  {rfc3339(record.at)}{clock}{'  as in the file' * (record.config == current)}")
        for what, keys in record.changes.model_dump().items():
            if keys:
                click.echo(f"  {what}: {', '.join(keys)}")
        for watch, identifier in record.watches.items():
            click.echo(f"  {watch}: {identifier}")
    if not records:
        click.echo("None is kept yet: one is when the daemon has started with it.")


@config.command(
    epilog=examples(
        "moedge config rollback --config /etc/moedge/moedge.yaml && systemctl reload moedge",
        "moedge config rollback sha256-3f1c0ab2d94e --config /etc/moedge/moedge.yaml",
    ),
    short_help="Make the file what it was.",
)
@click.argument("identifier", metavar="[ID]", required=False)
@CONFIG_OPTION
def rollback(identifier: str | None, config_path: str) -> None:
    """Write a configuration of the history into the file that counts, if it is still right.

    ID is one of `moedge config history`; without it the last one that differs from the file. The daemon takes it over
    on a reload. Files that it names, and packs, are taken as they are now.
    """
    path = Path(config_path)
    kept, records = _kept(path)
    source, current = _current(path)
    record = (
        kept.find(identifier)
        if identifier is not None
        else next((each for each in records if each.config != current), None)
    )
    if record is None:
        raise ConfigError("No configuration is kept but that of the file.", key="config.not_kept")
    _check(record.config, path, source)
    drafts = Drafts()
    try:
        like = source.stat()
        drafts.add(source, record.config.encode(), mode=stat.S_IMODE(like.st_mode), owner=(like.st_uid, like.st_gid))
        drafts.take_over()
    except OSError as error:
        raise StorageError(
            f"'{source}' cannot be replaced ({error.strerror}). Run this as root, or free space.",
            key="config.not_writable",
        ) from error
    click.echo(
        f"{source}: {record.id}, which ran since {rfc3339(record.at)}. The daemon takes it over on a reload: "
        f"systemctl reload moedge"
    )


def _kept(path: Path) -> tuple[ConfigHistory, list[Record]]:
    directory = state_directory(path)
    if directory is None:
        raise ConfigError(
            f"Configurations are kept in the daemon's state directory, and nothing says where that is for '{path}'. "
            f"Give --config /etc/moedge/moedge.yaml, or set STATE_DIRECTORY as for the daemon.",
            key="config.no_state_directory",
        )
    kept = ConfigHistory(directory)
    records, problems = kept.read()
    for problem in problems:
        click.echo(f"moedge: {problem}", err=True)
    return kept, list(records.values())


def _current(path: Path) -> tuple[Path, str]:
    """The file that counts, where its links lead, and what is in it, right or wrong."""
    try:
        source = in_force(path).resolve()
        return source, source.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"Configuration '{error.filename or path}' cannot be read ({error.strerror}). Give an existing file with "
            f"--config, and run this as root.",
            key="config.unreadable",
        ) from error


def _check(text: str, path: Path, source: Path) -> None:
    """Refuse what `moedge run --check` would, but that variables of the environment need not be set here."""
    from moedge_runtime.daemon.engine import question_checker  # noqa: PLC0415

    config, _ = parse_without_environment(text, path, source=source)
    bundle = open_bundle(config.model, False)
    check_config(config, question_checker(bundle, config.model), exit_when_done=config.exit_when_done)
