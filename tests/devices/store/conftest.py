"""Fixtures: a publisher with two versions, and an empty board."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices.store.samples import Board, Publisher


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory if there is one: a busy disk takes seconds for each of hundreds of syncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="moedge-", dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def publisher(place: Path) -> Publisher:
    return Publisher(place / "publisher")


@pytest.fixture
def board(place: Path, publisher: Publisher) -> Board:
    return Board(place / "board", publisher)
