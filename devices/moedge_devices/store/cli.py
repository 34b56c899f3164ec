"""`moedge bundle`: list, install, use, verify, remove, gc, update; and for who publishes: keys, publish."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from moedge_runtime.command_line import FiniteRange, OutputDirectory, OutputFile, examples
from moedge_runtime.counted import counted
from moedge_runtime.daemon.updates import UPDATE_LOCK_NAME
from moedge_runtime.errors import ConfigError

from moedge_devices.store.config import UpdateConfig, load_update_config
from moedge_devices.store.progress import progress_bar

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _board(command: _Command) -> _Command:
    """Options of everything that looks at a board's store."""
    for decorate in (
        click.option(
            "--store",
            type=click.Path(file_okay=False, path_type=Path),
            help="The store; default /var/lib/moedge/store.",
        ),
        click.option("--config", "-c", "path", type=_FILE, help="update.yaml; default /etc/moedge/update.yaml."),
    ):
        command = decorate(command)
    return command


def _source(command: _Command) -> _Command:
    """Options that say where releases come from and for whom."""
    for decorate in (
        click.option("--channel", help="The channel; default that of device.json, else stable."),
        click.option("--device", type=_FILE, help="device.json of `moedge fleet render`."),
        click.option("--key", type=_FILE, help="PEM file of the key of our certificate."),
        click.option("--cert", type=_FILE, help="PEM file of our certificate, for servers that ask for one."),
        click.option("--ca", type=_FILE, help="PEM file of the server's authorities; default the system's."),
        click.option("--keys", type=_FILE, help="Keys that are trusted; default /etc/moedge/update-keys.json."),
        click.option("--source", metavar="URL|DIR", help="https://HOST/PATH, or a directory such as a USB stick."),
    ):
        command = decorate(command)
    return command


def _as_json(command: _Command) -> _Command:
    """--json: the command's dictionary as one JSON object on standard output, where `moedge` prints errors, too."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **options: Any) -> int:
        result, text = command(*args, **options)
        click.echo(json.dumps({"ok": True} | result, ensure_ascii=False) if as_json else text)
        return 0 if result.get("ok", True) else 1

    return cast(_Command, wrapped)


@click.group(short_help="Versions of models: publish, fetch, switch, update.")
def bundle() -> None:
    """Versions of models on a board: fetch them, switch, update; and publish them for boards (docs/updates.md)."""


@bundle.command(name="list", epilog=examples("moedge bundle list", "moedge bundle list --available"))
@click.argument("name", required=False)
@click.option("--available", is_flag=True, help="What the source has, instead of what is here.")
@_board
@_source
@_as_json
def list_(*, name: str | None, available: bool, **options: Any) -> tuple[dict[str, Any], str]:
    """List versions that are installed; * is the one in use."""
    from moedge_devices.store.store import Store  # noqa: PLC0415  `moedge bundle --help` stays fast

    config = _config(options)
    store = Store(config.store)
    if available:
        with store.locked():  # what was seen of the source is noted
            index, _ = _index(config, store)
        releases = sorted(index.releases, key=lambda each: (each.name, -each.number))
        rows = [each.model_dump() for each in releases if name in (None, each.name)]
        lines = [
            f"  {row['name']}@{row['version']}  {row['bytes']:,} bytes  {', '.join(row['channels']) or 'no channel'}"
            for row in rows
        ]
    else:
        installed = store.installed(name)
        rows = [each.release.model_dump() | {"path": str(each.path), "in_use": each.current} for each in installed]
        lines = [
            f"{'*' if row['in_use'] else ' '} {row['name']}@{row['version']}  {row['bytes']:,} bytes" for row in rows
        ]
    return {"store": str(store.root), "bundles": rows}, "\n".join(lines) or "None."


@bundle.command(epilog=examples("moedge bundle install qwen3-vl-30b-int4@2026.11"))
@click.argument("bundle_", metavar="NAME[@VERSION]")
@click.option("--verify", "check_files", is_flag=True, help="Read files that are here, too; fetch damaged ones again.")
@click.option("--allow-downgrade", is_flag=True, help="Also a version older than the one in use.")
@_board
@_source
@_as_json
def install(*, bundle_: str, check_files: bool, allow_downgrade: bool, **options: Any) -> tuple[dict[str, Any], str]:
    """Fetch a version, without using it yet. A run that was stopped goes on where it was."""
    from moedge_devices.store.choose import check_not_older, choose  # noqa: PLC0415
    from moedge_devices.store.install import install as bring  # noqa: PLC0415
    from moedge_devices.store.store import Store  # noqa: PLC0415

    config = _config(options)
    store = Store(config.store)
    name, version = _split(bundle_)
    with store.locked():
        index, source = _index(config, store)
        release = choose(index.releases, name, version, _device(config))
        if not allow_downgrade:
            check_not_older(release, _in_use(store, name))
        with progress_bar() as progress_of:
            done = bring(store, source, release, progress_of, check_files=check_files)
    result = {
        "name": name,
        "version": release.version,
        "already": done.already,
        "files": done.files,
        "fetched_bytes": done.fetched_bytes,
        "shared_bytes": done.shared_bytes,
        "path": str(store.bundle(name, release.version)),
    }
    if done.already:
        return result, f"{release.label} is installed already."
    return result, (
        f"{release.label} is installed: {done.fetched_bytes:,} bytes fetched, {done.shared_bytes:,} were here. "
        f"Use it: `moedge bundle use {release.label}`, or let `moedge bundle update` switch."
    )


@bundle.command(
    epilog=examples("moedge bundle use qwen3-vl-30b-int4@2026.11"),
    short_help="Switch to a version that is installed, at once.",
)
@click.argument("bundle_", metavar="NAME@VERSION")
@_board
@_as_json
def use(*, bundle_: str, **options: Any) -> tuple[dict[str, Any], str]:
    """Switch to a version that is installed, at once and without waiting for answers.

    The daemon takes it with its next reload (`systemctl reload moedge`) or start.
    """
    from moedge_devices.store.store import Store  # noqa: PLC0415

    store = Store(_config(options).store)
    name, version = _split(bundle_, needs_version=True)
    with store.locked(UPDATE_LOCK_NAME), store.locked():
        _refuse_while_pending(store)
        before = store.version_in_use(name)
        store.use(name, version or "")
    result = {"name": name, "version": version, "before": before, "link": str(store.link(name))}
    return result, f"{store.link(name)} points to {name}@{version} now. Reload the daemon: systemctl reload moedge"


@bundle.command(
    epilog=examples("moedge bundle verify qwen3-vl-30b-int4@2026.11"),
    short_help="Read every byte of what is installed.",
)
@click.argument("bundle_", metavar="[NAME[@VERSION]]", required=False)
@_board
@_as_json
def verify(*, bundle_: str | None, **options: Any) -> tuple[dict[str, Any], str]:
    """Read every byte of what is installed and compare it with the manifests. Exits 1 if something is damaged."""
    from moedge_devices.store.check import check_store  # noqa: PLC0415
    from moedge_devices.store.store import Store  # noqa: PLC0415

    store = Store(_config(options).store)
    name, version = _split(bundle_) if bundle_ else (None, None)
    chosen = [each for each in store.installed(name) if version in (None, each.release.version)]
    if bundle_ and not chosen:
        raise store.not_installed(name or "", version)
    with progress_bar() as progress_of:
        damaged = check_store(chosen, progress_of)
    checked = [each.release.label for each in chosen]
    result = {"ok": not damaged, "checked": checked, "damaged": damaged}
    if not damaged:
        return result, f"All is as it was published: {', '.join(checked) or 'nothing is installed'}."
    lines = [f"{label} is damaged: {', '.join(files)}" for label, files in damaged.items()]
    return result, "\n".join([*lines, "Mend with `moedge bundle install NAME@VERSION --verify`."])


@bundle.command(
    epilog=examples("moedge bundle remove qwen3-vl-30b-int4@2026.10"), short_help="Remove a version that is not in use."
)
@click.argument("bundle_", metavar="NAME@VERSION")
@_board
@_as_json
def remove(*, bundle_: str, **options: Any) -> tuple[dict[str, Any], str]:
    """Remove a version that is not in use, and the files that no other one has."""
    from moedge_devices.store.store import Store  # noqa: PLC0415

    store = Store(_config(options).store)
    name, version = _split(bundle_, needs_version=True)
    with store.locked(UPDATE_LOCK_NAME), store.locked():
        _refuse_while_pending(store)
        freed = store.remove(name, version or "")
    return {"name": name, "version": version, "freed_bytes": freed}, f"{bundle_} is removed: {freed:,} bytes freed."


@bundle.command(epilog=examples("moedge bundle gc --downloads"))
@click.option("--downloads", is_flag=True, help="Also what could be gone on with.")
@_board
@_as_json
def gc(*, downloads: bool, **options: Any) -> tuple[dict[str, Any], str]:
    """Remove files that no version has."""
    from moedge_devices.store.store import Store  # noqa: PLC0415

    store = Store(_config(options).store)
    with store.locked():
        freed = store.collect(downloads=downloads)
    return {"freed_bytes": freed}, f"{freed:,} bytes freed."


@bundle.command(
    epilog=examples("moedge bundle update --check", "moedge bundle update --now --answers 3"),
    short_help="Fetch, switch, wait for answers; go back without.",
)
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--now", "any_time", is_flag=True, help="Also outside the windows of device.json.")
@click.option("--retry", is_flag=True, help="Also a release that was undone on this board before.")
@click.option("--allow-downgrade", is_flag=True, help="Also a version older than the one in use.")
@click.option("--answers", type=click.IntRange(0), help="Frames that must be answered; default 1.")
@click.option("--within", metavar="DURATION", help="Time for that; default 15m.")
@click.option("--keep", type=click.IntRange(0), help="Versions to keep beside the one in use; default 1.")
@click.option("--runtime-directory", type=click.Path(file_okay=False, path_type=Path), help="Default /run/moedge.")
@_board
@_source
@_as_json
def update(
    *, check: bool, any_time: bool, retry: bool, allow_downgrade: bool, **options: Any
) -> tuple[dict[str, Any], str]:
    """Update the bundle of the running daemon: fetch, switch, wait for answers, and go back if there are none.

    First finishes or undoes what an earlier run was stopped in. Exits 0 if the newest release is in use or it is not
    the time, 1 if an update was undone or could not be made.
    """
    from moedge_devices.store.run import Choice, run_update  # noqa: PLC0415

    choice = Choice(check, any_time, retry, allow_downgrade)
    with progress_bar() as progress_of:
        outcome = run_update(_config(options), choice, progress_of, _say)
    return asdict(outcome), outcome.text


@bundle.command(
    epilog=examples(
        "moedge bundle keys --version 1 --root root.pub --signer signing.pub --sign-with root.key --out keys-1.json"
    )
)
@click.option("--version", "number", type=click.IntRange(1), required=True, help="1 for the first, then one more.")
@click.option("--root", "roots", type=_FILE, multiple=True, required=True, help="Public root key, PEM; repeatable.")
@click.option("--signer", "signers", type=_FILE, multiple=True, help="Public key that may sign indexes; repeatable.")
@click.option("--sign-with", "private", type=_FILE, multiple=True, required=True, help="Private root key; repeatable.")
@click.option("--out", type=OutputFile(), required=True, help="For `publish --keys`.")
@click.option("--board-file", type=OutputFile(), help="Also update-keys.json for boards.")
@_as_json
def keys(
    *,
    number: int,
    roots: tuple[Path, ...],
    signers: tuple[Path, ...],
    private: tuple[Path, ...],
    out: Path,
    board_file: Path | None,
) -> tuple[dict[str, Any], str]:
    """Say which keys may sign, signed by the root key. The key ceremony is in docs/updates.md.

    A new version is signed by a root key of the version before and by one of its own. A signer that is not named any
    more is revoked.
    """
    from moedge_runtime.durable import write_durably  # noqa: PLC0415

    from moedge_devices.store.documents import KEYS_TYPE  # noqa: PLC0415
    from moedge_devices.store.envelope import unseal  # noqa: PLC0415
    from moedge_devices.store.errors import storage_errors  # noqa: PLC0415
    from moedge_devices.store.publish import make_keys, own_keys  # noqa: PLC0415

    content = make_keys(number, [_pem(each) for each in roots], [_pem(each) for each in signers], private)
    made = own_keys(content, "The keys")
    with storage_errors(out.absolute().parent, "The keys in"):
        write_durably(out.absolute(), content)
        if board_file is not None:
            payload, _ = unseal(content, KEYS_TYPE, made.root_keys(), "The keys")
            write_durably(board_file.absolute(), payload)
    result = {"version": made.version, "roots": list(made.root_keys()), "signers": list(made.signer_keys())}
    numbers = f"{counted(len(made.roots), 'root key')}, {counted(len(made.signers), 'signer')}"
    return result, f"{out}: version {made.version}, {numbers}."


@bundle.command(
    epilog=examples(
        "moedge bundle publish published qwen3-vl-int4 --key signing.key --version 2026.11 --channel stable",
        "moedge bundle publish published --key signing.key",
    ),
    short_help="Add BUNDLE to what boards fetch from, or renew it.",
)
@click.argument("directory", type=OutputDirectory())
@click.argument("bundle_", metavar="[BUNDLE]", required=False)
@click.option("--key", type=_FILE, required=True, help="Private key of a signer.")
@click.option("--keys", "new_keys", type=_FILE, help="First take over this version of the keys, from `keys --out`.")
@click.option("--name", help="Of a model; default its directory's.")
@click.option("--version", help="Of a model; needed with one.")
@click.option("--keyring", type=_FILE, help="PEM certificates whose owners may sign systems; needed with one.")
@click.option("--channel", "channels", multiple=True, help="In which channel; repeatable.")
@click.option("--profile", "profiles", multiple=True, help="Only for this kind of board; repeatable.")
@click.option("--for-device", "devices", multiple=True, help="Only for this device; repeatable.")
@click.option("--min-moedge", help="Oldest version of moedge that runs it.")
@click.option("--withdraw", multiple=True, metavar="NAME@VERSION", help="Take a release out; repeatable.")
@click.option(
    "--expires-days",
    type=FiniteRange(0.01, 3650),
    default=90.0,
    show_default=True,
    help="The index is valid so long.",
)
@_as_json
def publish(
    *, directory: Path, bundle_: str | None, key: Path, new_keys: Path | None, expires_days: float, **options: Any
) -> tuple[dict[str, Any], str]:
    """Add BUNDLE to DIRECTORY, which any web server can serve; without BUNDLE renew the index before it expires.

    BUNDLE is the directory of a model, or a system of `moedge flash build --update`, *.raucb, which says by itself what
    it is. A version that is there already gets the channels, profiles and devices that are given now.
    """
    from moedge_runtime.bundle import Bundle  # noqa: PLC0415

    from moedge_devices.store.documents import moment_text  # noqa: PLC0415
    from moedge_devices.store.publish import Terms, add_keys  # noqa: PLC0415
    from moedge_devices.store.publish import publish as write  # noqa: PLC0415

    system = _system(Path(bundle_), options) if bundle_ and Path(bundle_).is_file() else None
    if system is None and (bundle_ is None) != (options["version"] is None):
        raise ConfigError("BUNDLE and --version go together.")
    opened = Bundle.open(bundle_) if bundle_ and system is None else None
    size = system.path.stat().st_size if system else sum(each.nbytes for each in opened.manifest.files) if opened else 0
    if new_keys is not None:
        add_keys(directory, new_keys.read_bytes())
    terms = Terms(options["channels"], options["profiles"], options["devices"], options["min_moedge"])
    with progress_bar() as progress_of:
        done = write(
            directory,
            key,
            bundle=opened,
            system=system,
            name=options["name"],
            version=options["version"],
            terms=terms,
            withdraw=options["withdraw"],
            days=expires_days,
            progress=progress_of(size),
        )
    result = {
        "directory": str(directory),
        "serial": done.index.serial,
        "expires": moment_text(done.index.expires),
        "releases": len(done.index.releases),
        "release": done.release.model_dump() if done.release else None,
        "written_bytes": done.written_bytes,
        "removed_files": len(done.removed),
    }
    what = f"{done.release.label} is published ({done.written_bytes:,} new bytes)" if done.release else "Renewed"
    return result, f"{what}; the index expires at {result['expires']}."


def _pem(path: Path) -> str:
    """The text of a public key.

    Raises:
        ConfigError: It is no text.
    """
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"'{path}' is no public key in PEM, which is text. Write it with `openssl pkey -pubout`.", key="config.keys"
        ) from error


def _system(path: Path, options: dict[str, Any]) -> Any:
    from moedge_devices.store.publish import SystemFile  # noqa: PLC0415
    from moedge_devices.store.rauc import look_at  # noqa: PLC0415

    if options["name"] or options["version"]:
        raise ConfigError(f"The system '{path}' says its name and version by itself. Leave out --name and --version.")
    if options["keyring"] is None:
        raise ConfigError(f"Who has signed the system '{path}'? Give --keyring, whom the boards trust (docs/flash.md).")
    update = look_at(str(path), f"--keyring={options['keyring']}")
    return SystemFile(path, update.compatible, update.version)


def _config(options: dict[str, Any]) -> UpdateConfig:
    given = {key: value for key, value in options.items() if key != "path"}
    return load_update_config(options["path"], **given)


def _index(config: UpdateConfig, store: Any) -> tuple[Any, Any]:
    from moedge_devices.store.run import index_of  # noqa: PLC0415

    return index_of(config, store, _say)


def _device(config: UpdateConfig) -> Any:
    from moedge_devices.store.run import device_of  # noqa: PLC0415

    return device_of(config)


def _in_use(store: Any, name: str) -> Any:
    from moedge_devices.store.run import release_in_use  # noqa: PLC0415

    return release_in_use(store, name)


def _refuse_while_pending(store: Any) -> None:
    from moedge_devices.store.journal import Journal  # noqa: PLC0415

    pending = Journal(store.journal).read()
    if pending is not None:
        raise ConfigError(
            f"The update to {pending.release.label} is not finished. Run `moedge bundle update`, which finishes or "
            f"undoes it.",
            key="update.pending",
        )


def _split(text: str, *, needs_version: bool = False) -> tuple[str, str | None]:
    name, _, version = text.partition("@")
    if not name or "/" in text or (needs_version and not version):
        raise ConfigError(f"'{text}' names no bundle. Write NAME@VERSION, as `moedge bundle list` shows it.")
    return name, version or None


def _say(text: str) -> None:
    click.echo(text, err=True)
