"""The journal of an export: which pieces are finished, so that an export which was interrupted goes on behind them.

The first line says what is exported, each other one what a finished piece consists of. A line is the CRC-32C of its
JSON in eight digits, a space and the JSON. Lines that are torn or damaged count as not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import google_crc32c
from moedge_runtime.bundle.manifest import FileEntry
from moedge_runtime.durable import write_durably
from pydantic import BaseModel, ConfigDict

from moedge_export.quantizer import Tally

JOURNAL_NAME = "journal.jsonl"

Identity = dict[str, str]
"""Everything that the bytes of a bundle follow from, by name (`identity.py`)."""


class Finished(BaseModel):
    """A piece that is on the disk.

    Attributes:
        piece: Its name.
        files: Files that belong to it alone.
        crc32c: Of the records in experts.bin, for a layer's experts.
        tallies: By part of the quantization.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    piece: str
    files: list[FileEntry] = []
    crc32c: list[int] = []
    tallies: dict[str, Tally] = {}


class Journal:
    """The journal in a file; what was appended to it survives a crash.

    Attributes:
        identity: Of the export that wrote it; None if there is none, or its first line is damaged.
        finished: By piece.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.identity: Identity | None = None
        self.finished: dict[str, Finished] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        if lines and (content := _checked(lines[0])) is not None:
            self.identity = json.loads(content)
        for line in lines[1:]:
            if (content := _checked(line)) is not None:
                piece = Finished.model_validate_json(content)
                self.finished[piece.piece] = piece

    def begin(self, identity: Identity, kept: Iterable[Finished]) -> None:
        """Start a journal with the pieces `kept`, which takes the place of the one in the file."""
        self.identity, self.finished = identity, {piece.piece: piece for piece in kept}
        lines = [json.dumps(identity), *(piece.model_dump_json() for piece in self.finished.values())]
        write_durably(self._path, b"".join(_line(line) for line in lines))

    def append(self, piece: Finished) -> None:
        """Add a piece whose bytes are on the disk already."""
        with self._path.open("ab") as file:
            file.write(_line(piece.model_dump_json()))
            file.flush()
            os.fsync(file.fileno())
        self.finished[piece.piece] = piece


def _line(content: str) -> bytes:
    return f"{google_crc32c.value(content.encode()):08x} {content}\n".encode()


def _checked(line: bytes) -> bytes | None:
    checksum, _, content = line.partition(b" ")
    return content if checksum == f"{google_crc32c.value(content):08x}".encode() else None
