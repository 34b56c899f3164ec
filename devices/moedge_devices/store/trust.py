"""What a board believes of a source: which keys, how old an index may be, and what it has seen before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from moedge_runtime.daemon.clock import clock_synced
from moedge_runtime.durable import write_durably
from moedge_runtime.errors import ConfigError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from moedge_devices.store.documents import INDEX_TYPE, KEYS_TYPE, Index, Keys, moment_text, parse
from moedge_devices.store.envelope import unseal
from moedge_devices.store.errors import TrustError
from moedge_devices.store.source import MAX_DOCUMENT_BYTES, NotThereError, Source

INDEX_NAME = "index.json"
MAX_KEYS_STEPS = 64
"""Versions of keys that one look at a source goes forward."""


@dataclass(frozen=True)
class Clock:
    """The wall clock, and whether a time server keeps it.

    Attributes:
        now: In UTC.
        synced: None where the system does not say.
    """

    now: datetime
    synced: bool | None

    @classmethod
    def of_machine(cls) -> Clock:
        """Of this machine."""
        return cls(datetime.fromtimestamp(time.time(), timezone.utc), clock_synced())


class Seen(BaseModel):
    """What survives a restart, so that nothing older is believed later."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    keys: Keys | None = None
    """The newest version of the keys."""
    serial: int = 0
    """Of the newest index."""
    created: AwareDatetime | None = None
    """Of that index: the time is not before."""
    failed: dict[str, str] = Field(default={})
    """Releases, as NAME@VERSION, that did not answer, with why. They are not tried again by themselves."""


class Memory:
    """`Seen` in a file; written whole.

    A damaged one is set aside and trust begins anew with the keys that the board was given: a board that nobody visits
    goes on getting updates, and may once be given an old index that it has seen a newer one of.

    Args:
        path: trust.json.
        warn: Told of a damaged one.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        try:
            self.seen = Seen.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self.seen = Seen()
        except ValidationError:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            self.seen = Seen()
            warn(f"What this board had seen of its source is damaged; it is in '{aside}', and trust begins anew.")

    def note(self, **changes: object) -> None:
        """Change some values; they are on the disk when this returns."""
        self.seen = self.seen.model_copy(update=changes)
        write_durably(self._path, self.seen.model_dump_json().encode())


def read_anchor(path: Path) -> Keys:
    """The keys that the board was given, in a file that is believed as it is.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The keys '{path}' cannot be read ({error.strerror}). Give that of your key ceremony, docs/updates.md.",
            key="config.keys",
        ) from error
    try:
        return parse(Keys, content, f"The keys file '{path}'")
    except TrustError as error:
        raise ConfigError(str(error), key="config.keys") from error


def current_keys(source: Source, anchor: Keys, memory: Memory) -> Keys:
    """The newest keys that the source has and that follow from those we have, version by version.

    Raises:
        TrustError: A newer version is not signed as it must be. The known ones stay in force.
        SourceError: The source cannot be reached.
    """
    seen = memory.seen.keys
    keys = seen if seen is not None and seen.version >= anchor.version else anchor
    for _ in range(MAX_KEYS_STEPS):
        name = f"keys/{keys.version + 1}.json"
        try:
            content = source.read(name, MAX_DOCUMENT_BYTES)
        except NotThereError:
            break
        keys = next_keys(keys, content, f"'{name}' of {source}")
        memory.note(keys=keys)
    return keys


def next_keys(keys: Keys, content: bytes, what: str) -> Keys:
    """The version after `keys`, from its envelope: signed by a root of `keys` and by a root of its own.

    Raises:
        TrustError: It is not so.
    """
    payload, _ = unseal(content, KEYS_TYPE, keys.root_keys(), what)
    newer = parse(Keys, payload, what)
    unseal(content, KEYS_TYPE, newer.root_keys(), what)
    if newer.version != keys.version + 1:
        raise TrustError(
            f"{what} is version {newer.version}; it must be {keys.version + 1}.", key="update.keys_version"
        )
    return newer


def read_index(source: Source, anchor: Keys, memory: Memory, clock: Clock, warn: Callable[[str], None]) -> Index:
    """The index of a source, if it is to be believed.

    A clock that no time server keeps cannot say that an index has expired: then only the newest index that was seen
    counts as time, and `warn` is told. A board whose clock is in 1970 goes on getting updates.

    Raises:
        TrustError: It is unsigned, changed, expired, or older than one that was seen.
        SourceError: The source cannot be reached.
    """
    keys = current_keys(source, anchor, memory)
    what = f"The index of {source}"
    try:
        content = source.read(INDEX_NAME, MAX_DOCUMENT_BYTES)
    except NotThereError as error:
        raise TrustError(
            f"{source} has no {INDEX_NAME}. Give the directory that `moedge bundle publish` made.",
            key="update.no_index",
        ) from error
    payload, _ = unseal(content, INDEX_TYPE, keys.signer_keys(), what)
    index = parse(Index, payload, what)
    check_fresh(index, memory.seen, clock, what, warn)
    if index.serial > memory.seen.serial:
        memory.note(serial=index.serial, created=index.created)
    return index


def check_fresh(index: Index, seen: Seen, clock: Clock, what: str, warn: Callable[[str], None]) -> None:
    """Refuse an index that is older than one that was seen, or that has expired; see `read_index`.

    Raises:
        TrustError: It is.
    """
    if index.serial < seen.serial:
        raise TrustError(
            f"{what} has serial {index.serial}; this board has seen {seen.serial}. An old index was put back: look who "
            f"can write to the source, or publish again.",
            key="update.old_index",
        )
    known = max(seen.created or index.created, index.created)
    now = max(clock.now, known) if clock.synced else known
    if not clock.synced and (clock.now > index.expires or clock.now < known):
        warn(
            f"The clock says {moment_text(clock.now)} and no time server keeps it, so whether the index has expired "
            f"({moment_text(index.expires)}) is not known."
        )
    if now > index.expires:
        raise TrustError(
            f"{what} has expired at {moment_text(index.expires)}; it is {moment_text(now)}. Publish again: "
            f"`moedge bundle publish` without a bundle renews it.",
            key="update.expired",
        )


def expiry(created: datetime, days: float) -> datetime:
    """When an index of `created` expires."""
    return created + timedelta(days=days)
