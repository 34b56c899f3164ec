import ctypes
import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from devices.fleet.sample import FLEET, sample, write
from moedge_devices.fleet import render as render_module
from moedge_devices.fleet.cli import fleet as command
from moedge_devices.fleet.render import LIST, Rendered, render
from moedge_runtime.config import load_config
from moedge_runtime.errors import ConfigError, StorageError


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_device_gets_a_configuration_that_the_runtime_reads(tmp_path: Path) -> None:
    fleet = sample(tmp_path)
    assert render(fleet, tmp_path / "out") == Rendered(8, 0, 0)
    for name, device in fleet.devices.items():
        config = load_config(tmp_path / "out" / name / "moedge.yaml", {"CAMERA_PASSWORD": "x"})
        assert config.device == name
        assert [watch.interval for watch in config.watches] == [watch.interval for watch in device.config.watches]


def test_the_same_fleet_gives_the_same_bytes_however_it_is_ordered(tmp_path: Path) -> None:
    render(sample(tmp_path), tmp_path / "first")
    render(sample(tmp_path), tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    document = yaml.safe_load(FLEET)
    document["defaults"]["config"] = dict(reversed(document["defaults"]["config"].items()))
    document["sites"] = dict(reversed(document["sites"].items()))
    render(sample(tmp_path, yaml.safe_dump(document, sort_keys=False)), tmp_path / "third")
    assert contents(tmp_path / "first") == contents(tmp_path / "third")


def test_files_that_are_right_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    render(sample(tmp_path), out)
    untouched = (out / "panel-04/moedge.yaml").stat()
    done = render(sample(tmp_path, FLEET.replace("interval: 30", "interval: 31")), out)
    assert done == Rendered(written=3, unchanged=5, removed=0)
    now = (out / "panel-04/moedge.yaml").stat()
    assert (now.st_ino, now.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)


def test_what_was_rendered_can_be_read_by_programs(tmp_path: Path) -> None:
    arguments = ["render", "-f", str(write(tmp_path)), "--out", str(tmp_path / "out"), "--json"]
    said = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert said == {"directory": str(tmp_path / "out"), "written": 8, "unchanged": 0, "removed": 0}


def test_only_files_that_it_made_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    render(sample(tmp_path), out)
    (out / "panel-03/notes.txt").write_text("mine")
    (out / "other").mkdir()
    (out / "other/moedge.yaml").write_text("mine")
    text = FLEET.replace("panel-03", "panel-13").replace("panel-04", "panel-14")
    assert render(sample(tmp_path, text), out) == Rendered(written=4, unchanged=4, removed=4)
    assert contents(out / "panel-03") == {"notes.txt": b"mine"} and not (out / "panel-04").exists()
    assert (out / "other/moedge.yaml").read_text() == "mine"


def test_a_file_of_somebody_else_in_the_way_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "panel-03").mkdir(parents=True)
    (out / "panel-03/moedge.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"were not made by `moedge fleet render`: panel-03/moedge\.yaml\."):
        render(sample(tmp_path), out, force=True)
    assert contents(out) == {"panel-03/moedge.yaml": b"mine"}


@pytest.mark.parametrize("text", [FLEET, FLEET.replace("panel-03", "panel-13")])
def test_a_file_that_was_edited_is_kept_unless_forced(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out"
    render(sample(tmp_path), out)
    edited = out / "panel-03/moedge.yaml"
    edited.write_text("edited")
    before = contents(out)
    with pytest.raises(ConfigError, match=r"were changed since they were made: panel-03/moedge\.yaml\..*--force"):
        render(sample(tmp_path, text), out)
    assert contents(out) == before
    render(sample(tmp_path, text), out, force=True)
    assert not edited.exists() or edited.read_text() != "edited"


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    render(sample(tmp_path), tmp_path / "out")
    (tmp_path / "out" / LIST).write_text('{"files": {"../../etc/passwd": ["x"]}}')
    with pytest.raises(ConfigError, match="names files outside its directory"):
        render(sample(tmp_path), tmp_path / "out")
    (tmp_path / "out" / LIST).write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        render(sample(tmp_path), tmp_path / "out")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount_point], check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield mount_point
    subprocess.run(["umount", mount_point], check=True)


def larger(text: str) -> str:
    """A fleet whose files are as many, and three times 64 KiB."""
    return text.replace('question: "How full is it?"', f"question: {'How full ' * 700}")


def test_a_full_disk_leaves_the_old_files_as_they_were(tmp_path: Path, disk: Path) -> None:
    out = disk / "out"
    render(sample(tmp_path), out)
    (disk / "ballast").write_bytes(b"x" * (16 << 10))
    before = contents(out)
    fleet = sample(tmp_path, larger(FLEET))
    with pytest.raises(StorageError, match="No space left on device") as caught:
        render(fleet, out)
    assert caught.value.key == "storage.full"
    assert contents(out) == before
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    assert render(fleet, out) == Rendered(4, 4, 0)
    render(fleet, tmp_path / "reference")
    assert contents(out) == contents(tmp_path / "reference")


def test_a_read_only_disk_is_refused_in_words(tmp_path: Path, disk: Path) -> None:
    render(sample(tmp_path), disk / "out")
    before = contents(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StorageError, match="Read-only file system") as caught:
        render(sample(tmp_path, larger(FLEET)), disk / "out")
    assert caught.value.key == "storage.read_only"
    assert contents(disk) == before


def test_an_unchanged_fleet_writes_nothing(tmp_path: Path, disk: Path) -> None:
    render(sample(tmp_path), disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert render(sample(tmp_path), disk / "out") == Rendered(0, 8, 0)


def test_a_disk_that_fails_while_it_is_flushed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def syncfs(descriptor: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: SimpleNamespace(syncfs=syncfs))
    with pytest.raises(StorageError, match="Input/output error"):
        render(sample(tmp_path), tmp_path / "out")


def test_a_run_that_is_killed_at_any_step_leaves_whole_files_and_the_next_one_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child is killed before its first, second, … change to the directory, until one gets through."""
    monkeypatch.setattr(
        render_module, "_flush", lambda out: None
    )  # what a killed process has written stays; a power cut is not tried
    old, new = sample(tmp_path), sample(tmp_path, larger(FLEET).replace("panel-04", "panel-14"))
    render(old, tmp_path / "old")
    render(new, tmp_path / "new")
    whole = {*contents(tmp_path / "old").items(), *contents(tmp_path / "new").items()}
    for step in range(1, 100):
        out = tmp_path / f"out{step}"
        render(old, out)
        killed = _killed_at(step, lambda out=out: render(new, out))  # type: ignore[misc]
        for name, content in contents(out).items():
            staged = name.startswith(".moedge-render-")
            assert staged or name == LIST or (name, content) in whole, (step, name)
        assert render(new, out).written <= 6
        assert contents(out) == contents(tmp_path / "new"), step
        if not killed:
            assert step > 10
            return
    raise AssertionError("the run never got through")


def _killed_at(step: int, run: object) -> bool:
    """Run in a child that kills itself before its `step`th rename, removal or write; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(name: str) -> None:
            function = getattr(Path, name)

            def call(*arguments: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
                return function(*arguments, **named)

            setattr(Path, name, call)

        for name in ("replace", "unlink", "rmdir", "mkdir", "write_bytes", "write_text"):
            counted(name)
        try:
            run()  # type: ignore[operator]
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 9


def test_two_runs_into_one_directory_never_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    holder = subprocess.Popen(["flock", "--no-fork", str(out), "sleep", "60"])
    try:
        deadline_s = time.monotonic() + 30
        while subprocess.run(["flock", "--nonblock", str(out), "true"], check=False).returncode == 0:
            assert time.monotonic() < deadline_s
        with pytest.raises(StorageError) as caught:
            render(sample(tmp_path), out)
        assert caught.value.key == "storage.locked"
    finally:
        holder.kill()
        holder.wait()
    assert render(sample(tmp_path), out).written == 8


def test_a_failing_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        render(sample(tmp_path), tmp_path / "out")
