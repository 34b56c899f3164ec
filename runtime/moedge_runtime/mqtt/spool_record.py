"""The bytes of the spool: a segment's head, and records that can be found again behind damaged ones. Pure.

A segment is its head and then records, nothing between them; numbers are little-endian.

    head    magic "moedgeS1" | boot id, 16 | CRC-32C of both, 4
    record  magic "mREC" | CRC-32C of the rest, 4 | topic bytes, 2 | clock, 1 | 0 | payload bytes, 4
            | sequence, 8 | wall clock in ms, 8 | time since boot in ms, 8 | topic | payload
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c

from moedge_runtime.mqtt.spool_clock import Moment

HEAD_MAGIC = b"moedgeS1"
RECORD_MAGIC = b"mREC"

_HEAD = struct.Struct("<8s16sI")
_FRONT = struct.Struct("<4sI")
_REST = struct.Struct("<HBxIQQQ")

HEAD_BYTES = _HEAD.size
RECORD_BYTES = _FRONT.size + _REST.size
"""Of a record beside its topic and payload."""

MAX_PAYLOAD_BYTES = 1 << 28
"""MQTT 5.0, section 2.1.4: no packet is larger. A length above it is damage."""

_SYNCED = {0: None, 1: False, 2: True}


@dataclass(frozen=True)
class Record:
    """One message in the spool."""

    sequence: int
    topic: str
    payload: bytes
    at: Moment


@dataclass(frozen=True)
class Damage:
    """Bytes that are no record: `size` of them at `offset`; `at_end` if nothing readable follows."""

    offset: int
    size: int
    at_end: bool


def encode_head(boot_id: bytes) -> bytes:
    """The head of a segment."""
    return _HEAD.pack(HEAD_MAGIC, boot_id, _crc(HEAD_MAGIC + boot_id))


def decode_head(content: bytes) -> bytes | None:
    """The boot id in the head of a segment; None if it is damaged."""
    if len(content) < HEAD_BYTES:
        return None
    magic, boot_id, crc = _HEAD.unpack_from(content)
    return boot_id if magic == HEAD_MAGIC and crc == _crc(magic + boot_id) else None


def encode_record(sequence: int, topic: str, payload: bytes, at: Moment) -> bytes:
    """A record; its boot id is that of its segment."""
    name = topic.encode()
    clock = {value: code for code, value in _SYNCED.items()}[at.synced]
    rest = _REST.pack(len(name), clock, len(payload), sequence, at.wall_ms, at.boot_ms) + name + payload
    return _FRONT.pack(RECORD_MAGIC, _crc(rest)) + rest


def decode_records(content: bytes, boot_id: bytes, start: int = HEAD_BYTES) -> Iterator[tuple[Record | Damage, int]]:
    """What stands in `content` from `start` on, each with the offset behind it.

    Behind bytes that are no record it goes on with the next ones that are.
    """
    offset = start
    while offset < len(content):
        record, end = _record_at(content, offset, boot_id)
        if record is not None:
            yield record, end
            offset = end
            continue
        begin, offset = offset, content.find(RECORD_MAGIC, offset + 1)
        while offset >= 0 and _record_at(content, offset, boot_id)[0] is None:
            offset = content.find(RECORD_MAGIC, offset + 1)
        end = len(content) if offset < 0 else offset
        yield Damage(begin, end - begin, offset < 0), end
        offset = end


def _record_at(content: bytes, offset: int, boot_id: bytes) -> tuple[Record | None, int]:
    body = offset + RECORD_BYTES
    if body > len(content) or content[offset : offset + len(RECORD_MAGIC)] != RECORD_MAGIC:
        return None, offset
    crc = _FRONT.unpack_from(content, offset)[1]
    name_size, clock, size, sequence, wall_ms, boot_ms = _REST.unpack_from(content, offset + _FRONT.size)
    end = body + name_size + size
    if size > MAX_PAYLOAD_BYTES or end > len(content) or crc != _crc(content[offset + _FRONT.size : end]):
        return None, offset
    topic = content[body : body + name_size].decode(errors="replace")
    at = Moment(wall_ms, boot_ms, boot_id, _SYNCED.get(clock))
    return Record(sequence, topic, content[body + name_size : end], at), end


def _crc(content: bytes) -> int:
    return int(google_crc32c.value(content))
