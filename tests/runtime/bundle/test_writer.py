import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moedge_runtime.bundle import Bundle, BundleWriter
from moedge_runtime.errors import StorageError
from runtime.bundle.sample import write_sample


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount_point)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def test_nothing_appears_under_the_name_before_the_bundle_is_complete(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        (writer.path / "head.onnx").write_bytes(b"head")
        assert not (tmp_path / "bundle").exists()
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "bundle") as writer:
        (writer.path / "head.onnx").write_bytes(b"head")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_with_numbers_and_leaves_nothing_behind(small_disk: Path) -> None:
    with pytest.raises(StorageError) as error:
        write_sample(small_disk / "bundle")
    assert error.value.key == "storage.full"
    assert str(error.value).startswith(f"The disk of '{small_disk}/bundle' is full (0 MB free). Nothing was left")
    assert list(small_disk.iterdir()) == []


def test_an_existing_bundle_is_not_overwritten_silently(tmp_path: Path) -> None:
    write_sample(tmp_path / "bundle")
    before = (tmp_path / "bundle" / "manifest.json").stat().st_mtime_ns
    with pytest.raises(StorageError) as error:
        write_sample(tmp_path / "bundle")
    assert str(error.value) == (
        f"'{tmp_path}/bundle' exists already. Remove it, choose another directory, or pass --overwrite."
    )
    assert (tmp_path / "bundle" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_overwrite_never_replaces_what_is_no_bundle(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "precious"
    if kind == "directory":
        place.mkdir()
        (place / "notes.txt").write_text("precious")
    else:
        place.write_text("precious")
    with pytest.raises(StorageError) as error:
        write_sample(place, overwrite=True)
    assert str(error.value) == (
        f"'{place}' is no bundle: it has no manifest.json, so --overwrite leaves it alone. "
        "Remove it yourself or choose another directory."
    )
    assert (place / "notes.txt" if kind == "directory" else place).read_text() == "precious"


@pytest.mark.parametrize("place", [Path("/")])
def test_a_place_without_a_name_is_refused(place: Path) -> None:
    with pytest.raises(StorageError, match="is no place for a bundle"):
        BundleWriter(place)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".bundle.partial" / "bundle").mkdir(parents=True)
    (tmp_path / ".bundle.partial" / "bundle" / "stale").write_text("stale")
    write_sample(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_writer_that_resumes_finds_what_another_kept(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "bundle") as writer:
        (writer.path / "head.onnx").write_bytes(b"head")
        writer.kept = "The head is kept."
        raise ZeroDivisionError
    with BundleWriter(tmp_path / "bundle", resume=True) as writer:
        assert (writer.path / "head.onnx").read_bytes() == b"head"
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_says_what_is_kept(tmp_path: Path) -> None:
    message = r"is full \(.*\)\. Half of it is kept\. Free space"
    with pytest.raises(StorageError, match=message), BundleWriter(tmp_path / "bundle") as writer:
        writer.kept = "Half of it is kept."
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_writers_of_one_bundle_never_meet(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        (writer.path / "head.onnx").write_bytes(b"head")
        with pytest.raises(StorageError) as error:
            write_sample(tmp_path / "bundle")
        assert error.value.key == "storage.locked"
        assert (writer.path / "head.onnx").read_bytes() == b"head"
    write_sample(tmp_path / "bundle")


def test_overwrite_replaces_the_whole_bundle(tmp_path: Path) -> None:
    write_sample(tmp_path / "bundle")
    (tmp_path / "bundle" / "old").write_text("old")
    write_sample(tmp_path / "bundle", overwrite=True)
    assert not (tmp_path / "bundle" / "old").exists()
    assert Bundle.open(tmp_path / "bundle").manifest.form == "paged"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_named() -> None:
    with pytest.raises(StorageError) as error:
        write_sample(Path("/proc/moedge-bundle"))
    assert "/proc/moedge-bundle" in str(error.value)


def test_two_exports_of_the_same_content_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_sample(tmp_path / "a"), write_sample(tmp_path / "b")
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_disk_errors_keep_the_cause() -> None:
    from moedge_runtime.bundle.writer import disk_errors

    with pytest.raises(StorageError) as error, disk_errors(Path("/tmp/x")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert isinstance(error.value.__cause__, OSError)
