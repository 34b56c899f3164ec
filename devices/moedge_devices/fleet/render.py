"""Per-device files of a fleet: `DEVICE/moedge.yaml` and `DEVICE/device.json` below one directory.

The same fleet gives the same bytes. Everything is written and on the disk before the first file takes its name, so that
a full disk leaves the old files as they were; each file is replaced whole. A list of what was written, with digests,
tells files of ours from other people's.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moedge_runtime.errors import ConfigError, StorageError

from moedge_devices.fleet.load import Device, Fleet
from moedge_devices.fleet.shape import NamedList, Section, Shape, config_shape
from moedge_devices.fleet.yaml_text import block

LIST = ".moedge-render.json"
"""In the directory: the files that render made, with their SHA-256."""

_SHOWN = 10


@dataclass(frozen=True)
class Rendered:
    """What a run has done: numbers of files."""

    written: int
    unchanged: int
    removed: int


class ConfigTexts:
    """Texts of moedge.yaml. A section that devices share is written once, and taken over for all of them."""

    def __init__(self) -> None:
        self._sections: dict[tuple[str, int], tuple[Any, str]] = {}

    def of(self, device: Device) -> str:
        """The device's moedge.yaml. Keys stand in the order of their types, whatever the order of the layers."""
        return "".join(
            [
                "# Made by `moedge fleet render`. Change the fleet file instead.\n",
                *(
                    self._section(key, shape, device.values[key])
                    for key, shape in config_shape().fields.items()
                    if key in device.values
                ),
            ]
        )

    def _section(self, key: str, shape: Shape, value: Any) -> str:
        # The value is kept with its text, so that no other object can get its identity.
        known = self._sections.get((key, id(value)))
        if known is None:
            known = self._sections[key, id(value)] = (value, block({key: ordered(shape, value)}))
        return known[1]


def device_text(device: Device) -> str:
    """What is not in moedge.yaml: where the device belongs, and how it is updated."""
    value = {
        "device": device.name,
        "site": device.site,
        "group": device.group,
        "profile": device.profile,
        "bundle": device.bundle.model_dump() if device.bundle else None,
        "system": device.system,
        "update": device.update.model_dump(),
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def render(fleet: Fleet, out: Path, *, force: bool = False) -> Rendered:
    """Make the files below `out` those of `fleet`.

    Args:
        fleet: What to write.
        out: The directory; made if it is not there.
        force: Overwrite and remove files of ours that somebody has changed since.

    Raises:
        ConfigError: A file that is not ours, or was changed since, is in the way; nothing was written.
        StorageError: The disk is full, read-only or failing.
    """
    config_texts = ConfigTexts()
    texts = {
        f"{device.name}/{name}": text(device).encode()
        for device in fleet.devices.values()
        for name, text in (("moedge.yaml", config_texts.of), ("device.json", device_text))
    }
    with _failures_as_storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            return _replace(out, texts, force)


def ordered(shape: Shape, value: Any) -> Any:
    """`value` with the keys of every section in the order of its type."""
    if isinstance(shape, NamedList) and isinstance(value, list):
        return [ordered(shape.item, item) for item in value]
    if isinstance(value, dict) and isinstance(shape, Section):
        return {key: ordered(inner, value[key]) for key, inner in shape.fields.items() if key in value}
    if isinstance(value, dict) and hasattr(shape, "item"):
        return {key: ordered(shape.item, item) for key, item in value.items()}
    return value


def _replace(out: Path, texts: dict[str, bytes], force: bool) -> Rendered:
    listed = _listed(out)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
    there = {name: _digest(out / name) for name in {*texts, *listed}}
    _check_ours(out, listed, there, digests, force)
    changed = [name for name in texts if there[name] != digests[name]]
    stale = sorted(name for name in listed if name not in texts)
    whole = {name: [digest] for name, digest in digests.items()}
    if not changed and listed == whole:
        return Rendered(0, len(texts), 0)
    with tempfile.TemporaryDirectory(prefix=".moedge-render-", dir=out) as staging:
        for number, name in enumerate(changed):
            (Path(staging) / str(number)).write_bytes(texts[name])
        # Names of files that are about to appear: whoever is interrupted knows them for his own the next time.
        _write_list(out, Path(staging), {name: _either(listed, digests, name) for name in {*listed, *digests}})
        _flush(out)  # one for all: a flush for every one of 10,000 files would take minutes on flash
        for number, name in enumerate(changed):
            (out / name).parent.mkdir(exist_ok=True)
            (Path(staging) / str(number)).replace(out / name)
        for name in stale:
            (out / name).unlink(missing_ok=True)
            if (out / name).parent.is_dir() and not any((out / name).parent.iterdir()):
                (out / name).parent.rmdir()
        _write_list(out, Path(staging), whole)
        _flush(out)
    return Rendered(len(changed), len(texts) - len(changed), len(stale))


def _flush(out: Path) -> None:
    """Wait until all of the file system of `out` is on its disk; not, as os.sync does, for every other disk too.

    Source: syncfs(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    directory = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(directory):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(directory)


def _either(listed: dict[str, list[str]], digests: dict[str, str], name: str) -> list[str]:
    """Digests that a file may have before and after a run."""
    return sorted({*listed.get(name, []), *([digests[name]] if name in digests else [])})


def _check_ours(
    out: Path, listed: dict[str, list[str]], there: dict[str, str | None], digests: dict[str, str], force: bool
) -> None:
    """Refuse to overwrite or remove what render has not made.

    Raises:
        ConfigError: There is such a file.
    """
    foreign, changed = [], []
    for name, digest in sorted(there.items()):
        if digest is None or digest == digests.get(name):
            continue
        if name not in listed:
            foreign.append(name)
        elif digest not in listed[name] and not force:
            changed.append(name)
    for names, what, how in (
        (foreign, "were not made by `moedge fleet render`", "Move them away, or render into another directory."),
        (changed, "were changed since they were made", "Take the changes into the fleet file, or use --force."),
    ):
        if names:
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            raise ConfigError(
                f"Files in '{out}' {what}: {', '.join(names[:_SHOWN])}{more}. {how} Nothing was written.",
                key="fleet.render_refused",
            )


def _listed(out: Path) -> dict[str, list[str]]:
    """Files that earlier runs have made, with the digests that they may have."""
    try:
        value = json.loads((out / LIST).read_text(encoding="utf-8"))
        files = {str(name): [str(digest) for digest in digests] for name, digests in value["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"'{out / LIST}' is damaged, so that files of ours cannot be told from others. Remove the directory, or "
            f"render into another one.",
            key="fleet.render_refused",
        ) from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise ConfigError(f"'{out / LIST}' names files outside its directory. Remove it.", key="fleet.render_refused")
    return files


def _write_list(out: Path, staging: Path, files: dict[str, list[str]]) -> None:
    text = json.dumps({"version": 1, "files": dict(sorted(files.items()))}, indent=0) + "\n"
    (staging / "list").write_text(text, encoding="utf-8")
    (staging / "list").replace(out / LIST)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Two runs into one directory never meet.

    Raises:
        StorageError: Another run is at work there.
    """
    directory = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in out.glob(".moedge-render-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        yield
    except BlockingIOError as error:
        raise StorageError(
            f"Another `moedge fleet render` writes to '{out}'. Wait for it.", key="storage.locked"
        ) from error
    finally:
        os.close(directory)


@contextmanager
def _failures_as_storage_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        key = {errno.ENOSPC: "storage.full", errno.EDQUOT: "storage.full", errno.EROFS: "storage.read_only"}
        raise StorageError(
            f"Files of the fleet cannot be written to '{out}': {error.strerror}. Files that are there are whole; free "
            f"space or choose another place, and render again.",
            key=key.get(error.errno or 0, "storage"),
        ) from error
