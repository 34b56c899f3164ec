"""Files that are the old or the new ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moedge_runtime.durable import Drafts, write_durably


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"old", b"new and longer", b""):
        write_durably(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_durably(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_what_a_run_that_was_cut_short_left_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    (tmp_path / ".a.json.new").symlink_to(other)
    write_durably(tmp_path / "a.json", b"new")
    assert other.read_bytes() == b"other"
    assert not (tmp_path / "a.json").is_symlink() and (tmp_path / "a.json").read_bytes() == b"new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json", "other"]


def test_several_files_are_taken_over_together_or_stay_as_they_were(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    drafts = Drafts()
    drafts.add(first, b"1", mode=0o640)
    drafts.add(second, b"2", mode=0o600)
    assert not first.exists() and not second.exists()
    drafts.take_over()
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert [path.stat().st_mode & 0o777 for path in (first, second)] == [0o640, 0o600]
    drafts.add(first, b"one")
    with pytest.raises(FileNotFoundError):
        drafts.add(tmp_path / "none" / "second", b"two")
    drafts.take_over()
    assert first.read_bytes() == b"1"
    drafts.add(first, b"one")
    drafts.discard()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first", "second"]


def test_writers_of_one_file_have_drafts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mine, theirs = tmp_path / "a", Drafts(), Drafts()
    mine.add(path, b"mine", several_writers=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        theirs.add(path, b"theirs", several_writers=True)
    mine.take_over()
    assert path.read_bytes() == b"mine"
    theirs.take_over()
    assert path.read_bytes() == b"theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_is_given_to_its_owner(tmp_path: Path) -> None:
    drafts = Drafts()
    drafts.add(tmp_path / "a", b"", owner=(1234, 1235))
    drafts.take_over()
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (1234, 1235)
