"""The store: what travels, what is shared, what is removed, and what a full or read-only disk leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from devices.store.samples import Board, CountedSource, Publisher, tree
from moedge_devices.store.check import check_store
from moedge_devices.store.errors import RefusedError, TrustError
from moedge_devices.store.store import Store
from moedge_runtime.bundle import Bundle, verify_bundle
from moedge_runtime.errors import ConfigError, StorageError


def nothing(total: int) -> object:
    return lambda advance: None


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """A tmpfs."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mounting here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_version_is_a_whole_bundle_and_the_next_one_brings_only_what_changed(
    publisher: Publisher, board: Board
) -> None:
    publisher.release("1")
    done = board.install()
    one = board.store.bundle("panel", "1")
    verify_bundle(Bundle.open(one))
    assert tree(one) == tree(publisher.place / "bundle-1")
    assert not done.already and done.shared_bytes == 0
    publisher.release("2")
    source = CountedSource(publisher.source)
    done = board.install(source=source)
    two = board.store.bundle("panel", "2")
    assert sum(source.streamed.values()) == len("head of 2"), "one file of nine bytes, and the manifest, travelled"
    assert done.shared_bytes > 10_000
    assert (one / "experts.bin").samefile(two / "experts.bin")
    assert not (one / "head.onnx").samefile(two / "head.onnx")
    assert board.install().already


def test_a_store_is_readable_by_the_daemons_user(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    before = os.umask(0o077)
    try:
        board.install()
    finally:
        os.umask(before)
    path = board.store.bundle("panel", "1")
    for each in [*path.rglob("*"), *path.parents]:
        if board.store.root in (each, *each.parents):
            wanted = 0o555 if each.is_dir() else 0o444
            assert each.stat().st_mode & wanted == wanted, each


def test_the_version_in_use_is_a_link_and_is_not_removed(publisher: Publisher, board: Board) -> None:
    for version in ("1", "2", "3"):
        publisher.release(version)
        board.install()
    store = board.store
    with store.locked():
        with pytest.raises(ConfigError, match="versions of panel there: 3, 2, 1"):
            store.use("panel", "4")
        store.use("panel", "1")
        store.use("panel", "3")
        assert str(store.link("panel").readlink()) == "../bundles/panel/3"
        with pytest.raises(ConfigError, match="is in use"):
            store.remove("panel", "3")
        size = (store.bundle("panel", "1") / "head.onnx").stat().st_size
        manifest = (store.bundle("panel", "1") / "manifest.json").stat().st_size
        assert store.remove("panel", "1") == size + manifest, "what the others share stays"
        assert store.keep("panel", 0, set()) > 0
    assert [each.release.version for each in store.installed()] == ["3"]
    verify_bundle(Bundle.open(store.link("panel")))


def test_damage_is_found_and_mended(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    publisher.release("2")
    board.install("1")
    board.install("2")
    damaged = board.store.bundle("panel", "1") / "embedding.bin"
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    found = check_store(board.store.installed(), nothing)  # type: ignore[arg-type]
    assert found == {"panel@1": ["embedding.bin"], "panel@2": ["embedding.bin"]}, "they share it"
    board.install("1", check_files=True)
    board.install("2", check_files=True)
    assert check_store(board.store.installed(), nothing) == {}  # type: ignore[arg-type]


def test_a_file_with_another_content_is_refused_and_not_kept(publisher: Publisher, board: Board) -> None:
    release = publisher.release("1")
    victim = max((publisher.directory / "files").glob("*/*"), key=lambda path: path.stat().st_size)
    good = victim.read_bytes()
    victim.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(TrustError) as caught:
        board.install()
    assert caught.value.key == "update.wrong_hash"
    assert board.store.installed() == [] and not (board.store.partial / victim.name).exists()
    victim.write_bytes(good + b"more")
    with pytest.raises(TrustError, match="longer than the release says"):
        board.install()
    victim.write_bytes(good)
    manifest = publisher.directory / "files" / release.manifest_sha256[:2] / release.manifest_sha256
    manifest.write_bytes(manifest.read_bytes().replace(b"sample", b"simple"))
    fresh = Board(board.store.root.with_name("fresh"), publisher)
    with pytest.raises(TrustError, match="not what the index says"):
        fresh.install()
    assert fresh.store.installed() == []


def test_a_version_is_published_once(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    board.install()
    other = Publisher(publisher.place / "other")
    other.release("1", head="something else")
    with pytest.raises(RefusedError, match="installed with another content"):
        Board(board.store.root, other).install()


def test_a_disk_that_is_too_small_is_said_with_numbers_before_anything_is_fetched(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.release("1")
    with mounted(tmp_path / "small", "-o", "size=4m") as disk:
        small, source = Board(disk / "store", publisher), CountedSource(publisher.source)
        with pytest.raises(StorageError, match=r"panel@1 needs [\d,]+ bytes more .* too few") as caught:
            small.install(source=source)
        assert caught.value.key == "storage.full" and source.streamed == {}


def test_a_disk_that_gets_full_leaves_what_is_there_whole(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.release("1")
    monkeypatch.setattr("moedge_devices.store.install.RESERVE_BYTES", 0)
    monkeypatch.setattr(Store, "free_bytes", lambda self: 1 << 40)
    with mounted(tmp_path / "small", "-o", "size=100k") as disk:
        small = Board(disk / "store", publisher)
        with pytest.raises(StorageError) as caught:
            small.install()
        assert caught.value.key == "storage.full"
        assert small.store.installed() == []
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        small.install()
        verify_bundle(small.store.open("panel", "1"))


def test_a_read_only_disk_is_said(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.release("1")
    with mounted(tmp_path / "disk", "-o", "size=10m") as disk:
        readable = Board(disk / "store", publisher)
        monkeypatch.setattr("moedge_devices.store.install.RESERVE_BYTES", 0)
        readable.install()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StorageError, match="Read-only file system") as caught:
            readable.install()
        assert caught.value.key == "storage.read_only"
        assert [each.release.label for each in readable.store.installed()] == ["panel@1"], "listing needs no writing"


def test_two_commands_do_not_change_one_store(publisher: Publisher, board: Board) -> None:
    publisher.release("1")
    with board.store.locked(), pytest.raises(StorageError, match="Another command") as caught:
        board.install()
    assert caught.value.key == "storage.locked"


def test_withdrawn_releases_take_their_files_along(publisher: Publisher, board: Board) -> None:
    from moedge_devices.store.publish import publish

    publisher.release("1")
    publisher.release("2")
    done = publish(publisher.directory, publisher.key, withdraw=["panel@1"])
    assert len(done.removed) == 2, "its head and its manifest"
    assert [release.version for release in board.index().releases] == ["2"]
    board.install()
