"""What makes a device what it is, in one zip: its configuration as it is written, and what it has learnt.

Passwords, tokens, keys and certificates are never in it: a configuration that holds a secret itself is refused.
docs/install.md says what is in it, `daemon/restore.py` brings it back.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moedge_runtime import __version__
from moedge_runtime.bundle import Bundle
from moedge_runtime.config import Config
from moedge_runtime.config.load import STAND_IN, parse_without_environment
from moedge_runtime.config.problems import path_text
from moedge_runtime.config.pushed import ETC, PUSHED, in_force, is_pushed
from moedge_runtime.config.secrets import secrets
from moedge_runtime.config.yaml_lines import line_of, read_yaml
from moedge_runtime.daemon import system
from moedge_runtime.daemon.bundle_check import bundle_names, manifest_sha256
from moedge_runtime.daemon.clock import clock_synced, utc_now
from moedge_runtime.daemon.config_file import DEVICE_FILE
from moedge_runtime.daemon.switches import FILE_NAME as SWITCHES
from moedge_runtime.errors import BundleError, ConfigError, RequestError, StorageError
from moedge_runtime.mqtt.payloads import BackupResult, rfc3339

FORMAT = "moedge-backup"
FORMAT_VERSION = 1

INDEX = "backup.json"
CONFIG = "moedge.yaml"
PUSHED_PREFIX = "pushed/"
SCHEMA_PREFIX = "schemas/"
HOT_SET = "hot_set.json"

MAX_FILE_BYTES = 16 << 20
"""Of one file. A hot set has 2.6 MB with the most cameras that it keeps."""

MAX_FILES = 1000

ENVELOPE_BYTES = 4096
"""Of a message around a backup, generously: topic, packet, response, transaction."""


@dataclass(frozen=True)
class Backup:
    """A backup.

    Attributes:
        device: Of which device it is.
        made_at: RFC 3339, UTC.
        content: The zip.
        left_out: What the configuration names and is not in it.
    """

    device: str
    made_at: str
    content: bytes
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """For a file, e.g. moedge-gate-01-20261127T081530Z.zip."""
        moment = self.made_at[:19].replace("-", "").replace(":", "")
        return f"moedge-{self.device}-{moment}Z.zip"

    @property
    def sha256(self) -> str:
        """Of the zip."""
        return hashlib.sha256(self.content).hexdigest()


def make_backup(path: Path, *, hot_set: bool = True) -> Backup:
    """Back up a device from its files.

    Args:
        path: Where its configuration is asked for, as for `moedge run --config`. Variables need not be set.
        hot_set: Whether what was learnt about experts goes along, as it was last written.

    Raises:
        ConfigError: The configuration is wrong, or holds a secret itself.
        StorageError: A file cannot be read, or is too large.
    """
    places = _configuration(path)
    files = {name: _read(place) for name, place in places.items()}
    counts = PUSHED_PREFIX + CONFIG if PUSHED_PREFIX + CONFIG in files else CONFIG
    config, _ = parse_without_environment(_text(files[counts], places[counts]), path, source=places[counts])
    for name in (CONFIG, PUSHED_PREFIX + CONFIG):
        if name in files:
            _refuse_secrets(files[name], places[name])
    left_out: list[str] = []
    if hot_set and STAND_IN in str(config.model.hot_set):
        left_out.append("the hot set, whose path names a variable of the environment that is not set here")
    files |= _schemas(files[counts], path.absolute().parent, left_out)
    state = state_directory(path)
    for name, place in ((HOT_SET, config.model.hot_set if hot_set else None), (SWITCHES, state and state / SWITCHES)):
        if place is not None and place.exists():
            files[name] = _read(place)
    made_at = rfc3339(utc_now())
    index = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "made_at": made_at,
        "clock_synced": clock_synced(),
        "device": config.device,
        "moedge_version": __version__,
        "config_file": str(path.absolute()),
        "model": _model(config),
        "left_out": left_out,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    text = json.dumps(index, ensure_ascii=False, indent=2) + "\n"
    return Backup(config.device, made_at, _zipped({INDEX: text.encode(), **files}), tuple(left_out))


def backup_response(path: Path, *, hot_set: bool, largest_bytes: int) -> dict[str, Any]:
    """`data` of the response to the request `backup`.

    Args:
        path: As for `make_backup`.
        hot_set: Likewise.
        largest_bytes: Of the message.

    Raises:
        RequestError: It would be larger.
        MoedgeError: As `make_backup`.
    """
    backup = make_backup(path, hot_set=hot_set)
    data = BackupResult(
        name=backup.name,
        bytes=len(backup.content),
        sha256=backup.sha256,
        left_out=list(backup.left_out),
        zip=base64.b64encode(backup.content).decode(),
    )
    size = len(data.encode()) + ENVELOPE_BYTES
    if size > largest_bytes:
        advice = "Leave out the hot set with hot_set: false, or run" if hot_set else "Run"
        raise RequestError(
            f"The backup has {size:,} bytes as a message; {largest_bytes:,} are possible over this broker. "
            f"{advice} `moedge backup` on the board.",
            key="backup.too_large",
        )
    return data.model_dump(mode="json")


def state_directory(path: Path) -> Path | None:
    """Where a daemon with the configuration at `path` keeps its state: what systemd says, or what the package's has."""
    return system.state_directory() or (PUSHED.parent if path.resolve().parent == ETC else None)


def _configuration(path: Path) -> dict[str, Path]:
    """Where the configuration and device.json are: those that count, and those that they stand in the place of."""
    try:
        return _found(path, in_force(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _found(path: Path, source: Path) -> dict[str, Path]:
    places = {CONFIG: path, DEVICE_FILE: path.resolve().with_name(DEVICE_FILE)}
    if is_pushed(source):
        places |= {PUSHED_PREFIX + CONFIG: source, PUSHED_PREFIX + DEVICE_FILE: source.with_name(DEVICE_FILE)}
    found = {name: place for name, place in places.items() if place.exists()}
    return found if found.keys() & {CONFIG, PUSHED_PREFIX + CONFIG} else {CONFIG: path, **found}


def _text(content: bytes, place: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"Configuration '{place}' is not UTF-8 text ({error}).", key="config.unreadable") from error


def _refuse_secrets(content: bytes, place: Path) -> None:
    try:
        values, lines, _ = read_yaml(_text(content, place))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # one that does not count need not be right
        raise ConfigError(
            f"Configuration '{place}' is not valid YAML ({error}), so that nobody can say whether it holds secrets.",
            key="config.invalid_yaml",
        ) from error
    found = [f"line {line_of(at, lines)}: {path_text(at)}" for at in secrets(values, ())]
    if found:
        raise ConfigError(
            f"Configuration '{place}' holds secrets itself, which would be in the backup: {', '.join(found)}. Write "
            f"${{NAME}} there, and set the environment variable NAME (docs/install.md).",
            key="backup.secret",
        )


def _schemas(configuration: bytes, directory: Path, left_out: list[str]) -> dict[str, bytes]:
    """The JSON Schemas that stand in files below the configuration's directory."""
    files: dict[str, bytes] = {}
    for watch in read_yaml(configuration.decode())[0].get("watches") or []:
        named = watch.get("json_schema")
        if not isinstance(named, str):
            continue
        relative = Path(named)
        if relative.is_absolute() or ".." in relative.parts or "$" in named:
            left_out.append(f"the JSON Schema '{named}', which is not below the configuration's directory")
        else:
            files[SCHEMA_PREFIX + relative.as_posix()] = _read(directory / relative)
    return files


def _model(config: Config) -> dict[str, Any] | None:
    """Which bundle the device has; None if there is none now."""
    try:
        bundle = Bundle.open(config.model.bundle.resolve())
    except BundleError:
        return None
    name, version = bundle_names(config.model.bundle, bundle)
    return {
        "name": bundle.manifest.model.source.name,
        "bundle": name,
        "version": version,
        "manifest_sha256": manifest_sha256(bundle),
    }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_FILE_BYTES:
        raise StorageError(
            f"'{path}' has more than {MAX_FILE_BYTES:,} bytes, the most that a backup takes of one file.",
            key="backup.too_large",
        )
    return content


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"'{error.filename or path}' cannot be read for a backup ({error.strerror}). Run this as root or as the "
        f"daemon's user.",
        key="backup.unreadable",
    )


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
