"""Updates of the system from a published directory, on a board of files: RAUC and systemd note what they are asked."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from devices.store.https_server import HttpsServer
from devices.store.samples import Publisher
from moedge_devices.flash import confirm
from moedge_devices.flash.install import Machine
from moedge_devices.flash.update import ATTEMPT_NAME, Outcome, SystemUpdater, read_attempt
from moedge_devices.store import download
from moedge_devices.store.config import UpdateConfig
from moedge_devices.store.journal import Journal, Pending
from moedge_devices.store.run import Choice
from moedge_devices.store.store import Store
from moedge_devices.store.trust import Clock
from moedge_runtime.daemon.system import CONFIRMED_NAME, FAULT_NAME
from moedge_runtime.errors import MoedgeError
from runtime.mqtt.certificates import Authority

NAME = "moedge-generic-arm64"
NOON = datetime(2026, 11, 27, 12, 0, tzinfo=timezone.utc)
NIGHT = {"start": "02:00", "end": "04:00"}

RAUC = """\
#!/bin/sh
echo rauc $1 >>'{asked}'
eval "bundle=\\${{$#}}"
read -r compatible version <"$bundle"
case $1 in
    info) echo "{{\\"compatible\\": \\"$compatible\\", \\"version\\": \\"$version\\"}}" ;;
    install) [ ! -e '{broken}' ] && echo "$version" >'{slot}' ;;
esac
"""


class Board:
    """A machine with two slots, as far as an updater sees it."""

    def __init__(self, place: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.publisher = place, publisher
        self.state, self.store = place / "system", Store(place / "store")
        self.asked, self.broken, self._slot = place / "asked", place / "broken", place / "slot"
        self.device: dict[str, Any] = {"device": "gate-01"}
        self.version, self._boots = "1.0", 1
        self.source = str(publisher.directory)
        self.ca: Path | None = None
        self.state.mkdir()
        self.said: list[str] = []
        scripts = {
            "rauc": RAUC.format(asked=self.asked, broken=self.broken, slot=self._slot),
            "systemctl": f"#!/bin/sh\necho systemctl $1 >>'{self.asked}'\n",
        }
        (place / "bin").mkdir()
        for name, script in scripts.items():
            (place / "bin" / name).write_text(script)
            (place / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{place / 'bin'}:/usr/bin:/bin")

    def machine(self, *, may_go_back: bool = False) -> Machine:
        boot = f"boot {self._boots}"
        return Machine("A", self.version, NAME, may_go_back, boot, self.state)

    def update(self, *, may_go_back: bool = False, now: datetime = NOON, **choice: bool) -> Outcome:
        """One run of the timer."""
        (self.place / "device.json").write_text(json.dumps(self.device))
        config = UpdateConfig(
            store=self.store.root,
            source=self.source,
            keys=self.publisher.keys_file,
            device=self.place / "device.json",
            ca=self.ca,
        )
        clock = Clock(now, True)
        updater = SystemUpdater(
            config, Choice(**choice), self.machine(may_go_back=may_go_back), self.said.append, lambda: clock
        )
        return updater.run(lambda total: lambda advance: None)

    def fails(self, key: str, **options: Any) -> str:
        """A run ends with this error, of which the daemon's `info` learns."""
        with pytest.raises(MoedgeError) as caught:
            self.update(**options)
        assert caught.value.key == key, caught.value
        assert self.fault() == (key, str(caught.value))
        return str(caught.value)

    def fault(self) -> tuple[str, str] | None:
        path = self.state / FAULT_NAME
        if not path.exists():
            return None
        value = json.loads(path.read_text())
        return value["key"], value["message"]

    def restarts(self, version: str) -> None:
        """The machine starts anew, and `version` runs then."""
        self._boots += 1
        self.version = version

    def calls(self) -> list[str]:
        """What RAUC and systemd were asked since the last time."""
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return lines

    def installed(self) -> str:
        return self._slot.read_text().strip()

    def files(self) -> list[Path]:
        """Of systems, in the store."""
        return [*self.store.systems.glob("*/*"), *self.store.files.glob("*/*")]


INSTALLS = ["rauc info", "rauc install", "systemctl reboot"]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """It runs system 1.0, and the source has that one."""
    publisher = Publisher(tmp_path / "publisher")
    publisher.system("1.0")
    return Board(tmp_path, publisher, monkeypatch)


def test_a_newer_system_of_the_channel_is_installed_started_and_counts_once_it_runs(board: Board) -> None:
    assert board.update().status == "current" and board.calls() == []
    board.publisher.system("1.1")
    assert board.update(check=True).text == f"{NAME}@1.1 is there for this device; 1.0 runs."
    assert board.calls() == [] and board.files() == []
    outcome = board.update()
    assert (outcome.status, outcome.version, board.calls(), board.installed()) == ("restarting", "1.1", INSTALLS, "1.1")
    assert board.files() == [], "what is in the slot needs no second copy"
    board.restarts("1.1")
    assert board.update(may_go_back=True).status == "waiting" and read_attempt(board.state) is not None
    assert board.update().status == "current" and f"{NAME}@1.1 counts: it has answered." in board.said
    assert not (board.state / ATTEMPT_NAME).exists() and board.calls() == [] and board.fault() is None


def test_a_system_that_was_undone_is_not_tried_again_and_a_newer_one_is(board: Board) -> None:
    board.publisher.system("1.1")
    board.update()
    board.restarts("1.0")
    confirm.note_fault("1.1", "update.failed", "the daemon has answered 0 of the 1 frame wanted", board.state)
    board.calls()
    message = board.fails("update.failed")
    assert "the daemon has answered 0 of the 1 frame wanted. System 1.0 runs" in message
    for _ in range(2):
        assert "the daemon has answered 0 of" in board.fails("update.failed_before")
    assert board.calls() == []
    assert board.update(retry=True).status == "restarting" and board.calls() == INSTALLS
    board.restarts("1.0")
    assert "it did not come up, and the other slot was booted again" in board.fails("update.failed")
    board.publisher.system("1.2")
    assert board.update().version == "1.2" and board.installed() == "1.2" and board.fault() is None


def test_an_installation_that_fails_or_is_cut_short_is_tried_three_times(board: Board) -> None:
    board.publisher.system("1.1")
    board.broken.touch()
    for _ in range(3):
        assert "RAUC ended with code 1" in board.fails("flash.install")
        board.restarts("1.0")  # as a power cut does
    assert "it could not be installed 3 times" in board.fails("update.failed")
    assert board.calls() == ["rauc info", "rauc install"] * 3
    board.broken.unlink()
    assert "could not be installed" in board.fails("update.failed_before") and board.files() == []


def test_a_power_cut_while_rauc_writes_is_gone_on_with(board: Board) -> None:
    board.publisher.system("1.1")
    board.broken.touch()
    board.fails("flash.install")
    board.broken.unlink()
    assert len(board.files()) == 2, "the file and its name: it is not fetched again"
    board.restarts("1.0")
    assert board.update().status == "restarting" and board.installed() == "1.1"


def test_a_board_is_updated_in_its_windows_only(board: Board) -> None:
    board.publisher.system("1.1")
    board.device["update"] = {"windows": [NIGHT]}
    outcome = board.update()
    assert outcome.status == "waiting" and "none of its windows is open" in outcome.text and board.files() == []
    assert board.update(any_time=True, now=NOON).status == "restarting"
    board.calls()
    assert board.update(now=NOON).text.startswith(f"{NAME}@1.1 is installed and waits to be started"), "not started yet"
    assert board.update(now=NOON.replace(hour=3)).status == "restarting"
    assert board.calls() == ["systemctl reboot"], "it is not installed again"


def test_the_fleet_file_says_which_version_and_channel(board: Board) -> None:
    for version in ("1.1", "1.2"):
        board.publisher.system(version)
    board.device["system"] = "1.1"
    assert board.update().version == "1.1"
    board.restarts("1.1")
    assert board.update().status == "current"
    board.device["system"] = "1.3"
    assert "The source has no moedge-generic-arm64@1.3" in board.fails("update.unknown_version")
    board.publisher.system("1.3", channels=["beta"])
    board.fails("update.other_channel")
    board.device["update"] = {"channel": "beta"}
    assert board.update().version == "1.3"


def test_older_systems_those_for_other_boards_and_for_other_devices_are_refused(board: Board) -> None:
    board.version = "2.0"
    assert "1.0 is older than 2.0, the system that runs" in board.fails("update.downgrade")
    board.publisher.system("3.0", compatible="moedge-raspberry-pi-5")
    board.publisher.system("2.1", devices=["another"])
    board.publisher.system("2.2", profiles=["raspberry-pi-5-8gb"])
    board.publisher.system("2.3", min_moedge="99")
    board.fails("update.downgrade")
    assert board.calls() == [] and board.files() == []


def test_a_file_for_another_board_than_the_index_says_is_refused(board: Board) -> None:
    from moedge_devices.store.publish import SystemFile, Terms, publish

    path = board.place / "wrong.raucb"
    path.write_text("moedge-raspberry-pi-5 1.1\n")
    publisher = board.publisher
    publish(publisher.directory, publisher.key, system=SystemFile(path, NAME, "1.1"), terms=Terms(["stable"]))
    assert "for 'moedge-raspberry-pi-5', this board is" in board.fails("flash.incompatible")
    assert board.calls() == ["rauc info"]


def test_a_source_without_systems_is_none_to_complain_about_unless_one_is_wanted(board: Board) -> None:
    from moedge_devices.store.publish import publish

    publish(board.publisher.directory, board.publisher.key, withdraw=[f"{NAME}@1.0"])
    assert not list((board.publisher.directory / "files").glob("*/*"))
    outcome = board.update()
    assert outcome.status == "current" and f"has no systems for '{NAME}'" in outcome.text
    board.device["system"] = "1.1"
    assert "The source has no system" in board.fails("update.unknown_system")


def test_an_update_of_the_model_that_is_under_way_comes_first(board: Board) -> None:
    board.publisher.system("1.1")
    model = board.publisher.release("1")
    with board.store.locked():
        Journal(board.store.journal).write(Pending(phase="trying", release=model, before=None))
    outcome = board.update(any_time=True)
    assert outcome.status == "waiting" and "the update of the model to panel@1 comes first" in outcome.text
    Journal(board.store.journal).clear()
    assert board.update().status == "restarting"


def test_an_update_comes_over_https_and_goes_on_where_the_line_broke(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.Backoff, "next_s", lambda self: 0.0)
    release, authority = board.publisher.system("1.1"), Authority(tmp_path / "ca")
    with HttpsServer(board.publisher.directory, *authority.issue("server")) as server:
        board.source, board.ca = server.url, authority.ca
        server.cut_after = release.bytes // 3
        assert board.update().status == "restarting" and board.installed() == "1.1"
        begun = [ranged for path, ranged in server.requests if release.sha256 in path]
        assert begun[0] is None and begun[1] == f"bytes={release.bytes // 3}-"


def test_a_changed_file_on_the_server_is_not_given_to_rauc(board: Board) -> None:
    release = board.publisher.system("1.1")
    path = board.publisher.directory / "files" / release.sha256[:2] / release.sha256
    path.write_bytes(path.read_bytes().replace(b"1.1", b"6.6"))
    board.fails("update.wrong_hash")
    assert board.calls() == []


def test_what_the_new_system_says_why_it_goes_back_is_kept(tmp_path: Path) -> None:
    confirm.note_confirmed("A", "build", tmp_path)
    confirm.note_fault("1.1", "update.failed", "no daemon ran", tmp_path)
    assert confirm.fault_of("1.1", tmp_path) == "no daemon ran" and confirm.fault_of("1.2", tmp_path) is None
    assert json.loads((tmp_path / CONFIRMED_NAME).read_text()) == {"A": "build"}
    confirm.forget_fault(tmp_path)
    confirm.forget_fault(tmp_path)
    assert confirm.fault_of("1.1", tmp_path) is None
