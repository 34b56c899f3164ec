"""Brings a backup back: everything is checked before anything is written, and every file is the old or the new one."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config
from moedge_runtime.config.load import parse_without_environment
from moedge_runtime.config.pushed import in_force, is_pushed, pushed_path
from moedge_runtime.daemon.backup import (
    CONFIG,
    FORMAT,
    FORMAT_VERSION,
    HOT_SET,
    INDEX,
    MAX_FILE_BYTES,
    MAX_FILES,
    PUSHED_PREFIX,
    SCHEMA_PREFIX,
    state_directory,
)
from moedge_runtime.daemon.config_file import DEVICE_FILE
from moedge_runtime.daemon.config_lock import is_held
from moedge_runtime.daemon.switches import FILE_NAME as SWITCHES
from moedge_runtime.durable import Drafts
from moedge_runtime.errors import ConfigError, MoedgeError, StorageError
from moedge_runtime.strict_json import parse_json

_NAMES = (CONFIG, DEVICE_FILE, PUSHED_PREFIX + CONFIG, PUSHED_PREFIX + DEVICE_FILE, HOT_SET, SWITCHES)


class Index(BaseModel):
    """backup.json."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    format: Literal["moedge-backup"]
    version: int
    made_at: str
    device: str
    moedge_version: str
    model: dict[str, Any] | None
    files: dict[str, str]
    """Name in the zip → SHA-256."""


@dataclass(frozen=True)
class Restored:
    """What was done.

    Attributes:
        index: Of the backup.
        written: Files that have another content now.
        same: Files that had this content.
        left_out: What was not restored, and why, a sentence each.
        unset: Variables of the environment that the configuration needs and that are not set here.
    """

    index: Index
    written: tuple[Path, ...]
    same: tuple[Path, ...]
    left_out: tuple[str, ...]
    unset: tuple[str, ...]


def restore(archive: Path, path: Path, *, replace: bool = False) -> Restored:
    """Restore a backup.

    Args:
        archive: The zip.
        path: Where the configuration is to be, as for `moedge run --config`.
        replace: Whether files with another content are replaced.

    Raises:
        ConfigError: A daemon runs with this configuration; the zip is damaged or none; its configuration is wrong
            here; files would be replaced and may not.
        StorageError: A file cannot be read or written. Those that were written by then are whole.
    """
    index, files = read_backup(archive)
    schemas = _schemas(files, path.absolute().parent)
    counts = _at_rest(path)
    pushed = PUSHED_PREFIX + CONFIG in files
    if pushed and not is_pushed(pushed_path(path)):
        raise ConfigError(
            f"This backup has a configuration that was pushed, which counts in the place of one in /etc/moedge only; "
            f"got --config {path}. Give --config /etc/moedge/{CONFIG}, or unpack the zip.",
            key="backup.pushed",
        )
    if not pushed and counts != path:
        raise ConfigError(
            f"'{counts}' was pushed to this device and would count in the place of what is restored. Remove it first.",
            key="backup.pushed",
        )
    coming = {target: files[name] for target, name in schemas.items()}
    config, unset = _checked(files[PUSHED_PREFIX + CONFIG if pushed else CONFIG], path, coming)
    targets, left_out = _targets(files, path, config)
    targets = schemas | targets
    before = {target: _content(target) for target in targets}
    same = tuple(target for target, name in targets.items() if before[target] == files[name])
    differ = [target for target in targets if before[target] is not None and target not in same]
    if differ and not replace:
        names = ", ".join(f"'{target}'" for target in differ)
        raise ConfigError(
            f"Files here differ from those of the backup: {names}. Nothing was written; --replace replaces them.",
            key="backup.differs",
        )
    new = {target: files[name] for target, name in targets.items() if target not in same}
    _write(new)
    return Restored(index, tuple(new), same, tuple(left_out), tuple(unset))


def read_backup(archive: Path) -> tuple[Index, dict[str, bytes]]:
    """The index of a backup and its files by their names, all of them as they were.

    Raises:
        ConfigError: It is damaged, none, or of another version.
        StorageError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if len(members) > MAX_FILES or any(member.file_size > MAX_FILE_BYTES for member in members):
                raise _damaged(archive, "it has more or larger files than a backup")
            contents = {member.filename: opened.read(member) for member in members}
    except OSError as error:
        raise StorageError(f"Backup '{archive}' cannot be read ({error.strerror or error}).") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(archive, str(error)) from error
    try:
        index = Index.model_validate(parse_json(contents.pop(INDEX).decode()))
    except (KeyError, UnicodeDecodeError, ValueError, ValidationError) as error:
        raise _damaged(archive, f"its {INDEX} is missing or wrong") from error
    if index.version != FORMAT_VERSION:
        raise ConfigError(
            f"Backup '{archive}' has version {index.version} of {FORMAT}; this moedge reads version {FORMAT_VERSION}. "
            f"Upgrade moedge.",
            key="backup.version_unsupported",
        )
    if {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} != index.files:
        raise _damaged(archive, f"its files are not those of its {INDEX}")
    if CONFIG not in contents and PUSHED_PREFIX + CONFIG not in contents:
        raise _damaged(archive, f"it has no {CONFIG}")
    return index, contents


def _damaged(archive: Path, why: str) -> ConfigError:
    return ConfigError(f"'{archive}' is no backup of moedge, or is damaged: {why}.", key="backup.damaged")


def _at_rest(path: Path) -> Path:
    """The file that counts here now. Refuses to go on while a daemon runs."""
    try:
        held, counts = is_held(path), in_force(path)
    except OSError as error:
        raise StorageError(
            f"'{error.filename or path.parent}' cannot be opened ({error.strerror}). Run this as root or "
            f"as the daemon's user.",
            key="backup.unreadable",
        ) from error
    if held:
        raise ConfigError(
            f"A daemon runs with a configuration in '{path.resolve().parent}'. Stop it first (systemctl stop "
            f"moedge), and start it when the backup is restored.",
            key="backup.running",
        )
    return counts


def _schemas(files: dict[str, bytes], directory: Path) -> dict[Path, str]:
    """Where which JSON Schema of the zip belongs. Refuses names that no backup has."""
    targets: dict[Path, str] = {}
    for name in files:
        relative = PurePosixPath(name.removeprefix(SCHEMA_PREFIX))
        if not name.startswith(SCHEMA_PREFIX):
            if name not in _NAMES:
                raise ConfigError(f"The backup has '{name}', which this moedge does not know.", key="backup.damaged")
        elif relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise ConfigError(f"The backup names '{name}', which is no file below a directory.", key="backup.damaged")
        else:
            targets[directory / relative] = name
    return targets


def _checked(content: bytes, path: Path, coming: dict[Path, bytes]) -> tuple[Config, list[str]]:
    """The configuration as this machine takes it, and the variables that have to be set for it."""
    try:
        return parse_without_environment(content.decode(), path, coming=coming)
    except (MoedgeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The backup's configuration is not right here. {error}", key="backup.config") from error


def _targets(files: dict[str, bytes], path: Path, config: Config) -> tuple[dict[Path, str], list[str]]:
    """Where which other file of the zip belongs, the configuration last; and what is left out."""
    targets: dict[Path, str] = {}
    left_out: list[str] = []
    state = state_directory(path)
    here = {
        SWITCHES: state / SWITCHES if state else None,
        HOT_SET: config.model.hot_set,
        DEVICE_FILE: path.resolve().with_name(DEVICE_FILE),
        CONFIG: path.resolve(),
        PUSHED_PREFIX + DEVICE_FILE: pushed_path(path).with_name(DEVICE_FILE),
        PUSHED_PREFIX + CONFIG: pushed_path(path),
    }
    for name, target in here.items():
        if name not in files:
            continue
        reason = _not_here(name, target, files[name], config)
        if reason is None and target is not None:
            targets[target] = name
        else:
            left_out.append(f"{name}: {reason}")
    return targets, left_out


def _not_here(name: str, target: Path | None, content: bytes, config: Config) -> str | None:
    """Why a file of the state cannot be used here; None if it can."""
    if target is None:
        return "this configuration names no such file" if name == HOT_SET else "there is no state directory here"
    if name != HOT_SET:
        return None
    from moedge_runtime.inference.expert_core.hot_set import parse_hot_set  # noqa: PLC0415

    try:
        parse_hot_set(content, Path(name), Bundle.open(config.model.bundle.resolve()).manifest.model.text)
    except MoedgeError as error:
        return f"it does not fit to a model here: {error}"
    return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"'{path}' cannot be read ({error.strerror}). Run this as root.") from error


def _write(files: dict[Path, bytes]) -> None:
    """Write all drafts, then let each take its file's place, with the owner and mode of that, or of its directory."""
    drafts = Drafts()
    try:
        for path, content in files.items():
            _make_directory(path.parent)
            there = path.exists()
            like = (path if there else path.parent).stat()
            mode = stat.S_IMODE(like.st_mode) if there else 0o640
            drafts.add(path, content, mode=mode, owner=(like.st_uid, like.st_gid))
        drafts.take_over()
    except OSError as error:
        drafts.discard()
        raise StorageError(
            f"'{error.filename or path}' cannot be written ({error.strerror}). Run this as root, or free space, and "
            f"restore again."
        ) from error


def _make_directory(path: Path) -> None:
    """With the owner of the one that it is in: the daemon's state is the daemon's."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(mode=0o750)
    like = path.parent.stat()
    with suppress(OSError):  # only root gives files away
        os.chown(path, like.st_uid, like.st_gid)
