from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moedge_devices.flash import seed as module
from moedge_devices.flash.layout import MIB
from moedge_devices.flash.seed import pack, read_directory, set_host_name, take, unpack
from moedge_runtime.errors import ConfigError

FILES = {"moedge.yaml": b"version: 1\n", "device.json": b'{"device": "gate-01"}', "device.key": b"secret key"}


class Place:
    """A partition with a seed, and a board's directories."""

    def __init__(self, root: Path, files: dict[str, bytes] = FILES) -> None:
        self.partition, self.target, self.state = root / "partition", root / "etc", root / "state"
        self.target.mkdir()
        self.state.mkdir()
        self.put(files)

    def put(self, files: dict[str, bytes]) -> None:
        self.partition.write_bytes(pack(files, MIB).ljust(3 * MIB // 2, b"\0"))

    def take(self) -> list[str]:
        return take(self.partition, self.target, self.state)

    def here(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.target.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_seed_is_taken_once_and_nothing_of_it_is_left(place: Place) -> None:
    assert place.take() == sorted(FILES)
    assert place.here() == FILES
    assert not any(place.partition.read_bytes())
    assert place.partition.stat().st_size == 3 * MIB // 2
    assert all(path.stat().st_mode & 0o777 == 0o640 for path in place.target.iterdir())
    (place.target / "moedge.yaml").write_text("changed on the board")
    assert place.take() == []
    assert (place.target / "moedge.yaml").read_text() == "changed on the board"


@pytest.mark.parametrize("stopped_in", ["first file", "note", "wipe"])
def test_a_power_cut_loses_nothing_and_takes_nothing_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    real = module.write_durably

    def stopping(path: Path, content: bytes) -> None:
        if stopped_in == ("note" if path.name == "seed.json" else "first file"):
            raise KeyboardInterrupt
        real(path, content)

    def cut(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_durably", stopping)
        if stopped_in == "wipe":
            patched.setattr(module, "wipe", cut)
        with pytest.raises(KeyboardInterrupt):
            place.take()
    assert any(place.partition.read_bytes())
    if stopped_in == "wipe":
        (place.target / "moedge.yaml").write_text("changed on the board")
        assert place.take() == []
        assert (place.target / "moedge.yaml").read_text() == "changed on the board"
    else:
        assert place.take() == sorted(FILES)
        assert place.here() == FILES
    assert not any(place.partition.read_bytes())


def test_another_seed_is_refused_by_a_device_that_has_one(place: Place) -> None:
    place.take()
    place.put({"moedge.yaml": b"of another device"})
    with pytest.raises(ConfigError) as caught:
        place.take()
    assert caught.value.key == "flash.seed_taken"
    assert place.here() == FILES


@pytest.mark.parametrize("damage", [b"\xff" * 512, None])
def test_a_damaged_seed_changes_nothing(place: Place, damage: bytes | None) -> None:
    whole = place.partition.read_bytes()
    place.partition.write_bytes(damage + whole[512:] if damage else whole[:700])
    with pytest.raises(ConfigError) as caught:
        place.take()
    assert caught.value.key == "flash.seed"
    assert place.here() == {}


def test_a_seed_with_a_path_or_a_link_is_refused() -> None:
    for name, kind in (("../passwd", tarfile.REGTYPE), ("/etc/passwd", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/shadow"
            archive.addfile(member)
        with pytest.raises(ConfigError, match="no plain file"):
            unpack(buffer.getvalue())


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True), st.binary(max_size=2000)))
def test_a_seed_gives_back_what_was_put_in_and_the_same_bytes_every_time(files: dict[str, bytes]) -> None:
    packed = pack(files, 10 * MIB)
    assert packed == pack(dict(reversed(files.items())), 10 * MIB)
    assert not files or unpack(packed) == files


def test_a_seed_that_is_too_large_or_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the partition for it has 1,000"):
        pack(FILES, 1000)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="plain files"):
        read_directory(tmp_path)


def test_the_host_name_is_the_device(place: Place, tmp_path: Path) -> None:
    kernel = tmp_path / "hostname"
    assert set_host_name(place.target, kernel) is None
    place.take()
    assert set_host_name(place.target, kernel) == json.loads(FILES["device.json"])["device"] == kernel.read_text()
