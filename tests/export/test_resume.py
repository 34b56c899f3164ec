"""An export that was interrupted, however, goes on where it stopped and gives the same bytes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moedge_export.checkpoint import Checkpoint, open_checkpoint
from moedge_export.experts_file import ExpertsFile
from moedge_export.options import ExportOptions
from moedge_export.pipeline import export_bundle
from moedge_export.reading import CountedWeights
from moedge_runtime.bundle import Bundle, BundleWriter
from moedge_runtime.errors import ConfigError, StorageError

INT4 = ExportOptions(precision="int4")
INT8_ASYMMETRIC = ExportOptions(precision="int8", symmetric=False)
INLINE = ExportOptions(precision="int4", form="inline")


@pytest.fixture(scope="module")
def opened(checkpoint: tuple[Path, Any]) -> Checkpoint:
    return open_checkpoint(checkpoint[0])


@pytest.fixture(scope="module")
def uninterrupted(opened: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[ExportOptions], Path]:
    """The bundle of an export without a stop, made once for each set of options."""
    folder = tmp_path_factory.mktemp("uninterrupted")

    def run(options: ExportOptions) -> Path:
        path = folder / f"{options.form}-{options.precision}"
        if not path.exists():
            export_bundle(opened, path, options)
        return path

    return run


@pytest.mark.parametrize("options", [INT4, INT8_ASYMMETRIC, INLINE], ids=["int4", "int8", "inline"])
def test_a_kill_at_any_moment_changes_no_byte(
    options: ExportOptions, opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    expected = contents(uninterrupted(options))
    moment, kills = 1, 0
    while export_killed_at(moment, opened, tmp_path / str(moment), options):
        assert not (tmp_path / str(moment)).exists() or contents(tmp_path / str(moment)) == expected
        again = replace(options, overwrite=True)  # for the moments behind the last rename
        export_bundle(opened, tmp_path / str(moment), again)
        assert contents(tmp_path / str(moment)) == expected
        assert [path.name for path in tmp_path.iterdir()] == [str(moment)]
        shutil.rmtree(tmp_path / str(moment))
        kills += 1
        moment += 1 + moment // 4
    assert kills > 8


def test_repeated_kills_still_end(
    opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    kills = 0
    while export_killed_at(60 + 10 * kills, opened, tmp_path / "bundle", INT4):
        kills += 1
    assert kills >= 2
    assert contents(tmp_path / "bundle") == contents(uninterrupted(INT4))


def test_finished_layers_are_not_read_again(opened: Checkpoint, tmp_path: Path) -> None:
    reads: list[int] = []
    export_bundle(replace(opened, weights=CountedWeights(opened.weights, reads.append)), tmp_path / "whole", INT4)
    whole = sum(reads)
    interrupt(opened, tmp_path / "bundle", INT4)
    reads.clear()
    export_bundle(replace(opened, weights=CountedWeights(opened.weights, reads.append)), tmp_path / "bundle", INT4)
    assert 0 < sum(reads) < whole / 5


def test_what_is_kept_is_said(opened: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "moedge_export")
    interrupt(opened, tmp_path / "bundle", INT4)
    workspace = tmp_path / ".bundle.partial"
    assert f"'{workspace}' holds 7 finished pieces: run the same command again to go on" in caplog.text
    export_bundle(opened, tmp_path / "bundle", INT4)
    expected = (
        "Resuming: 3 of 3 layers' graphs, 1 of 2 layers of experts, embedding, head, vision are there and verified."
    )
    assert expected in caplog.text


@pytest.mark.parametrize("file", ["experts.bin", "layers/01.onnx", "embedding.bin", "vision.onnx"])
def test_one_altered_bit_of_a_kept_file_is_made_good(
    file: str, opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    interrupt(opened, tmp_path / "bundle", INT4)
    path = tmp_path / ".bundle.partial" / "bundle" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    export_bundle(opened, tmp_path / "bundle", INT4)
    assert contents(tmp_path / "bundle") == contents(uninterrupted(INT4))


def test_a_gap_in_the_experts_is_filled(
    opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    """The first of two layers is damaged, the second is not: the file's SHA-256 must still be that of the whole."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(BundleWriter, "finish", no_space)  # the very last step, so that everything is kept
        export_bundle(opened, tmp_path / "bundle", INT4)
    with (tmp_path / ".bundle.partial" / "bundle" / "experts.bin").open("r+b") as file:
        file.write(b"damaged")
    export_bundle(opened, tmp_path / "bundle", INT4)
    assert contents(tmp_path / "bundle") == contents(uninterrupted(INT4))


@pytest.mark.parametrize("damage", ["torn line", "damaged line", "damaged first line", "binary", "empty"])
def test_a_damaged_journal_costs_time_only(
    damage: str, opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    interrupt(opened, tmp_path / "bundle", INT4)
    journal = tmp_path / ".bundle.partial" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = {
        "torn line": [*lines[:-1], lines[-1][:40]],
        "damaged line": [*lines[:2], lines[2].replace(b"nbytes", b"mbytes"), *lines[3:]],
        "damaged first line": [lines[0].replace(b"form", b"from"), *lines[1:]],
        "binary": [os.urandom(5000)],
        "empty": [],
    }[damage]
    assert damaged != lines
    journal.write_bytes(b"".join(damaged))
    export_bundle(opened, tmp_path / "bundle", INT4)
    assert contents(tmp_path / "bundle") == contents(uninterrupted(INT4))


def test_another_export_is_refused_until_a_restart(
    opened: Checkpoint, tmp_path: Path, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    interrupt(opened, tmp_path / "bundle", INT4)
    other = replace(INT4, parts={"attention": "int4"})
    with pytest.raises(ConfigError) as caught:
        export_bundle(opened, tmp_path / "bundle", other)
    assert (
        "7 finished pieces of another export, which differs in: precision of attention (then int8, block size 64, "
        "symmetric, now int4, block size 32, symmetric). Run that export again to finish it, or pass --restart"
    ) in str(caught.value)
    assert (tmp_path / ".bundle.partial" / "journal.jsonl").exists()
    export_bundle(opened, tmp_path / "bundle", replace(other, restart=True))
    assert Bundle.open(tmp_path / "bundle").manifest.quantization.attention.bits == 4
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("change", ["weights", "config", "time"])
def test_a_checkpoint_that_was_changed_is_another(change: str, checkpoint: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint[0], folder)
    interrupt(open_checkpoint(folder), tmp_path / "bundle", INT4)
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["rope_parameters"]["rope_theta"] = 20000.0
        (folder / "config.json").write_text(json.dumps(config))
    elif change == "time":
        os.utime(folder / "model.safetensors", ns=(1, 1))
    else:
        before = (folder / "model.safetensors").stat()
        with (folder / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x01")
        os.utime(folder / "model.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ConfigError, match="another export, which differs in: checkpoint's"):
        export_bundle(open_checkpoint(folder), tmp_path / "bundle", INT4)


def test_two_exports_into_one_place_never_meet(opened: Checkpoint, tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle", resume=True), pytest.raises(StorageError) as caught:
        export_bundle(opened, tmp_path / "bundle", INT4)
    assert caught.value.key == "storage.locked"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system, of 1 MiB until it is mounted anew."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount_point], check=False).returncode:
        pytest.skip("mounting a disk is not permitted")
    yield mount_point
    subprocess.run(["umount", mount_point], check=True)


def test_an_export_goes_on_after_a_full_disk_was_given_room(
    opened: Checkpoint, disk: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[[ExportOptions], Path]
) -> None:
    with pytest.raises(StorageError, match=r"needs up to .* MB; its disk has 1 MB free"):
        export_bundle(opened, disk / "bundle", INT8_ASYMMETRIC)
    assert list(disk.iterdir()) == []
    monkeypatch.setattr("moedge_export.pipeline.check_room", lambda *_: None)
    with pytest.raises(StorageError) as caught:
        export_bundle(opened, disk / "bundle", INT8_ASYMMETRIC)
    assert caught.value.key == "storage.full"
    assert "' holds " in str(caught.value) and "run the same command again" in str(caught.value)
    assert [path.name for path in disk.iterdir()] == [".bundle.partial"]
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    export_bundle(opened, disk / "bundle", INT8_ASYMMETRIC)
    assert contents(disk / "bundle") == contents(uninterrupted(INT8_ASYMMETRIC))


def test_a_read_only_destination_is_refused_in_words(opened: Checkpoint, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m,ro", disk], check=True)
    with pytest.raises(StorageError, match=r"cannot be written: Read-only file system\.") as caught:
        export_bundle(opened, disk / "bundle", INT4)
    assert caught.value.key == "storage.read_only"


def contents(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def interrupt(opened: Checkpoint, destination: Path, options: ExportOptions) -> None:
    """Export until Ctrl-C comes amid the second layer of experts: seven pieces are finished by then."""
    write = ExpertsFile.write

    def interrupting(file: ExpertsFile, position: int, expert: int, record: Any) -> None:
        if (position, expert) == (1, 3):
            signal.raise_signal(signal.SIGINT)
        write(file, position, expert, record)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ExpertsFile, "write", interrupting)
        export_bundle(opened, destination, options)


def export_killed_at(moment: int, opened: Checkpoint, destination: Path, options: ExportOptions) -> bool:
    """Export in a child that kills itself at its `moment`th read, flush or rename; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = moment

        def count(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                count()
                result = function(*arguments, **named)
                count()
                return result

            return call

        os.fsync = counted(os.fsync)
        for name in ("rename", "replace"):
            setattr(Path, name, counted(getattr(Path, name)))
        weights = CountedWeights(opened.weights, count)
        export_bundle(replace(opened, weights=weights), destination, options)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
