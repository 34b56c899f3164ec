"""The last configurations that the daemon has run with, in `config_history` in its state directory.

One file each, NUMBER-DIGEST.json, with the permissions of the configuration's file in a directory of the daemon's own,
written when the daemon begins to run with another configuration than before. NUMBER grows; DIGEST is the beginning of
the SHA-256 of the file's content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import stat
from pathlib import Path
from typing import Any, Literal

from moedge_runtime.config import Config
from moedge_runtime.config.yaml_lines import read_yaml
from moedge_runtime.daemon.answers import question_id
from moedge_runtime.daemon.clock import clock_synced, utc_now
from moedge_runtime.daemon.preflight import question_of
from moedge_runtime.durable import Drafts, sync_path
from moedge_runtime.errors import ConfigError, MoedgeError, StorageError
from moedge_runtime.mqtt.payloads import ConfigChanges, ConfigHistoryResult, KeptConfig

FOLDER = "config_history"
KEPT = 10

_NAME = re.compile(r"(\d{8})-([0-9a-f]{12})\.json")
_DEPTH = 3
"""Keys that name a change: `watches.level.json_schema`."""

log = logging.getLogger(__name__)


class Record(KeptConfig):
    """A file."""

    version: Literal[1] = 1
    config: str
    """As it was written, in YAML."""


class ConfigHistory:
    """Belongs to one thread.

    Args:
        directory: The daemon's state directory; None for none, so that nothing is kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self._folder = directory / FOLDER if directory else None
        self._running: str | None = None

    def keep(self, config: Config) -> None:
        """Note that the daemon runs with `config`. What the disk does not take is logged, and harms nothing else."""
        if self._folder is None or config.text is None or config.source is None:
            return
        watches = {watch.name: question_id(question_of(watch)) for watch in config.watches}
        self._running = f"sha256-{_digest(json.dumps([config.text, watches]).encode())}"
        try:
            records, problems = self.read()
            for problem in problems:
                log.warning("%s", problem)
            last = next(iter(records.values()), None)
            if last is not None and last.id == self._running:
                return
            record = Record(
                id=self._running,
                at=utc_now(),
                clock_synced=clock_synced(),
                changes=ConfigChanges() if last is None else changes(last.config, config.text),
                watches=watches,
                config=config.text,
            )
            self._write(
                self._folder, record, config.source, [path for path in records if records[path].id == record.id]
            )
        except (OSError, MoedgeError) as error:
            log.error(
                "This configuration is not kept for a roll-back: '%s' cannot be written (%s). Free space, or let the "
                "daemon's user write there.",
                self._folder,
                error,
            )

    def read(self) -> tuple[dict[Path, Record], list[str]]:
        """What is kept, the last one first, and a sentence about each file that is damaged.

        Raises:
            StorageError: The directory cannot be read.
        """
        records: dict[Path, Record] = {}
        problems: list[str] = []
        for path in _files(self._folder) if self._folder else []:
            try:
                content = path.read_bytes()
                if _digest(content) not in path.name:
                    raise ValueError
                records[path] = Record.model_validate_json(content)
            except OSError as error:
                problems.append(f"The kept configuration '{path}' cannot be read ({error.strerror}).")
            except ValueError:
                problems.append(f"The kept configuration '{path}' is damaged, or of another version of moedge.")
        return records, problems

    def find(self, identifier: str) -> Record:
        """The configuration with this `id`.

        Raises:
            ConfigError: It is not kept.
            StorageError: The directory cannot be read.
        """
        known = {record.id: record for record in self.read()[0].values()}
        if identifier not in known:
            raise ConfigError(
                f"No configuration '{identifier[:64]}' is kept; known are: {', '.join(known) or 'none'}.",
                key="config.not_kept",
            )
        return known[identifier]

    def told(self) -> dict[str, Any] | MoedgeError:
        """What a request for the history is answered with."""
        try:
            records, problems = self.read()
        except StorageError as error:
            return error
        if self._folder is None:
            problems.append("Nothing is kept: the daemon has no state directory (STATE_DIRECTORY).")
        kept = [KeptConfig(**record.model_dump(exclude={"version", "config"})) for record in records.values()]
        return ConfigHistoryResult(running=self._running, configurations=kept, problems=problems).model_dump(
            mode="json"
        )

    def _write(self, folder: Path, record: Record, source: Path, same: list[Path]) -> None:
        """Write the newest file, and remove those that it takes the place of."""
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            sync_path(folder.parent)
        for draft in folder.glob(".*.new"):  # of a run that was cut short
            draft.unlink()
        files, content, like = _files(folder), record.encode(), source.stat()
        number = int(files[0].name[:8]) + 1 if files else 1
        drafts = Drafts()
        path = folder / f"{number:08}-{_digest(content)}.json"
        drafts.add(path, content, mode=stat.S_IMODE(like.st_mode), owner=(like.st_uid, like.st_gid))
        drafts.take_over()
        stay = [file for file in files if file not in same][: KEPT - 1]
        for file in set(files) - set(stay):
            file.unlink(missing_ok=True)


def changes(before: str, after: str) -> ConfigChanges:
    """The keys in which two configurations differ as they are written, watches by their names."""
    found = ConfigChanges()
    _compare(_values(before), _values(after), (), found)
    return found


def _compare(before: dict[Any, Any], after: dict[Any, Any], at: tuple[str, ...], found: ConfigChanges) -> None:
    for key in {**before, **after}:
        path = (*at, str(key))
        if key not in before:
            found.added.append(".".join(path))
        elif key not in after:
            found.removed.append(".".join(path))
        elif before[key] != after[key]:
            if len(path) < _DEPTH and isinstance(before[key], dict) and isinstance(after[key], dict):
                _compare(before[key], after[key], path, found)
            else:
                found.changed.append(".".join(path))


def _values(text: str) -> dict[Any, Any]:
    """Of a configuration that was valid once."""
    values: dict[Any, Any] = read_yaml(text)[0]
    return {**values, "watches": {watch["name"]: watch for watch in values.get("watches") or []}}


def _files(folder: Path) -> list[Path]:
    """The newest first."""
    try:
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"'{folder}' cannot be read ({error.strerror}). Run this as root or as the daemon's user.",
            key="config.history_unreadable",
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
