"""Answers on the disk while the broker is away: a log in segments, bounded in bytes and age, in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moedge_runtime.counted import counted
from moedge_runtime.errors import StorageError
from moedge_runtime.mqtt.spool_clock import Moment, age_s, moment_now
from moedge_runtime.mqtt.spool_files import SpoolFiles
from moedge_runtime.mqtt.spool_record import (
    HEAD_BYTES,
    Damage,
    Record,
    decode_head,
    decode_records,
    encode_head,
    encode_record,
)

MAX_SEGMENT_BYTES = 1 << 20
"""Read into memory as a whole, and dropped as a whole when the bound is reached."""

SEGMENTS = 16
"""A bound holds so many segments at least, so that dropping one loses a sixteenth at most."""

log = logging.getLogger(__name__)


@dataclass
class SpoolCounters:
    """Messages since start. Read from any thread."""

    dropped: int = 0
    """The oldest, because the bound in bytes was reached."""
    expired: int = 0
    """Older than the bound in age."""
    damaged: int = 0
    """Not readable any more, or unfinished when the power failed."""


@dataclass
class _Segment:
    first: int
    end: int
    """Sequence number behind its last record."""
    size: int
    """Bytes that are known to be on the disk."""
    newest: Moment | None = None


class Spool:
    """Messages on the disk, oldest first.

    `append` and `expire` belong to one thread; `read`, `taken`, `delivered` and `rewind` to one at a time; the rest may
    be called from any. What `append` has returned survives a kill and a power cut at any instant, until it is delivered
    or a bound is reached.

    Args:
        directory: Made when it is first needed. One process uses it.
        max_bytes: Of all files together; beyond it the oldest segment goes.
        max_age_s: Older messages are not delivered any more.
        now: This moment; `moment_now` with whether the clock is synchronised.
        files: The disk.

    Attributes:
        counters: See SpoolCounters.
        directory: As given.
        segment_bytes: What is written at once should not be more.

    Raises:
        StorageError: Another process uses the directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        max_age_s: float,
        now: Callable[[], Moment] = lambda: moment_now(None),
        files: SpoolFiles | None = None,
    ) -> None:
        self.directory, self._max_bytes, self._max_age_s, self._now = directory, max_bytes, max_age_s, now
        self.segment_bytes = max(1, min(MAX_SEGMENT_BYTES, max_bytes // SEGMENTS))
        self._files = files or SpoolFiles(directory)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._active: int | None = None
        self._next = self._read = self._cursor = self._saved = 0
        self._unacknowledged: deque[int] = deque()
        self._acknowledged: set[int] = set()
        self._items: Iterator[tuple[Record | Damage, int]] = iter(())
        self._loaded: tuple[int, int] | None = None
        self.counters = SpoolCounters()
        self._find()

    @property
    def messages(self) -> int:
        """Messages that are not delivered."""
        with self._lock:
            return self._next - self._cursor

    @property
    def unread(self) -> bool:
        """Whether `read` may give something."""
        with self._lock:
            return self._read < self._next

    @property
    def size_bytes(self) -> int:
        """Size of all segments."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    @property
    def full(self) -> bool:
        """Whether half of the bound in bytes is used."""
        return self.size_bytes > self._max_bytes // 2

    @property
    def written_bytes(self) -> int:
        """Bytes written since start."""
        return self._files.written_bytes

    @property
    def syncs(self) -> int:
        """Times since start that the disk was told to make them last."""
        return self._files.syncs

    def append(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Keep messages as (topic, payload); with one write, and on the disk when this returns.

        Returns:
            Their sequence numbers.

        Raises:
            StorageError: The disk is full, read-only or failing; none of them is kept.
        """
        with self._writing:
            at = self._now()
            first = self._next
            content = b"".join(encode_record(first + index, *message, at) for index, message in enumerate(messages))
            self._make_room(HEAD_BYTES + len(content))
            try:
                segment = self._write(first, content, at)
            except OSError as error:
                self._abandon()
                raise StorageError(
                    f"Nothing can be written to the spool '{self.directory}': {error.strerror or error}. "
                    f"Make room, or set mqtt.spool.directory to a place that can be written.",
                    key="spool.not_writable",
                ) from error
            with self._lock:
                segment.size += len(content)
                segment.end = self._next = first + len(messages)
                segment.newest = at
            return list(range(first, self._next))

    def read(self) -> Record | None:
        """The next message to deliver, to be followed by `delivered`; None if there is none."""
        while (item := self._next_item()) is not None:
            if isinstance(item, Damage):
                continue
            with self._lock:
                if item.sequence < self._read:
                    continue
                self.counters.damaged += item.sequence - self._read
                self._read = item.sequence + 1
                age = age_s(item.at, self._now())
                if age is None or age <= self._max_age_s:
                    self._unacknowledged.append(item.sequence)
                    return item
                self.counters.expired += 1
            self._advance()
        return None

    def taken(self, sequence: int) -> None:
        """Count the next message as given by `read`: it is under way already."""
        with self._lock:
            if sequence == self._read:
                self._read += 1
                self._unacknowledged.append(sequence)

    def delivered(self, sequence: int) -> None:
        """The broker has acknowledged a message."""
        with self._lock:
            if sequence in self._unacknowledged:
                self._acknowledged.add(sequence)
            while self._unacknowledged and self._unacknowledged[0] in self._acknowledged:
                self._acknowledged.discard(self._unacknowledged.popleft())
        self._advance()

    def rewind(self) -> None:
        """Give everything that is not delivered once more."""
        with self._lock:
            self._read = self._cursor
            self._unacknowledged.clear()
            self._acknowledged.clear()
            self._items, self._loaded = iter(()), None

    def expire(self) -> None:
        """Remove segments in which everything is too old."""
        with self._writing:
            while True:
                with self._lock:
                    oldest = self._segments[0] if self._segments else None
                if oldest is None:
                    return
                if oldest.newest is None:
                    oldest.newest = self._newest(oldest)
                age = age_s(oldest.newest, self._now()) if oldest.newest else None
                if age is None or age <= self._max_age_s:
                    return
                self.counters.expired += self._drop_oldest()

    def close(self) -> None:
        """Let another process use the directory. What is there stays there."""
        with self._writing:
            self._close_active()
            self._files.close()

    def _find(self) -> None:
        """Take over what an earlier process left."""
        try:
            if not self._files.lock():
                raise StorageError(
                    f"The spool '{self.directory}' is used by another process. Give every device a directory of its "
                    f"own with mqtt.spool.directory.",
                    key="spool.locked",
                )
            found = self._files.segments()
            cursor = self._saved = self._files.load_cursor()
        except OSError as error:
            log.error("The spool '%s' cannot be read: %s.", self.directory, error.strerror or error)
            return
        for index, (first, size) in enumerate(found):
            end = found[index + 1][0] if index + 1 < len(found) else first
            self._segments.append(_Segment(first, end, size))
        if self._segments:
            last = self._segments[-1]
            self._scan(last)
            self._next = last.end
        self._next = max(self._next, cursor)
        oldest = self._segments[0].first if self._segments else self._next
        self._cursor = self._read = min(max(cursor, oldest), self._next)
        self._advance()
        if self.messages:
            log.info("The spool '%s' holds %s from before.", self.directory, counted(self.messages, "message"))

    def _scan(self, last: _Segment) -> None:
        """Find the end of the newest segment, which the power may have cut off."""
        end = last.first
        for item, behind in self._decoded(last, 0, last.size):
            if isinstance(item, Record):
                end, last.newest = item.sequence + 1, item.at
            elif item.at_end:
                self.counters.damaged += 1
                last.size = behind - item.size
                log.warning(
                    "The last %d bytes of the spool '%s' were being written when the power failed, or are damaged. "
                    "The rest is delivered.",
                    item.size,
                    self.directory,
                )
        last.end = end

    def _write(self, first: int, content: bytes, at: Moment) -> _Segment:
        """Append to the newest segment, or to a new one if that is full or another process wrote it.

        Raises:
            OSError: The disk does not take it.
        """
        if self._active is not None and self._segments[-1].size + len(content) > self.segment_bytes:
            self._close_active()
        if self._active is not None:
            self._files.append(self._active, content)
            self._files.sync(self._active)
            return self._segments[-1]
        self._active = self._files.create(first)
        segment = _Segment(first, first, HEAD_BYTES)
        with self._lock:
            self._segments.append(segment)
        self._files.append(self._active, encode_head(at.boot_id) + content)
        self._files.sync(self._active)
        self._files.sync_directory()
        return segment

    def _abandon(self) -> None:
        """Take back what was half written; the next message begins a new segment."""
        if self._active is None:
            return
        segment = self._segments[-1]
        empty = segment.end == segment.first
        try:
            self._files.truncate(self._active, segment.size)
            if empty:
                self._files.delete(segment.first)
        except OSError:
            log.debug("What was half written stays behind the end of a segment.")
        if empty:
            with self._lock:
                self._segments.remove(segment)
        self._close_active()

    def _make_room(self, size: int) -> None:
        while self._segments and self.size_bytes + size > self._max_bytes:
            dropped = self._drop_oldest()
            if dropped and not self.counters.dropped:
                log.warning("The spool '%s' has reached its size: the oldest messages are dropped.", self.directory)
            self.counters.dropped += dropped

    def _drop_oldest(self) -> int:
        """Remove the oldest segment; the number of messages in it that were not delivered."""
        with self._lock:
            segment = self._segments.popleft()
            lost = max(0, segment.end - max(segment.first, self._cursor))
            self._cursor = max(self._cursor, segment.end)
            self._read = max(self._read, segment.end)
            while self._unacknowledged and self._unacknowledged[0] < segment.end:
                self._acknowledged.discard(self._unacknowledged.popleft())
            last = not self._segments
        if last:
            self._close_active()
        self._delete([segment])
        return lost

    def _advance(self) -> None:
        """Move the cursor to the first message that is not delivered, and remove the segments before it."""
        with self._lock:
            self._cursor = self._unacknowledged[0] if self._unacknowledged else self._read
            cursor = self._cursor
            done = []
            while len(self._segments) > 1 and self._segments[0].end <= cursor:
                done.append(self._segments.popleft())
            all_done = bool(self._segments) and cursor == self._next
        if all_done and self._writing.acquire(blocking=False):
            try:
                with self._lock:
                    if self._cursor == self._next:
                        done += self._segments
                        self._segments.clear()
                self._close_active()
            finally:
                self._writing.release()
        try:
            if cursor != self._saved:
                self._files.save_cursor(cursor)
                self._saved = cursor
        except OSError as error:
            log.debug("The spool's cursor is not written: %s.", error)
        self._delete(done)

    def _delete(self, segments: Sequence[_Segment]) -> None:
        for segment in segments:
            try:
                self._files.delete(segment.first)
            except OSError as error:
                log.error(
                    "A segment of the spool '%s' cannot be removed: %s. Its messages will come again.",
                    self.directory,
                    error.strerror or error,
                )

    def _close_active(self) -> None:
        if self._active is not None:
            self._files.close_segment(self._active)
            self._active = None

    def _next_item(self) -> Record | Damage | None:
        """What comes next on the disk, read or not."""
        while True:
            item, _ = next(self._items, (None, 0))
            if item is not None:
                return item
            with self._lock:
                segment = next((one for one in self._segments if one.end > self._read), None)
                if segment is None:
                    return None
                start = self._loaded[1] if self._loaded and self._loaded[0] == segment.first else 0
                if start >= segment.size:  # its last records are lost
                    self.counters.damaged += segment.end - self._read
                    self._read = segment.end
                    continue
                self._loaded = (segment.first, segment.size)
                end = segment.size
            self._items = self._decoded(segment, start, end, report=True)

    def _decoded(
        self, segment: _Segment, start: int, end: int, *, report: bool = False
    ) -> Iterator[tuple[Record | Damage, int]]:
        """What stands between two offsets of a segment; nothing, with a line in the log, if it cannot be read."""
        begin = max(start, HEAD_BYTES)
        where = f"the spool '{self.directory}', segment {segment.first:016x}"
        try:
            head = decode_head(self._files.read(segment.first, 0, HEAD_BYTES))
            content = self._files.read(segment.first, begin, end)
        except OSError as error:
            log.error("Messages in %s cannot be read: %s.", where, error.strerror or error)
            return
        for item, behind in decode_records(content, head or bytes(16), 0):
            if report and isinstance(item, Damage):
                log.error("%d bytes in %s are damaged. The rest is delivered.", item.size, where)
            yield item, behind + begin

    def _newest(self, segment: _Segment) -> Moment | None:
        records = [item for item, _ in self._decoded(segment, 0, segment.size) if isinstance(item, Record)]
        return records[-1].at if records else None
